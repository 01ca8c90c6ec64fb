"""Addons on a deployment's engines: loaded, proven, retried, unloaded; engines are stand-ins."""

from datetime import timedelta

from sqlalchemy import func, update

from controlplane.db import now
from controlplane.resources.tables import DeployedModelRow, ModelRow, ReplicaAdapterRow


def base_model(story, **values):
    """The base itself, deployed as the API does it."""
    with story.db.session() as session:
        row = DeployedModelRow(
            account_id="hearth",
            id=f"base-{story.uid.hex[:8]}",
            model_uid=story.base.uid,
            deployment_uid=story.uid,
            state="DEPLOYING",
            **values,
        )
        session.add(row)
        return row


def set_state(story, row, state):
    with story.db.session() as session:
        session.execute(update(DeployedModelRow).where(DeployedModelRow.uid == row.uid).values(state=state))


def due_again(story):
    with story.db.session() as session:
        session.execute(update(ReplicaAdapterRow).values(retry_at=now() - timedelta(seconds=1)))


def test_a_base_model_is_deployed_while_a_replica_is_ready(deploy, engines):
    story = deploy()
    base = base_model(story)
    story.round()
    assert story.model(base).state == "DEPLOYING"
    assert story.model(base).status_message.startswith("no replica is ready: the engine is starting")
    engines.only().come_up()
    story.round()
    assert (story.model(base).state, story.model(base).status_message) == ("DEPLOYED", "")
    engines.only().crash("out of memory")
    story.round()
    assert story.model(base).state == "UPDATING"
    assert "out of memory" in story.model(base).status_message


def test_an_addon_is_deployed_once_it_is_proven_on_every_replica(deploy, engines):
    story = deploy(desired_replica_count=2, enable_addons=True)
    addon = story.add_model("poet")
    story.round()
    one, two = engines.engines.values()
    one.come_up()
    story.round(2)
    assert sorted(story.states()) == ["READY", "STARTING"]
    assert story.model(addon).state == "DEPLOYED"
    two.come_up()
    story.round()
    assert sorted(story.states()) == ["LOADING", "READY"]
    story.round()
    assert story.states() == ["READY", "READY"]
    assert one.adapters == two.adapters == {addon.model_uid.hex}
    rows = story.adapters()
    assert {row.engine_name for row in rows} == {addon.model_uid.hex}
    assert all(row.proven_at for row in rows)


def test_an_addon_added_later_leaves_the_replica_in_service(deploy):
    story = deploy(enable_addons=True)
    story.come_up()
    addon = story.add_model("poet")
    row = story.round()
    assert (row.state, story.states()) == ("READY", ["READY"])
    assert story.model(addon).state == "DEPLOYED"


def test_a_refused_addon_says_why_and_keeps_nothing_from_serving(deploy, engines):
    story = deploy(enable_addons=True)
    good, bad = story.add_model("good"), story.add_model("bad")
    engines.refused[bad.model_uid.hex] = "target module fc9 is not in the base model"
    row = story.come_up()
    assert (row.state, story.states()) == ("READY", ["READY"])
    assert story.model(good).state == "DEPLOYED"
    broken = story.model(bad)
    assert (broken.state, broken.status_code) == ("DEPLOYING", "FAILED_PRECONDITION")
    assert broken.status_message == "the engine refused the addon: target module fc9 is not in the base model"
    tries = len(engines.loads)
    story.round(3)
    assert len(engines.loads) == tries


def test_an_addon_without_effect_is_not_deployed_and_not_left_on_the_engine(deploy, engines):
    story = deploy(enable_addons=True)
    addon = story.add_model("zero")
    engines.without_effect.add(addon.model_uid.hex)
    story.come_up()
    assert story.model(addon).status_code == "FAILED_PRECONDITION"
    assert "exactly as for the base model" in story.model(addon).status_message
    assert engines.only().adapters == set()
    assert [row.proven_at for row in story.adapters()] == [None]


def test_a_broken_addon_is_tried_again_after_a_while_and_may_then_serve(deploy, engines):
    story = deploy(enable_addons=True)
    addon = story.add_model("poet")
    engines.silent.add(addon.model_uid.hex)
    story.come_up()
    assert story.model(addon).status_code == "UNAVAILABLE"
    engines.silent.clear()
    story.round()
    assert story.model(addon).state == "DEPLOYING"
    due_again(story)
    story.round()
    assert (story.model(addon).state, story.model(addon).status_code) == ("DEPLOYED", "OK")


def test_an_engine_that_does_not_answer_is_asked_for_one_addon_a_round(deploy, engines):
    story = deploy(enable_addons=True)
    addons = [story.add_model(name) for name in ("poet", "scribe", "bard")]
    engines.silent |= {addon.model_uid.hex for addon in addons}
    story.round()
    engines.only().come_up()
    story.round()
    assert len(engines.loads) == 1
    engines.silent.clear()
    due_again(story)
    story.round(2)
    assert [story.model(addon).state for addon in addons] == ["DEPLOYED"] * 3


def test_a_new_engine_gets_the_addons_before_it_serves(deploy, engines):
    story = deploy(enable_addons=True)
    addon = story.add_model("poet")
    story.come_up()
    engines.only().vanish()
    story.round()
    assert (story.model(addon).state, story.adapters()) == ("UPDATING", [])
    engines.only().come_up()
    story.round()
    assert story.states() == ["LOADING"]
    story.round()
    assert (story.states(), story.model(addon).state) == (["READY"], "DEPLOYED")


def test_an_undeployed_addon_is_unloaded_and_vanishes(deploy, engines):
    story = deploy(enable_addons=True)
    addon = story.add_model("poet")
    story.come_up()
    set_state(story, addon, "UNDEPLOYING")
    engines.silent.add(addon.model_uid.hex)
    story.round()
    assert story.model(addon).state == "UNDEPLOYING"
    engines.silent.clear()
    story.round()
    assert (story.model(addon), engines.only().adapters, story.adapters()) == (None, set(), [])


def test_deleting_a_deployment_takes_its_models_along_and_passes_the_default_on(deploy):
    one, two = deploy("one"), deploy("two", desired_replica_count=0)
    first, second = base_model(one, default=True), base_model(two)
    addon = one.add_model("poet")
    one.round()
    one.change(state="DELETING")
    set_state(one, first, "UNDEPLOYING")
    set_state(one, addon, "UNDEPLOYING")
    one.round(2)
    one.runtime.finish_stopping()
    assert one.round().state == "DELETED"
    assert (one.model(first), one.model(addon)) == (None, None)
    assert two.model(second).default
    with one.db.session() as session:
        assert session.scalar(func.count(ModelRow.uid).select()) == 2


def test_scaled_to_zero_an_addon_says_so(deploy, engines):
    story = deploy(enable_addons=True)
    addon = story.add_model("poet")
    story.come_up()
    story.change(desired_replica_count=0)
    story.round(2)
    engines.finish_stopping()
    story.round()
    waiting = story.model(addon)
    assert (waiting.state, waiting.status_code) == ("UPDATING", "OK")
    assert waiting.status_message == "its deployment is scaled to zero"
