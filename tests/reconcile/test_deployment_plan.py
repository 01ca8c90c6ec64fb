"""The plan of a deployment, as a truth table: what was seen of its replicas → what is to be done."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.resources.deployments.states import TRANSITIONS, mark
from workers.reconcile.deployment_plan import backoff, plan_deployment
from workers.reconcile.deployment_status import describe_deployment, describe_model, next_look
from workers.reconcile.deployment_view import (
    AdapterView,
    DeployedModelView,
    DeploymentView,
    ReplicaView,
    Status,
)
from workers.runtimes.base import EngineFailure, EnginePhase, ProcessState, ReplicaObservation

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADDON = uuid.UUID(int=0xADD)

ABSENT = ReplicaObservation(ProcessState.ABSENT)
LOST = ReplicaObservation(ProcessState.LOST)
STAGING = ReplicaObservation(ProcessState.RUNNING, EnginePhase.STAGING)
LOADING = ReplicaObservation(ProcessState.RUNNING, EnginePhase.LOADING)
HEALTHY = ReplicaObservation(ProcessState.RUNNING, EnginePhase.SERVING, healthy=True)
TAKEN_ALONG = ReplicaObservation(ProcessState.EXITED, stopped=True)
CRASH = EngineFailure("INTERNAL", "CRASHED", "the engine crashed with signal 11", retryable=True)
CRASHED = ReplicaObservation(ProcessState.EXITED, failure=CRASH)
HOPELESS = EngineFailure("INVALID_ARGUMENT", "UNSUPPORTED", "the architecture Foo is not supported")
REFUSED = ReplicaObservation(ProcessState.EXITED, failure=HOPELESS)


def seconds(count):
    return timedelta(seconds=count)


def replica(state, seen=None, *, number=1, age=60, **more):
    """A replica `number` seconds younger than the first one."""
    born = NOW - seconds(age) + seconds(number)
    fields = {"create_time": born, "state_time": born, "was_ready": state == "READY"} | more
    return ReplicaView(uuid.UUID(int=number), state, seen=seen, **fields)


def deployment(*replicas, desired=1, state="READY", models=(), **more):
    return DeploymentView(Status(state), desired, replicas=replicas, models=models, **more)


def addon(state="DEPLOYING"):
    return DeployedModelView(ADDON, state, is_addon=True)


def number(uid):
    return uid.int


def outcome(plan):
    """A plan as plain words: (each replica's fate, how many are added)."""
    fates = {}
    for step in plan.steps:
        words = [step.state] + [word for word in ("launch", "stop", "remove") if getattr(step, word)]
        fates[number(step.replica.uid)] = " ".join(words)
    return fates, plan.add


@pytest.mark.parametrize(
    ("state", "seen", "fate", "added"),
    [
        ("PENDING", ABSENT, "PENDING launch", 0),
        ("PENDING", STAGING, "STARTING", 0),  # its worker died between the start and writing it down
        ("PENDING", HEALTHY, "STARTING", 0),
        ("PENDING", CRASHED, "STOPPING remove", 0),
        ("PENDING", LOST, "PENDING remove", 1),
        ("STARTING", STAGING, "STARTING", 0),
        ("STARTING", LOADING, "LOADING", 0),
        ("STARTING", HEALTHY, "READY", 0),
        ("LOADING", LOADING, "LOADING", 0),
        ("LOADING", HEALTHY, "READY", 0),
        ("READY", HEALTHY, "READY", 0),
        ("READY", CRASHED, "STOPPING remove", 0),
        # Gone without its own doing: another one takes its place at once.
        ("STARTING", ABSENT, "STARTING remove", 1),
        ("READY", LOST, "READY remove", 1),
        ("READY", TAKEN_ALONG, "READY remove", 1),
        # While an engine stops, its memory is taken.
        ("STOPPING", HEALTHY, "STOPPING stop", 0),
        ("STOPPING", TAKEN_ALONG, "STOPPING remove", 1),
        ("STOPPING", CRASHED, "STOPPING remove", 1),
        ("STOPPING", LOST, "STOPPING remove", 1),
        ("STOPPING", ABSENT, "STOPPING remove", 1),
    ],
)
def test_what_is_seen_of_an_engine_decides_its_fate(state, seen, fate, added):
    plan = plan_deployment(deployment(replica(state, seen)), NOW)
    assert outcome(plan) == ({1: fate}, added)


def test_engines_are_started_up_to_the_number_wanted_and_not_all_at_once():
    assert plan_deployment(deployment(desired=0), NOW).add == 0
    assert plan_deployment(deployment(desired=2), NOW).add == 2
    assert plan_deployment(deployment(desired=100), NOW).add == 4


def test_a_crash_counts_and_delays_the_next_start():
    plan = plan_deployment(deployment(replica("LOADING", CRASHED), failures=1), NOW)
    assert (plan.failures, plan.retry_at, plan.add, plan.give_up) == (2, NOW + seconds(2), 0, None)
    assert (plan.steps[0].reason, plan.steps[0].message) == ("CRASHED", "the engine crashed with signal 11")


def test_several_engines_that_fail_together_count_once():
    failing = [replica("LOADING", CRASHED, number=n) for n in (1, 2, 3)]
    assert plan_deployment(deployment(*failing, desired=3), NOW).failures == 1


def test_a_lost_engine_does_not_count():
    plan = plan_deployment(deployment(replica("READY", LOST), failures=2), NOW)
    assert (plan.failures, plan.add) == (2, 1)


def test_no_engine_is_started_before_its_time():
    early = deployment(failures=1, retry_at=NOW + seconds(1))
    assert plan_deployment(early, NOW).add == 0
    assert plan_deployment(early, NOW + seconds(1)).add == 1


def test_the_delay_doubles_up_to_a_minute():
    assert [backoff(n).total_seconds() for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_an_engine_that_becomes_ready_ends_the_count():
    plan = plan_deployment(deployment(replica("LOADING", HEALTHY), failures=4, retry_at=NOW), NOW)
    assert (plan.failures, plan.retry_at) == (0, None)


@pytest.mark.parametrize(
    ("earlier", "seen", "given_up"),
    [(3, CRASHED, False), (4, CRASHED, True), (0, REFUSED, False), (1, REFUSED, True)],
)
def test_a_deployment_is_given_up_after_five_failures_or_two_that_nothing_would_cure(earlier, seen, given_up):
    plan = plan_deployment(deployment(replica("LOADING", seen), failures=earlier, desired=1), NOW)
    assert (plan.give_up is not None) is given_up


def test_a_deployment_that_serves_is_never_given_up():
    view = deployment(replica("READY", HEALTHY), replica("LOADING", CRASHED, number=2), desired=2, failures=9)
    plan = plan_deployment(view, NOW)
    assert plan.give_up is None
    assert plan.retry_at == NOW + seconds(60)


def test_giving_up_stops_what_is_still_starting():
    view = deployment(
        replica("LOADING", CRASHED), replica("LOADING", LOADING, number=2), desired=2, failures=4
    )
    assert outcome(plan_deployment(view, NOW)) == ({1: "STOPPING remove", 2: "STOPPING"}, 0)


def test_a_failed_deployment_starts_nothing():
    assert plan_deployment(deployment(state="FAILED"), NOW).add == 0


@pytest.mark.parametrize(
    ("state", "seen", "age", "reason"),
    [
        ("LOADING", LOADING, 14 * 60, ""),
        ("LOADING", LOADING, 16 * 60, "START_TIMEOUT"),
        ("STARTING", STAGING, 16 * 60, ""),  # large weights take their time to arrive
        ("STARTING", STAGING, 3 * 3600, "START_TIMEOUT"),
    ],
)
def test_an_engine_that_never_comes_up_is_stopped_and_counts(state, seen, age, reason):
    plan = plan_deployment(deployment(replica(state, seen, age=age)), NOW)
    assert plan.steps[0].reason == reason
    assert plan.failures == (1 if reason else 0)


@pytest.mark.parametrize(
    ("misses", "since", "state", "reason"),
    [
        (0, None, "READY", ""),
        (1, 2, "READY", ""),
        (2, 4, "LOADING", ""),  # three looks in a row: requests go elsewhere
        (9, 29, "LOADING", ""),
        (1, 40, "READY", ""),  # long, but seen only twice
        (9, 30, "STOPPING", "UNHEALTHY"),
    ],
)
def test_a_silent_engine_leaves_service_and_is_replaced_after_half_a_minute(misses, since, state, reason):
    silent = replica(
        "READY",
        LOADING,
        health_misses=misses,
        unhealthy_since=None if since is None else NOW - seconds(since),
    )
    step = plan_deployment(deployment(silent), NOW).steps[0]
    assert (step.state, step.reason) == (state, reason)


def test_an_engine_that_answers_again_is_ready_again():
    silent = replica("LOADING", HEALTHY, was_ready=True, health_misses=5, unhealthy_since=NOW - seconds(9))
    step = plan_deployment(deployment(silent), NOW).steps[0]
    assert (step.state, step.health_misses, step.unhealthy_since) == ("READY", 0, None)


def test_scaling_down_stops_the_not_ready_and_then_the_newest():
    view = [
        replica("READY", HEALTHY, number=1),
        replica("READY", HEALTHY, number=2),
        replica("LOADING", LOADING, number=3),
        replica("PENDING", ABSENT, number=4),
    ]
    fates, _ = outcome(plan_deployment(deployment(*view, desired=1), NOW))
    assert fates == {1: "READY", 2: "STOPPING", 3: "STOPPING", 4: "STOPPING remove"}
    fates, _ = outcome(plan_deployment(deployment(*view, desired=3), NOW))
    assert fates == {1: "READY", 2: "READY", 3: "LOADING", 4: "STOPPING remove"}


def test_deleting_stops_everything_and_starts_nothing():
    view = deployment(replica("READY", HEALTHY), replica("STARTING", LOST, number=2), state="DELETING")
    assert outcome(plan_deployment(view, NOW)) == ({1: "STOPPING", 2: "STARTING remove"}, 0)


def test_replicas_of_earlier_settings_are_replaced_one_at_a_time():
    old = [replica("READY", HEALTHY, number=n) for n in (1, 2)]
    fates, added = outcome(plan_deployment(deployment(*old, desired=2, generation=2), NOW))
    assert (sorted(fates.values()), added) == (["READY", "STOPPING"], 0)
    coming = replica("LOADING", LOADING, number=3, generation=2)
    fates, _ = outcome(plan_deployment(deployment(old[0], coming, desired=2, generation=2), NOW))
    assert fates == {1: "READY", 3: "LOADING"}
    there = replica("READY", HEALTHY, number=3, generation=2)
    fates, _ = outcome(plan_deployment(deployment(old[0], there, desired=2, generation=2), NOW))
    assert fates == {1: "STOPPING", 3: "READY"}


def test_replicas_of_earlier_settings_that_do_not_serve_go_at_once():
    view = deployment(
        replica("LOADING", LOADING),
        replica("STARTING", STAGING, number=2),
        desired=2,
        generation=2,
    )
    assert outcome(plan_deployment(view, NOW))[0] == {1: "STOPPING", 2: "STOPPING"}


def test_a_replica_waits_for_its_addons_and_loads_them():
    plan = plan_deployment(deployment(replica("LOADING", HEALTHY), models=(addon(),)), NOW)
    assert plan.steps[0].state == "LOADING"
    assert [(number(move.replica), move.deployed_model) for move in plan.load] == [(1, ADDON)]


def test_hundreds_of_addons_are_loaded_some_at_a_time():
    models = tuple(DeployedModelView(uuid.UUID(int=n), "DEPLOYING", is_addon=True) for n in range(200))
    loaded, rounds = {}, []
    while len(loaded) < len(models):
        here = replica("READY", HEALTHY, adapters=dict(loaded))
        moves = plan_deployment(deployment(here, models=models), NOW).load
        loaded |= {move.deployed_model: AdapterView(proven=True) for move in moves}
        rounds.append(len(moves))
    assert rounds == [16] * 12 + [8]


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (AdapterView(), "LOADING"),  # begun, and its worker died
        (AdapterView(proven=True), "READY"),
        (AdapterView(code="FAILED_PRECONDITION", retry_at=NOW + seconds(60)), "READY"),
    ],
)
def test_a_replica_serves_once_each_addon_is_proven_or_known_to_be_broken(found, state):
    view = deployment(replica("LOADING", HEALTHY, adapters={ADDON: found}), models=(addon(),))
    assert plan_deployment(view, NOW).steps[0].state == state


