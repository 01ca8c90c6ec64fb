"""What a trainer prints is kept: in order, in whole lines, bounded, and without the platform's own."""

from __future__ import annotations

import pytest

from controlplane.resources.fine_tuning_jobs import logs
from controlplane.resources.fine_tuning_jobs.logs import list_chunks, read_last_lines, read_log
from tests.reconcile.trainers import end_well
from workers.reconcile import job_log
from workers.reconcile.job_log import cleaned
from workers.runtimes.base import ProcessState, TrainerObservation

SMALL = 64
"""Bytes of a chunk in tests that fill many of them."""


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(job_log, "CHUNK_BYTES", SMALL)


@pytest.fixture
def text(step, object_store):
    """All that is kept of a job's log after another look at it."""

    def after_a_look(uid):
        return read_log(object_store, step(uid).prefix, 0).text

    return after_a_look


def test_what_the_trainer_prints_is_there_while_it_runs(running, trainer, text):
    trainer.said[1] = b"loading\nstep 1: loss 2.5\n"
    assert text(running) == "loading\nstep 1: loss 2.5\n"
    trainer.said[1] += b"step 2: loss 2.1\n"
    assert text(running) == "loading\nstep 1: loss 2.5\nstep 2: loss 2.1\n"


def test_half_a_line_waits_for_its_other_half_but_not_beyond_the_trainers_end(running, trainer, text):
    trainer.said[1] = b"whole\nha"
    assert text(running) == "whole\n"
    trainer.said[1] += b"lf\nKilled"
    trainer.seen[1] = TrainerObservation(ProcessState.EXITED, signal=9)
    assert text(running) == "whole\nhalf\nKilled"


def test_a_new_attempt_goes_on_behind_the_one_before(running, step, trainer, text):
    trainer.said[1] = b"first\n"
    trainer.seen[1] = TrainerObservation(ProcessState.LOST)
    step(running)
    step(running)
    trainer.said[2] = b"second\n"
    assert text(running) == "first\nsecond\n"


def test_the_last_words_are_kept_before_the_trainers_folder_goes(
    running, step, trainer, text, object_store, db
):
    end_well(object_store, db, running)
    trainer.said[1] = b"done\n"
    trainer.seen[1] = TrainerObservation(ProcessState.EXITED, exit_code=0)
    assert text(running) == "done\n"


def test_a_long_log_becomes_chunks_that_are_written_once(small_chunks, running, step, trainer, object_store):
    trainer.said[1] = b"".join(b"line %03d\n" % number for number in range(40))
    row = step(running)
    chunks = list_chunks(object_store, row.prefix)
    assert all(chunk.size <= SMALL for chunk in chunks)
    assert read_log(object_store, row.prefix, 0).text == trainer.said[1].decode()
    before = {found.key: found.etag for found in object_store.list(row.prefix)}
    trainer.said[1] += b"line 040\n"
    step(running)
    after = {found.key: found.etag for found in object_store.list(row.prefix)}
    changed = [key for key in before if before[key] != after[key] and "/log/" in key]
    assert changed in ([], [chunks[-1].key])
    assert read_log(object_store, row.prefix, 0).text == trainer.said[1].decode()


def test_a_line_longer_than_a_chunk_is_kept_too(small_chunks, running, trainer, text):
    trainer.said[1] = b"x" * (3 * SMALL) + b"\nend\n"
    assert text(running) == trainer.said[1].decode()


def test_the_oldest_chunks_make_room(small_chunks, running, step, trainer, object_store, monkeypatch):
    monkeypatch.setattr(job_log, "MOST_CHUNKS", 3)
    trainer.said[1] = b"".join(b"line %03d\n" % number for number in range(60))
    row = step(running)
    page = read_log(object_store, row.prefix, 0)
    assert len(list_chunks(object_store, row.prefix)) == 3
    assert page.offset > 0
    assert page.text.endswith("line 059\n")
    assert page.next_offset == len(trainer.said[1])


