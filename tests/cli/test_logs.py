"""`firectl logs`: which job is meant, and how its log is read to the end."""

import pytest

HOME = "/v1/accounts/acme"
JOB = f"{HOME}/fineTuningJobs/j"
SUPERVISED = f"{HOME}/supervisedFineTuningJobs/j"


def page(text, at, complete=False):
    return {"text": text, "offset": str(at - len(text)), "nextOffset": str(at), "complete": complete}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cli.commands.logs.FOLLOW_SECONDS", 0.01)


@pytest.fixture
def job(api):
    api.on("GET", JOB, {"name": JOB.removeprefix("/v1/"), "state": "RUNNING"})
    return api


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (["logs", "j"], JOB),
        (["logs", "fine-tuning-job", "j"], JOB),
        (["fine-tuning-job", "logs", "j"], JOB),
        (["ftj", "logs", "j"], JOB),
        (["logs", "sftj", "j"], SUPERVISED),
        (["supervised-fine-tuning-job", "logs", "j"], SUPERVISED),
        (["logs", "accounts/acme/supervisedFineTuningJobs/j"], SUPERVISED),
    ],
)
def test_the_job_is_named_in_all_ways(firectl, job, argv, path):
    job.on("GET", f"{path}:logs", page("hello\n", 6, complete=True))
    ran = firectl(*argv)
    assert (ran.code, ran.out) == (0, "hello\n")


def test_a_bare_id_of_the_newer_collection_is_found_there(firectl, api):
    api.on("GET", SUPERVISED, {"name": SUPERVISED.removeprefix("/v1/")})
    api.on("GET", f"{SUPERVISED}:logs", page("hello\n", 6, complete=True))
    assert firectl("logs", "j").out == "hello\n"


def test_the_log_is_read_page_by_page(firectl, job):
    job.on("GET", f"{JOB}:logs", page("one\ntw", 6), page("o\n", 8), page("", 8))
    ran = firectl("logs", "j")
    assert (ran.code, ran.out) == (0, "one\ntwo\n")
    asked = [request.query.get("offset") for request in job.sent("GET", f"{JOB}:logs")]
    assert asked == [None, "6", "8"]


def test_following_goes_on_until_the_job_has_ended(firectl, job):
    answers = [page("one\n", 4), page("", 4), job.refusal(503, 14, "away"), page("two\n", 8, complete=True)]
    job.on("GET", f"{JOB}:logs", *answers)
    ran = firectl("logs", "j", "-f")
    assert (ran.code, ran.out) == (0, "one\ntwo\n")


def test_the_tail_is_the_servers_to_cut(firectl, job):
    job.on("GET", f"{JOB}:logs", page("last\n", 100))
    assert firectl("logs", "j", "--tail", "1").out == "last\n"
    (asked,) = job.sent("GET", f"{JOB}:logs")
    assert asked.query == {"tailLines": "1"}


def test_a_followed_tail_goes_on_from_its_end(firectl, job):
    job.on("GET", f"{JOB}:logs", page("last\n", 100), page("more\n", 105, complete=True))
    assert firectl("logs", "j", "--tail", "1", "-f").out == "last\nmore\n"
    assert job.sent("GET", f"{JOB}:logs")[1].query == {"offset": "100"}


def test_a_log_without_a_word_says_so_beside_the_result(firectl, job):
    job.on("GET", f"{JOB}:logs", page("", 0))
    ran = firectl("logs", "fine-tuning-job", "j")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "accounts/acme/fineTuningJobs/j has printed nothing yet\n"


def test_json_is_the_list_of_lines(firectl, job):
    job.on("GET", f"{JOB}:logs", page("one\ntwo\n", 8, complete=True))
    assert firectl("logs", "j", "-o", "json").json == ["one", "two"]


def test_control_characters_of_a_log_are_spelled_out(firectl, job):
    job.on("GET", f"{JOB}:logs", page("evil\x1b[2J\n", 9, complete=True))
    assert firectl("logs", "j").out == "evil\\x1b[2J\n"


def test_tabs_of_a_log_keep_their_columns(firectl, job):
    job.on("GET", f"{JOB}:logs", page("a\tb\n", 4, complete=True))
    assert firectl("logs", "j").out == "a       b\n"


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["logs", "deployment", "d"], 1, "logs of a deployment are not kept"),
        (["deployment", "logs", "d"], 1, "logs of a deployment are not kept"),
        (["logs", "accounts/acme/deployments/d"], 1, "logs of a deployment are not kept"),
        (["logs", "model", "m"], 2, '"model" keeps no log'),
        (["logs", "a", "b", "c"], 2, "one job at a time"),
        (["logs", "nobody"], 1, 'there is no fine-tuning job "nobody"'),
        (["logs", "j", "--follow", "-o", "json"], 2, "--follow"),
        (["logs", "j", "--tail", "-1"], 2, "--tail"),
    ],
)
def test_what_cannot_be_had_is_told(firectl, job, argv, code, said):
    ran = firectl(*argv)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