def test_a_new_addon_does_not_take_a_ready_replica_out_of_service():
    plan = plan_deployment(deployment(replica("READY", HEALTHY), models=(addon(),)), NOW)
    assert plan.steps[0].state == "READY"
    assert len(plan.load) == 1


def test_a_broken_addon_is_tried_again_only_when_its_time_has_come():
    broken = AdapterView(code="FAILED_PRECONDITION", message="bad", retry_at=NOW + seconds(60))
    view = deployment(replica("READY", HEALTHY, adapters={ADDON: broken}), models=(addon(),))
    assert plan_deployment(view, NOW + seconds(59)).load == ()
    assert len(plan_deployment(view, NOW + seconds(60)).load) == 1


def test_an_addon_that_leaves_is_unloaded_where_it_was_loaded():
    here = replica("READY", HEALTHY, adapters={ADDON: AdapterView(proven=True)})
    view = deployment(here, replica("READY", HEALTHY, number=2), desired=2, models=(addon("UNDEPLOYING"),))
    assert [number(move.replica) for move in plan_deployment(view, NOW).unload] == [1]


@pytest.mark.parametrize(
    ("adapters", "state", "code"),
    [
        ([], "DEPLOYING", "OK"),  # no replica at all
        ([None], "DEPLOYING", "OK"),
        ([AdapterView(proven=True)], "DEPLOYED", "OK"),
        ([AdapterView(proven=True), None], "DEPLOYING", "OK"),
        ([AdapterView(proven=True), AdapterView(proven=True)], "DEPLOYED", "OK"),
        ([AdapterView(code="FAILED_PRECONDITION", message="bad")], "DEPLOYING", "FAILED_PRECONDITION"),
    ],
)
def test_an_addon_is_deployed_when_every_ready_replica_has_proven_it(adapters, state, code):
    replicas = [
        replica("READY", number=n, adapters={ADDON: found} if found else {})
        for n, found in enumerate(adapters, 1)
    ]
    view = deployment(*replicas, desired=len(replicas))
    status = describe_model(addon(), view, describe_deployment(view, NOW))
    assert (status.state, status.code) == (state, code)
    assert (status.message == "") is (state == "DEPLOYED")