def test_what_the_node_no_longer_has_is_left_out(running, step, trainer, text):
    trainer.said[1] = b"early\nlost\nlate\n"
    trainer.kept_from[1] = 11
    assert text(running) == "late\n"
    trainer.said[1] = b"early\nlost\nlate\n" + b"x" * 20 + b"\nlatest\n"
    trainer.kept_from[1] = 37
    assert text(running) == "late\nlatest\n"


def test_a_deleted_jobs_log_goes_with_it(running, step, trainer, object_store, db):
    from sqlalchemy import select, update

    from controlplane.resources.tables import FineTuningJobRow, GarbageRow

    trainer.said[1] = b"hello\n"
    prefix = step(running).prefix
    with db.session() as session:
        session.execute(update(FineTuningJobRow).values(state="DELETING"))
    step(running)
    step(running)
    with db.session() as session:
        assert list(session.scalars(select(GarbageRow.prefix))) == [prefix]
    assert list_chunks(object_store, prefix)[0].key.startswith(prefix)


def test_pages_follow_each_other(small_chunks, running, step, trainer, object_store, monkeypatch):
    monkeypatch.setattr(logs, "PAGE_BYTES", 2 * SMALL)
    trainer.said[1] = b"".join(b"line %03d \xc3\xa4\n" % number for number in range(40))
    row = step(running)
    pages, offset = [], 0
    while not pages or not pages[-1].at_end:
        pages.append(read_log(object_store, row.prefix, offset))
        offset = pages[-1].next_offset
    assert len(pages) > 3
    assert all(len(page.text.encode()) <= 2 * SMALL for page in pages)
    assert "".join(page.text for page in pages) == trainer.said[1].decode()
    assert read_log(object_store, row.prefix, offset).text == ""


def test_the_last_lines_can_be_had_alone(small_chunks, running, step, trainer, object_store):
    trainer.said[1] = b"".join(b"line %03d\n" % number for number in range(40))
    prefix = step(running).prefix
    last = read_last_lines(object_store, prefix, 2)
    assert (last.text, last.next_offset) == ("line 038\nline 039\n", len(trainer.said[1]))
    assert read_last_lines(object_store, prefix, 0).text == ""
    assert read_last_lines(object_store, prefix, 1000).text == trainer.said[1].decode()


def test_the_last_words_of_a_failed_job_hold_no_folders_of_the_machine_either(running, step, trainer):
    said = 'File "/opt/hearth/trainer.py", line 7'
    for attempt in (1, 2, 3):
        trainer.seen[attempt] = TrainerObservation(ProcessState.EXITED, exit_code=1, log_tail=said)
        row = step(running)
        if row.state == "RE_QUEUEING":
            step(running)
    assert row.state == "FAILED"
    assert row.status_message.endswith('File "…/trainer.py", line 7')


def test_a_traceback_reads_on_without_the_machines_folders(settings):
    said = '  File "/opt/hearth/lib/python3.12/site-packages/trl/trainer.py", line 7, in train'
    assert cleaned(said, settings, "hearth") == '  File "…/trainer.py", line 7, in train'


@pytest.mark.parametrize(
    "said",
    [
        "loss 0.5 and/or 3/4",
        "see https://example.com/a/b",
        "2026/11/21 10:00",
        "a / b",
        "accounts/hearth/models/base",
    ],
)
def test_other_slashes_stay(settings, said):
    assert cleaned(said, settings, "hearth") == said


def test_secrets_addresses_and_other_accounts_objects_are_not_kept(settings):
    uid = "0b8f3c1e-0000-4000-8000-000000000000"
    said = f"{settings.s3_secret_key.get_secret_value()} {settings.s3_endpoint} accounts/rival/models/{uid}/w"
    assert cleaned(said, settings, "hearth") == "*** the object store accounts/rival/models/…/w"
    own = f"accounts/hearth/fine-tuning-jobs/{uid}/adapter"
    assert cleaned(own, settings, "hearth") == own
