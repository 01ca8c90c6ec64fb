"""Bars, lines and curves: what is drawn for a width, without a terminal."""

import io
import math

import pyte
import pytest

from cli.show import progress
from cli.show.live import Region
from cli.show.output import Output
from cli.show.plot import ASCII, curve
from cli.show.progress import Transfer, bar_line, flowed, plain_lines, status_line, transfer_bar
from cli.show.terminal import cell_width

GB = 1_000_000_000


def transfer(**more):
    return Transfer("Uploading", **{"total": 3 * GB, "done": GB, **more})


def test_a_wide_bar_tells_everything():
    line = bar_line(transfer(), 100e6, 100)
    assert line.startswith("Uploading ━")
    assert line.endswith(" 33%  1.0 GB of 3.0 GB  100.0 MB/s  20s left")


@pytest.mark.parametrize("columns", range(10, 130, 7))
def test_a_bar_is_never_wider_than_its_terminal(columns):
    for bar in (transfer(), transfer(total=None), transfer(total=0), transfer(done=3 * GB)):
        assert cell_width(bar_line(bar, 85e6, columns)) <= columns


def test_a_narrow_bar_keeps_the_share_and_the_time_left():
    assert bar_line(transfer(), 100e6, 30) == "Uploading  33%  20s left"
    assert bar_line(transfer(), 100e6, 16) == "Uploading  33%"


def test_a_terminal_without_unicode_gets_a_plain_bar():
    assert bar_line(transfer(), 0, 50, fancy=False).isascii()


def test_a_transfer_of_unknown_size_tells_what_has_come():
    assert bar_line(transfer(total=None), 1e6, 60) == "Uploading 1.0 GB  1.0 MB/s"


def test_the_speed_is_that_of_the_last_seconds_and_never_negative():
    slow = Transfer("Uploading", 100)
    assert slow.speed(0.0) == 0.0
    slow(50)
    assert slow.speed(5.0) == 10.0
    for second in range(6, 30):
        slow.speed(float(second))
    assert slow.speed(30.0) == 0.0
    slow(-50)  # a file starts over
    assert slow.speed(31.0) == 0.0


@pytest.mark.parametrize(("quiet", "said"), [(False, "Uploading 3.0 GB\n"), (True, "")])
def test_in_a_pipe_a_transfer_is_one_line_or_none(quiet, said):
    err = io.StringIO()
    with transfer_bar(Output(stdout=io.StringIO(), stderr=err), "Uploading", 3 * GB, quiet=quiet) as count:
        count(GB)
    assert err.getvalue() == said


def test_in_a_pipe_changes_are_told_every_two_seconds_at_most_and_the_last_one_always(monkeypatch):
    err, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with plain_lines(Output(stdout=io.StringIO(), stderr=err)) as show:
        for clock[0], text in ((0.0, "a"), (0.5, "b"), (1.0, "c"), (2.5, "c"), (5.0, "c"), (5.5, "d")):
            show(text)
    assert err.getvalue().split() == ["a", "c", "d"]


class Console(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_note_stands_above_what_is_drawn_and_the_drawing_goes_in_the_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    output = Output(stdout=io.StringIO(), stderr=Console())
    with status_line(output) as show:
        show("RUNNING  step 1/2")
        output.note("by the way")
        during = output.stderr.getvalue()
    screen = pyte.Screen(80, 5)
    pyte.Stream(screen).feed(during.replace("\n", "\r\n"))
    assert screen.display[0].rstrip() == "by the way"
    assert "RUNNING" in screen.display[1]
    pyte.Stream(screen).feed(output.stderr.getvalue()[len(during) :].replace("\n", "\r\n"))
    assert [line.rstrip() for line in screen.display] == ["by the way", "", "", "", ""]
    assert not screen.cursor.hidden


def test_ctrl_c_in_the_very_first_moment_gives_the_cursor_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    def interrupted(_columns, _lines):
        raise KeyboardInterrupt

    output = Output(stdout=io.StringIO(), stderr=Console())
    with pytest.raises(KeyboardInterrupt), Region(output, interrupted):
        pytest.fail("it was entered")
    assert output.stderr.getvalue().endswith("\x1b[?25h")
    assert output.region is None


def test_what_a_server_says_moves_no_cursor(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    output = Output(stdout=io.StringIO(), stderr=Console())
    with status_line(output) as show:
        show("RUNNING  evil\x1b[2J\nline")
        output.note("")
    assert "\x1b[2J" not in output.stderr.getvalue()
    assert "evil\\x1b[2J\\nline" in output.stderr.getvalue()


def test_words_flow_over_the_lines_that_there_are():
    assert flowed(["RUNNING 3s", "step 1/2", "loss 0.5"], 40, 4) == ["RUNNING 3s  step 1/2  loss 0.5"]
    assert flowed(["RUNNING 3s", "step 1/2", "loss 0.5"], 12, 4) == ["RUNNING 3s", "  step 1/2", "  loss 0.5"]
    assert flowed(["RUNNING 3s", "step 1/2", "loss 0.5"], 12, 2) == ["RUNNING 3s", "  step 1/2…"]
    assert flowed(["a" * 30], 12, 2) == ["a" * 11 + "…"]
    assert flowed(["a", "b"], 12, 0) == []


FALLING = [(step, 3 * math.exp(-step / 40)) for step in range(1, 200)]


@pytest.mark.parametrize("width", [16, 20, 40, 120, 300])
@pytest.mark.parametrize("height", [5, 8, 20])
def test_a_curve_takes_the_room_that_it_is_given(width, height):
    drawn = curve(FALLING, [(50, 1.0)], width, height)
    assert len(drawn) == height
    assert all(cell_width(line) <= width for line in drawn)


def test_a_falling_curve_falls_from_the_left_to_the_right():
    rows = curve(FALLING, [], 60, 12, ASCII)[:-2]
    places = [row.index("*") for row in rows if "*" in row]
    assert places == sorted(places)
    assert len(places) == len(rows)
    assert rows[0].lstrip().startswith("2.93 +*")


def test_marks_stand_out_and_axes_tell_the_range():
    drawn = curve(FALLING, [(1, 2.0), (199, 0.5)], 60, 12)
    assert sum(line.count("●") for line in drawn) == 2
    assert drawn[-1].split() == ["1", "199"]
    assert drawn[0].split()[0] == "2.93"


@pytest.mark.parametrize(
    ("line", "marks"),
    [([], []), ([(1, math.nan)], []), ([(1, math.inf), (2, math.nan)], [])],
)
def test_nothing_to_draw_draws_nothing(line, marks):
    assert curve(line, marks, 60, 12) == []


@pytest.mark.parametrize(
    "line", [[(1, 2.0)], [(1, 2.0), (2, 2.0)], [(5, 1e-9), (6, 2e-9)], [(1, -1.0), (2, 1e12)]]
)
def test_odd_curves_are_drawn_too(line):
    assert len(curve(line, [], 40, 8)) == 8


def test_rooms_that_are_too_small_stay_empty():
    assert curve(FALLING, [], 10, 12) == curve(FALLING, [], 40, 3) == []
