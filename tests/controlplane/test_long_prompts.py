"""Deployments whose long prompts are spread over GPUs, over HTTP."""

import pytest
from sqlalchemy import select

from controlplane.resources.deployments import engine
from controlplane.resources.quotas import service as quotas
from controlplane.resources.tables import AuditLogRow, DeploymentRow
from tests.controlplane.test_addon_slots import change, refused

HOME = "/v1/accounts/hearth"
PATH = f"{HOME}/deployments"
LONG = {"longPrompt": True}
HEADS = {"num_hidden_layers": 2, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}


@pytest.fixture
def gpus(monkeypatch):
    """A machine with four H100, as far as the API looks; tests take some away."""
    found = ["NVIDIA H100 80GB HBM3"] * 4
    for module in (engine, quotas):
        monkeypatch.setattr(module, "local_devices", lambda: found)
    return found


async def create(api, deployment_id="d", **fields):
    return await api.post(f"{PATH}?deploymentId={deployment_id}", json={"baseModel": "base", **fields})


def generation(db):
    with db.session() as session:
        return session.scalars(select(DeploymentRow)).one().generation


async def test_long_prompts_take_two_gpus_and_a_change_asks_for_new_engines(api, db, base, gpus):
    made = (await create(api, autoTune=LONG)).json()
    assert (made["autoTune"], made["acceleratorCount"]) == (LONG, 0)
    assert (await api.get(f"{HOME}/quotas/gpu-count")).json()["usage"] == 2
    assert (await change(api, autoTune=LONG)).json() == made
    cleared = (await change(api, "?updateMask=autoTune.longPrompt", autoTune={"longPrompt": False})).json()
    assert ("autoTune" in cleared, generation(db)) == (False, 2)
    assert (await api.get(f"{HOME}/quotas/gpu-count")).json()["usage"] == 1
    for nothing in (None, {}, {"longPrompt": False}):
        assert (await change(api, autoTune=nothing)).status_code == 200
    assert generation(db) == 2
    again = (await change(api, autoTune=LONG, acceleratorCount=4)).json()
    assert (again["autoTune"], again["acceleratorCount"], generation(db)) == (LONG, 4, 3)
    assert "unset" in await refused(await change(api, acceleratorCount=1))
    with db.session() as session:
        assert "autoTune" in str([vars(row) for row in session.scalars(select(AuditLogRow))])


async def test_deployments_are_listed_by_it(api, base, gpus):
    await create(api, "plain")
    made = (await create(api, "spread", autoTune=LONG)).json()
    for chosen in ("auto_tune.long_prompt = true", "autoTune:*"):
        found = await api.get(PATH, params={"filter": chosen, "orderBy": "auto_tune.long_prompt desc"})
        assert found.json()["deployments"] == [made]
    ordered = (await api.get(PATH, params={"orderBy": "auto_tune.long_prompt desc"})).json()["deployments"]
    assert [each["name"].rpartition("/")[2] for each in ordered] == ["spread", "plain"]


@pytest.mark.parametrize(
    ("there", "fields", "words"),
    [
        (0, {}, "spreads a prompt over two GPUs or more, and models run on the CPU here; leave it unset"),
        (1, {}, "spreads a prompt over two GPUs or more, and a replica can have one here"),
        (4, {"acceleratorCount": 1}, "and acceleratorCount is 1; ask for more, or leave one of them unset"),
        (4, {"baseModel": "vectors"}, "vectors writes no text; acceleratorCount alone spreads it"),
        (
            4,
            {"baseModel": "nine"},
            "the model's 9 attention heads, with 3 of keys and values, cannot be split",
        ),
        (4, {"deploymentTemplate": "t"}, "deploymentTemplate is not supported"),
    ],
)
async def test_prompts_that_cannot_be_spread_are_refused_with_the_reason(
    api, base, add_model, gpus, there, fields, words
):
    add_model("vectors", kind="EMBEDDING_MODEL", facts={"task": "embed"})
    add_model("nine", facts={"config": HEADS})
    del gpus[there:]
    assert words in await refused(await create(api, autoTune=LONG, **fields))


async def test_who_switches_it_off_is_taken_everywhere(api, base, gpus):
    gpus.clear()
    for number, nothing in enumerate((None, {}, {"longPrompt": False})):
        made = await create(api, f"d{number}", autoTune=nothing, acceleratorCount=0)
        assert (made.status_code, "autoTune" in made.json()) == (200, False)


async def test_a_shape_leaves_it_to_the_request(api, base, gpus):
    shape = {"baseModel": "base", "acceleratorCount": 2, "precision": "BF16"}
    await api.post(f"{HOME}/deploymentShapes?deploymentShapeId=fast", json=shape)
    asked = {"deploymentShape": "fast", "autoTune": LONG}
    made = (await api.post(f"{PATH}?deploymentId=d&skipShapeValidation=true", json=asked)).json()
    assert (made["autoTune"], made["acceleratorCount"], made["precision"]) == (LONG, 2, "BF16")
    assert "autoTune" not in (await change(api, autoTune=None)).json()
    narrow = {"baseModel": "base", "acceleratorCount": 1}
    await api.post(f"{HOME}/deploymentShapes?deploymentShapeId=narrow", json=narrow)
    asked = {"deploymentShape": "narrow", "autoTune": LONG}
    answer = await api.post(f"{PATH}?skipShapeValidation=true", json=asked)
    assert "acceleratorCount is 1" in await refused(answer)