def failed(message="out of memory", **more):
    return replica("FAILED", number=9, reason="OUT_OF_MEMORY", message=message, **more)


@pytest.mark.parametrize(
    ("view", "state", "words"),
    [
        (deployment(desired=0), "READY", ""),
        (deployment(replica("READY")), "READY", ""),
        (
            deployment(replica("STARTING", message="staging the weights"), state="CREATING"),
            "CREATING",
            "staging",
        ),
        (
            deployment(replica("PENDING", reason="NO_CAPACITY", message="no free GPU"), state="CREATING"),
            "CREATING",
            "no free GPU",
        ),
        (
            deployment(failed(), failures=2, retry_at=NOW + seconds(2)),
            "UPDATING",
            "out of memory (failure 2 of 5)",
        ),
        (deployment(failed(), failures=2, retry_at=NOW + seconds(2)), "UPDATING", "trying again in 2 s"),
        (
            deployment(failed(), replica("READY"), desired=2, failures=7),
            "UPDATING",
            "1 of 2 replicas are ready; out",
        ),
        (deployment(replica("READY"), generation=2), "UPDATING", "earlier settings"),
        (deployment(replica("STOPPING"), state="DELETING"), "DELETING", "1 replica is being stopped"),
        (deployment(failed(), state="DELETING"), "DELETED", ""),
    ],
)
def test_a_status_names_the_root_cause(view, state, words):
    status = describe_deployment(view, NOW)
    assert status.state == state
    assert words in status.message


def test_a_failed_deployment_keeps_its_reason():
    over = Status("FAILED", "out of memory", "OUT_OF_MEMORY", "RESOURCE_EXHAUSTED")
    assert describe_deployment(replace(deployment(), status=over), NOW) == over


@pytest.mark.parametrize(
    ("view", "after"),
    [
        (deployment(replica("READY")), 2),
        (deployment(replica("LOADING")), 1),
        (deployment(desired=0), None),
        (deployment(replica("STOPPING"), desired=0), 1),
        (deployment(failed(), failures=3, retry_at=NOW + seconds(4)), 4),
        (deployment(failed(), state="FAILED"), None),
        (deployment(replica("READY"), models=(addon(),)), 1),
    ],
)
def test_the_next_look_is_soon_while_anything_moves(view, after):
    found = next_look(view, describe_deployment(view, NOW), NOW)
    assert (found and found.total_seconds()) == after


def test_only_the_listed_transitions_are_possible():
    row = type("Row", (), {"state": "CREATING"})()
    with pytest.raises(ValueError, match="does not go from CREATING to DELETED"):
        mark(row, "DELETED")
    for state, followers in TRANSITIONS.items():
        assert followers <= TRANSITIONS.keys() - {state}
