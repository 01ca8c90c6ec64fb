"""Deployments made true, round by round, with stand-ins for engines."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from controlplane.db import now
from controlplane.resources.tables import DeploymentRow, ModelRow, ReplicaRow
from workers.reconcile import deployments
from workers.reconcile.deployments import reconcile_deployment, stop_strays


def test_a_deployment_comes_up_in_steps_that_say_what_is_going_on(deploy, engines):
    story = deploy()
    row = story.round()
    assert (row.state, story.states()) == ("CREATING", ["STARTING"])
    assert row.status_message == "the engine is starting: staging the weights"
    engines.only().fall_silent()
    row = story.round()
    assert (row.state, story.states()) == ("CREATING", ["LOADING"])
    assert row.status_message == "the engine is starting: loading the weights"
    engines.only().come_up()
    row = story.round()
    assert (row.state, row.status_message, story.states()) == ("READY", "", ["READY"])
    assert row.next_reconcile_at is not None


def test_an_engine_that_is_healthy_and_answers_nothing_is_not_ready(deploy, engines):
    story = deploy()
    story.round()
    engines.only().mute = True
    engines.only().come_up()
    assert story.round().state == "CREATING"
    assert story.states() == ["LOADING"]
    engines.only().mute = False
    assert story.round().state == "READY"


def test_an_engine_gets_what_its_row_and_its_deployment_say(deploy, engines):
    guessing = {"ngram_speculation_length": 3, "draft_token_count": 5}
    story = deploy(max_context_length=512, enable_addons=True, precision="BF16", **guessing)
    story.round()
    spec, replica = engines.only().spec, story.replicas()[0]
    assert (spec.host, spec.port) == (replica.host, replica.port) == ("127.0.0.1", 20000)
    assert spec.served_name == replica.served_name == story.uid.hex
    assert (spec.max_model_len, spec.enable_adapters, spec.precision) == (512, True, "BF16")
    assert (spec.ngram_length, spec.draft_tokens) == (3, 5)
    assert (spec.max_loras, spec.long_prompt, spec.accelerator_count) == (4, False, 1)
    assert spec.model.prefix == story.base.prefix


def test_an_engine_guesses_four_tokens_at_a_time_where_nobody_says_how_many(deploy, engines):
    deploy(ngram_speculation_length=2).round()
    assert (engines.only().spec.ngram_length, engines.only().spec.draft_tokens) == (2, 4)


def test_an_engine_keeps_as_many_addons_on_the_device_as_its_deployment_says(deploy, engines):
    deploy(enable_addons=True, num_lora_device_cached=8).round()
    assert engines.only().spec.max_loras == 8


@pytest.mark.parametrize(("asked", "given"), [(0, 2), (4, 4)])
def test_an_engine_gets_two_gpus_for_long_prompts_where_nobody_says_how_many(deploy, engines, asked, given):
    story = deploy(long_prompt=True, accelerator_type="NVIDIA_H100_80GB", accelerator_count=asked)
    story.round()
    spec = engines.only().spec
    assert (spec.long_prompt, spec.accelerator_count) == (True, given)
    assert story.replicas()[0].accelerator_count == given


def test_an_engine_gets_the_model_that_guesses_ahead_for_its_own(deploy, engines, db):
    with db.session() as session:
        draft = ModelRow(account_id="hearth", id="small", kind="HF_BASE_MODEL", state="READY")
        session.add(draft)
    deploy(draft_model=draft.name, draft_model_uid=draft.uid).round()
    spec = engines.only().spec
    assert [source.prefix for source in spec.sources] == [spec.model.prefix, draft.prefix]
    assert (spec.ngram_length, spec.draft_tokens) == (0, 4)


def test_an_engine_gets_the_tool_parser_that_reads_its_models_calls(deploy, engines):
    story = deploy()
    with story.db.session() as session:
        base = session.get_one(ModelRow, story.base.uid)
        base.conversation_config = {"style": "jinja", "template": "{{ tools }} <tool_call>"}
        base.supports_tools = True
    story.round()
    assert engines.only().spec.tool_parser == "hermes"


@pytest.mark.parametrize("template", ["{{ messages }}", None])
def test_an_engine_has_its_base_models_chat_template_and_addons_bring_theirs(deploy, engines, template):
    story = deploy(enable_addons=True)
    with story.db.session() as session:
        base = session.get_one(ModelRow, story.base.uid)
        base.conversation_config = {"style": "jinja", "template": template} if template else None
    story.round()
    assert engines.only().spec.chat_template == template


def test_a_steady_deployment_is_looked_at_without_being_written_to(deploy):
    story = deploy()
    story.come_up()
    before = story.replicas()[0]
    story.round(3)
    assert story.replicas()[0].state_time == before.state_time
    assert story.states() == ["READY"]


def test_a_crash_is_told_counted_and_made_good(deploy, engines):
    story = deploy()
    story.come_up()
    engines.only().crash("out of memory: 3 GiB wanted")
    row = story.round()
    assert (row.state, row.consecutive_failures) == ("UPDATING", 1)
    assert "out of memory: 3 GiB wanted (failure 1 of 5)" in row.status_message
    assert story.states() == ["FAILED"]
    assert engines.engines == {}
    story.after_backoff()
    assert story.states() == ["FAILED", "STARTING"]
    row = story.come_up()
    assert (row.state, row.consecutive_failures, row.status_message) == ("READY", 0, "")


def test_five_crashes_in_a_row_are_the_end_until_the_user_changes_something(deploy, engines):
    story = deploy()
    story.round()
    for _ in range(5):
        engines.only().crash("no such tokenizer")
        story.round()
        story.after_backoff()
    row = story.row()
    assert (row.state, row.status_code, row.reason) == ("FAILED", "RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    assert row.status_message == "no such tokenizer"
    assert (row.next_reconcile_at, len(engines.starts)) == (None, 5)
    story.change(state="UPDATING", consecutive_failures=0, retry_at=None)  # what PATCH and :scale do
    story.round()
    assert len(engines.starts) == 6
    assert story.come_up().state == "READY"


def test_two_failures_that_nothing_would_cure_are_enough(deploy, engines):
    story = deploy()
    story.round()
    for _ in range(2):
        engines.only().crash("the architecture Foo is not supported", retryable=False)
        story.round()
        story.after_backoff()
    assert story.row().state == "FAILED"
    assert len(engines.starts) == 2


def test_only_the_last_failures_are_kept(deploy, engines):
    story = deploy(desired_replica_count=1)
    story.round()
    for _ in range(8):
        engines.only().crash()
        story.round()
        story.change(state="UPDATING", consecutive_failures=0)
        story.after_backoff()
    assert story.states().count("FAILED") == 5


def test_what_went_down_with_its_machine_is_started_again_at_once(deploy, engines):
    story = deploy(desired_replica_count=2)
    story.come_up()
    for engine in engines.engines.values():
        engine.vanish()
    row = story.round()
    assert (row.consecutive_failures, row.retry_at) == (0, None)
    assert story.states() == ["STARTING", "STARTING"]
    assert len(engines.engines) == 2


def test_what_was_stopped_with_its_supervisor_is_started_again_at_once(deploy, engines):
    story = deploy()
    story.come_up()
    engines.only().end()
    assert (story.round().consecutive_failures, story.states()) == (0, ["STARTING"])


def test_no_room_is_said_and_tried_again(deploy, engines):
    engines.full = "no capacity: 1 of the node's 2 GPUs are needed and 0 are free"
    story = deploy()
    row = story.round()
    assert (row.state, row.reason) == ("CREATING", "NO_CAPACITY")
    assert row.status_message == engines.full
    engines.full = ""
    story.round()
    assert story.states() == ["STARTING"]


def test_scaling_up_and_down_and_to_zero(deploy, engines):
    story = deploy()
    story.come_up()
    story.change(desired_replica_count=3)
    row = story.round()
    assert (row.state, story.states()) == ("UPDATING", ["READY", "STARTING", "STARTING"])
    assert story.come_up().state == "READY"
    story.change(desired_replica_count=1)
    story.round()
    assert sorted(story.states()) == ["READY", "STOPPING", "STOPPING"]
    assert not any(engine.told_to_stop for engine in engines.engines.values())
    story.round()
    assert sum(engine.told_to_stop for engine in engines.engines.values()) == 2
    engines.finish_stopping()
    row = story.round()
    assert (row.state, story.states(), len(engines.engines)) == ("READY", ["READY"], 1)
    story.change(desired_replica_count=0)
    story.round(2)
    engines.finish_stopping()
    row = story.round()
    assert (row.state, story.states(), row.next_reconcile_at) == ("READY", [], None)


def test_changed_settings_replace_the_engines(deploy, engines):
    story = deploy()
    story.come_up()
    story.change(max_context_length=128, generation=2)
    row = story.round(2)
    assert row.state == "UPDATING"
    engines.finish_stopping()
    story.round()
    assert engines.only().spec.max_model_len == 128
    assert story.come_up().state == "READY"


def test_deleting_stops_the_engines_and_frees_everything(deploy, engines):
    story = deploy(desired_replica_count=2)
    story.come_up()
    story.change(state="DELETING")
    row = story.round(2)
    assert (row.state, row.status_message) == ("DELETING", "2 replicas are being stopped")
    engines.finish_stopping()
    row = story.round()
    assert (row.state, story.states(), engines.engines) == ("DELETED", [], {})
    assert row.purge_time - row.delete_time == timedelta(days=7)
    assert row.next_reconcile_at > row.delete_time + timedelta(days=6)


def test_a_deleted_deployment_is_forgotten_when_its_time_has_come(deploy):
    story = deploy(desired_replica_count=0)
    story.change(state="DELETING")
    story.round()
    assert story.round().state == "DELETED"
    story.change(purge_time=now())
    reconcile_deployment(story.context, story.uid)  # not due before its purge time
    assert story.row().state == "DELETED"
    with pytest.raises(Exception, match="No row"):
        story.round()


def test_an_undeleted_deployment_starts_as_many_engines_as_it_wanted(deploy, engines):
    story = deploy(desired_replica_count=2)
    story.come_up()
    story.change(state="DELETING")
    story.round(2)
    engines.finish_stopping()
    row = story.round()
    assert (row.state, row.desired_replica_count) == ("DELETED", 2)
    story.change(state="CREATING", delete_time=None, purge_time=None)  # what :undelete does
    assert story.round().state == "CREATING"
    assert story.states() == ["STARTING", "STARTING"]
    assert story.come_up().state == "READY"


def test_an_undelete_during_the_purge_keeps_the_deployment(deploy, monkeypatch):
    story = deploy(desired_replica_count=0)
    story.change(state="DELETING")
    story.round()
    assert story.row().state == "DELETED"
    story.change(purge_time=now())
    real = deployments.purge

    def while_the_user_undeletes(*arguments):
        story.change(state="CREATING", delete_time=None, purge_time=None, next_reconcile_at=func.now())
        return real(*arguments)

    monkeypatch.setattr(deployments, "purge", while_the_user_undeletes)
    row = story.round()
    assert row.state == "CREATING"
    assert row.next_reconcile_at is not None
    assert story.round().state == "READY"


def test_a_silent_engine_is_replaced(deploy, engines):
    story = deploy()
    story.come_up()
    engines.only().fall_silent()
    assert (story.round(2).state, story.states()) == ("READY", ["READY"])
    row = story.round()
    assert (row.state, story.states()) == ("UPDATING", ["LOADING"])
    with story.db.session() as session:
        session.scalars(select(ReplicaRow)).one().unhealthy_since = now() - timedelta(seconds=31)
    row = story.round()
    assert (story.states(), row.consecutive_failures) == (["STOPPING"], 1)
    assert "has not answered its health check" in row.status_message
    story.round()
    engines.finish_stopping()
    story.round()
    story.after_backoff()
    assert story.states() == ["FAILED", "STARTING"]


class Died(BaseException):
    """The worker is gone: nothing of it runs any more, not even what catches errors."""


def die(*_):
    raise Died


def test_a_worker_that_dies_between_rows_and_engines_leaves_no_gap(deploy, engines, monkeypatch):
    story = deploy(desired_replica_count=2)
    monkeypatch.setattr(deployments, "execute", die)
    with pytest.raises(Died):
        story.round()
    assert (story.states(), engines.starts) == (["PENDING", "PENDING"], [])
    monkeypatch.undo()
    story.change(lease_token=None)  # its lease has run out
    story.round()
    assert (story.states(), len(engines.starts)) == (["STARTING", "STARTING"], 2)


def test_a_worker_that_dies_before_it_writes_down_a_start_starts_nothing_twice(deploy, engines, monkeypatch):
    story = deploy()
    monkeypatch.setattr(deployments, "conclude", die)
    with pytest.raises(Died):
        story.round()
    assert len(engines.starts) == 1
    monkeypatch.undo()
    story.change(lease_token=None)
    story.round()
    assert (story.states(), len(engines.starts)) == (["STARTING"], 1)
    assert engines.only().spec.port == story.replicas()[0].port


def test_a_round_that_lost_its_lease_writes_nothing(deploy, engines, monkeypatch):
    story = deploy()
    story.come_up()
    real = engines.observe_replica

    def while_another_takes_over(uid):
        story.change(lease_token=story.base.uid)
        engines.only().crash()
        return real(uid)

    monkeypatch.setattr(engines, "observe_replica", while_another_takes_over)
    row = story.round()
    assert (row.state, row.consecutive_failures, story.states()) == ("READY", 0, ["READY"])
    assert row.lease_token == story.base.uid


def test_a_change_that_arrives_during_a_round_is_not_overwritten(deploy, engines, monkeypatch):
    story = deploy(consecutive_failures=4)
    story.round()
    real = engines.observe_replica

    def while_the_user_asks_for_another_try(uid):
        story.change(state="CREATING", consecutive_failures=0, desired_replica_count=0)
        return real(uid)

    engines.only().crash()
    monkeypatch.setattr(engines, "observe_replica", while_the_user_asks_for_another_try)
    row = story.round()
    assert (row.state, row.consecutive_failures, row.lease_token) == ("CREATING", 0, None)
    monkeypatch.undo()
    assert story.round().state != "FAILED"


def test_nobody_works_on_a_deployment_that_another_holds(deploy, engines):
    story = deploy()
    held = {"lease_token": story.base.uid, "lease_expires_at": now() + timedelta(minutes=1)}
    story.change(**held)
    story.round()
    assert engines.starts == []


def test_workers_that_arrive_together_start_each_engine_once(deploy, engines):
    story = deploy(desired_replica_count=3)
    with ThreadPoolExecutor(4) as workers:
        for _ in range(4):
            story.change(next_reconcile_at=func.now())
            list(workers.map(lambda _: reconcile_deployment(story.context, story.uid), range(4)))
    assert (len(engines.starts), story.states()) == (3, ["STARTING"] * 3)
    assert story.row().lease_token is None


def test_an_engine_that_no_row_speaks_of_is_stopped(deploy, engines):
    story = deploy()
    story.come_up()
    stray = engines.only().spec
    engines.start_replica(
        type(stray)(**{**vars(stray), "replica_uid": "00000000-0000-4000-8000-000000000000"})
    )
    stop_strays(story.context)
    assert [engine.told_to_stop for engine in engines.engines.values()] == [False, True]
    engines.finish_stopping()
    stop_strays(story.context)
    assert list(engines.engines) == [str(story.replicas()[0].uid)]


def test_deployments_do_not_disturb_each_other(deploy, engines):
    one, two = deploy("one"), deploy("two")
    one.round()
    two.round()
    engines.engines[str(one.replicas()[0].uid)].crash()
    one.round()
    two.round()
    assert (one.states(), two.states()) == (["FAILED"], ["STARTING"])
    with one.db.session() as session:
        assert len(session.scalars(select(DeploymentRow)).all()) == 2
