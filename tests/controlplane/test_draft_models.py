"""Smaller models that guess ahead for deployments, and models' defaults of them, over HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.db import now
from controlplane.errors import ApiError
from controlplane.resources.deployments.drafts import check_draft
from controlplane.resources.tables import DeploymentRow, ModelRow

PATH = "/v1/accounts/hearth/deployments"
MODELS = "/v1/accounts/hearth/models"
SHAPES = "/v1/accounts/hearth/deploymentShapes"
SMALL = "accounts/hearth/models/small"
FACTS = {"supports_lora": True, "context_length": 1024, "vocab_size": 258}


@pytest.fixture
def models(admin_key, add_model):
    """A base model, and one that can guess for it."""
    return add_model("base", facts=FACTS), add_model("small", facts=FACTS)


def rows(db):
    with db.session() as session:
        return list(session.scalars(select(DeploymentRow)))


def change(db, row, **values):
    with db.session() as session:
        found = session.get_one(type(row), row.uid)
        for name, value in values.items():
            setattr(found, name, value)


async def create(api, query="", **fields):
    return await api.post(f"{PATH}?deploymentId=d{query}", json={"baseModel": "base", **fields})


def guess(answer):
    assert answer.status_code == 200, answer.text
    return tuple(answer.json()[name] for name in ("draftModel", "draftTokenCount", "ngramSpeculationLength"))


def refusal(answer):
    return answer.status_code, answer.json()["message"]


async def test_a_smaller_model_guesses_as_the_user_says_and_a_change_asks_for_new_engines(api, db, models):
    assert guess(await create(api, draftModel="small")) == (SMALL, 0, 0)
    assert rows(db)[0].draft_model_uid == models[1].uid
    assert guess(await api.patch(f"{PATH}/d", json={"draftModel": "small", "draftTokenCount": 5})) == (
        SMALL,
        5,
        0,
    )
    assert rows(db)[0].generation == 2
    for chosen, count in ((f'draft_model = "{SMALL}"', 1), ("draft_model:other", 0)):
        found = await api.get(PATH, params={"filter": chosen, "orderBy": "draft_model"})
        assert found.json()["totalSize"] == count
    status, message = refusal(await api.patch(f"{PATH}/d", json={"ngramSpeculationLength": 2}))
    assert (status, "ngramSpeculationLength and draftModel exclude each other" in message) == (400, True)
    other = {"ngramSpeculationLength": 2, "draftModel": ""}
    assert guess(await api.patch(f"{PATH}/d", json=other)) == ("", 5, 2)
    assert (rows(db)[0].draft_model_uid, rows(db)[0].generation) == (None, 3)


REFUSED = [
    ("base", {}, 400, "draftModel is accounts/hearth/models/base itself"),
    ("absent", {}, 404, "accounts/hearth/models/absent not found"),
    ("a b", {}, 400, "draftModel"),
    ("other", {"kind": "HF_PEFT_ADDON"}, 400, "other is an addon, and draftModel is a base model"),
    ("other", {"state": "UPLOADING"}, 400, "draftModel accounts/hearth/models/other is UPLOADING, not READY"),
    ("other", {"kind": "EMBEDDING_MODEL", "facts": {"task": "embed"}}, 400, "other writes no text"),
    ("other", {"facts": {"architecture": "MambaForCausalLM"}}, 400, "is a MambaForCausalLM, whose state"),
    ("other", {"supports_image_input": True}, 400, "takes images or sounds; one that reads only text"),
    ("other", {"facts": {"vocab_size": 99}}, 400, "a vocabulary of 99 tokens and accounts/hearth/models/bas"),
    ("accounts/rival/models/other", {"account_id": "rival"}, 404, "accounts/rival/models/other not found"),
]


@pytest.mark.parametrize(("name", "other", "status", "words"), REFUSED)
async def test_what_cannot_guess_for_the_base_is_refused_by_name(
    api, db, models, add_model, name, other, status, words
):
    if other:
        add_model("other", **other)
    got, message = refusal(await create(api, draftModel=name))
    assert (got, words in message, rows(db)) == (status, True, []), message


async def test_a_base_that_reads_more_than_text_or_writes_none_has_nobody_guess_for_it(
    api, models, add_model
):
    add_model("eyes", supports_image_input=True)
    add_model("ears", facts={"supports_audio_input": True})
    add_model("vectors", kind="EMBEDDING_MODEL", facts={"task": "embed"})
    for name, words in (
        ("eyes", "eyes takes images or sounds, beside which"),
        ("ears", "ears takes images or sounds, beside which"),
        ("vectors", "vectors writes no text, so that draftModel has nothing to guess"),
    ):
        status, message = refusal(await create(api, baseModel=name, draftModel="small"))
        assert (status, words in message) == (400, True), message


def test_it_has_to_be_split_over_as_many_gpus():
    config = {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 384, "num_hidden_layers": 2}
    base, small = (
        ModelRow(uid=uid, account_id="a", id="m", kind="HF_BASE_MODEL", state="READY", facts=facts)
        for uid, facts in ((1, {}), (2, {"config": config}))
    )
    check_draft(small, base, 2)
    with pytest.raises(ApiError, match="6 attention heads, which cannot be split over 4 GPUs"):
        check_draft(small, base, 4)


async def test_a_public_model_of_another_account_may_guess_and_stays_public_meanwhile(
    api, other_key, models, add_model
):
    add_model("shared", "rival", public=True, facts=FACTS)
    assert guess(await create(api, draftModel="accounts/rival/models/shared"))[0].startswith("accounts/rival")
    as_rival = {"Authorization": f"Bearer {other_key}"}
    for answer in (
        await api.patch("/v1/accounts/rival/models/shared", json={"public": False}, headers=as_rival),
        await api.delete("/v1/accounts/rival/models/shared", headers=as_rival),
    ):
        status, message = refusal(answer)
        assert (status, "other accounts use it" in message, "hearth" in message) == (400, True, False)


async def test_a_model_that_guesses_is_kept_and_is_missed_by_a_deployment_that_comes_back(api, db, models):
    await create(api, draftModel="small")
    status, message = refusal(await api.delete(f"{MODELS}/small"))
    assert status == 400
    assert message.endswith("it guesses ahead for deployments: accounts/hearth/deployments/d")
    change(db, rows(db)[0], state="DELETED", delete_time=now(), purge_time=now() + timedelta(days=1))
    assert (await api.delete(f"{MODELS}/small")).status_code == 200
    assert (rows(db)[0].draft_model, rows(db)[0].draft_model_uid) == (SMALL, None)
    status, message = refusal(await api.post(f"{PATH}/d:undelete"))
    words = f"{SMALL}, the draftModel of accounts/hearth/deployments/d, cannot be used: {SMALL} not found; "
    assert (status, words in message) == (400, True), message


async def test_a_new_deployment_takes_its_models_default_unless_it_says_otherwise(api, models):
    default = {"defaultDraftModel": "small", "defaultDraftTokenCount": 3}
    shown = (await api.patch(f"{MODELS}/base", json=default)).json()
    assert (shown["defaultDraftModel"], shown["defaultDraftTokenCount"]) == (SMALL, 3)
    chosen = {"filter": "default_draft_token_count=3 AND default_draft_model:small"}
    listed = await api.get(MODELS, params=chosen)
    assert [model["name"] for model in listed.json()["models"]] == ["accounts/hearth/models/base"]
    rehearsed = "&validateOnly=true"
    assert guess(await create(api, rehearsed)) == (SMALL, 3, 0)
    assert guess(await create(api, rehearsed, draftTokenCount=7)) == (SMALL, 7, 0)
    assert guess(await create(api, rehearsed, ngramSpeculationLength=2)) == ("", 0, 2)
    without = "&disableSpeculativeDecoding=true"
    assert guess(await create(api, rehearsed + without)) == ("", 0, 0)
    status, message = refusal(await create(api, without, draftModel="small"))
    assert (status, message) == (400, "disableSpeculativeDecoding and draftModel exclude each other")


async def test_a_default_that_is_gone_is_named_with_how_to_go_on_without(api, db, models):
    change(db, models[0], default_draft_model=SMALL, default_draft_token_count=3)
    assert (await api.delete(f"{MODELS}/small")).status_code == 200
    status, message = refusal(await create(api))
    assert (status, message) == (
        400,
        f"{SMALL}, the defaultDraftModel of accounts/hearth/models/base, cannot be used: {SMALL} not found; "
        "set disableSpeculativeDecoding to go without, or name another draftModel",
    )
    assert guess(await create(api, "&disableSpeculativeDecoding=true")) == ("", 0, 0)
    assert (await api.patch(f"{MODELS}/base", json={"displayName": "still"})).status_code == 200


WRONG_DEFAULTS = [
    ({"defaultDraftModel": "small"}, 400, "defaultDraftModel needs defaultDraftTokenCount"),
    ({"defaultDraftTokenCount": 2}, 400, "defaultDraftTokenCount needs defaultDraftModel"),
    ({"defaultDraftModel": "small", "defaultDraftTokenCount": 9}, 400, "less than or equal to 8"),
    ({"defaultDraftModel": "absent", "defaultDraftTokenCount": 2}, 404, "models/absent not found"),
    ({"defaultDraftModel": "base", "defaultDraftTokenCount": 2}, 400, "is the model itself"),
    ({"defaultDraftModel": "poet", "defaultDraftTokenCount": 2}, 400, "poet is a HF_PEFT_ADDON"),
    (
        {"defaultDraftModel": "small", "defaultDraftTokenCount": 2, "public": True},
        400,
        f"make {SMALL} public",
    ),
]


@pytest.mark.parametrize(("fields", "status", "words"), WRONG_DEFAULTS)
async def test_a_default_that_could_never_guess_is_refused_where_it_is_set(
    api, models, add_model, fields, status, words
):
    add_model("poet", kind="HF_PEFT_ADDON", base_model_uid=models[0].uid)
    got, message = refusal(await api.patch(f"{MODELS}/base", json=fields))
    assert (got, words in message) == (status, True), message
    if "itself" not in words:
        body = {"modelId": "new", "model": {"kind": "HF_BASE_MODEL", **fields}}
        got, message = refusal(await api.post(MODELS, json=body))
        words = words.replace("needs default", "needs model.default")
        assert (got, words in message) == (status, True), message
    status, message = refusal(
        await api.patch(f"{MODELS}/poet", json={"defaultDraftModel": "small", "defaultDraftTokenCount": 1})
    )
    assert (status, "is for base models that write text" in message) == (400, True)


async def test_a_model_may_be_made_with_a_default_of_another_and_lose_it(api, models):
    fields = {"kind": "HF_BASE_MODEL", "defaultDraftModel": "small", "defaultDraftTokenCount": 2}
    made = (await api.post(MODELS, json={"modelId": "new", "model": fields})).json()
    assert (made["defaultDraftModel"], made["defaultDraftTokenCount"]) == (SMALL, 2)
    none = await api.patch(f"{MODELS}/new", json={"defaultDraftModel": "", "defaultDraftTokenCount": 0})
    assert (none.json()["defaultDraftModel"], none.json()["defaultDraftTokenCount"]) == ("", 0)


async def shape(api, **fields):
    made = await api.post(f"{SHAPES}?deploymentShapeId=s", json={"baseModel": "base", **fields})
    assert made.status_code == 200, made.text
    (version,) = (await api.get(f"{SHAPES}/s/versions")).json()["deploymentShapeVersions"]
    assert (await api.patch(f"/v1/{version['name']}", json={"validated": True})).status_code == 200
    return made.json(), version["name"]


async def test_a_shape_says_who_guesses(api, db, models, add_model):
    add_model("third", facts=FACTS)
    made, version = await shape(api, draftModel="small", draftTokenCount=6)
    assert made["draftModel"] == SMALL
    found = await api.get(SHAPES, params={"filter": f'draft_model="{SMALL}"'})
    assert found.json()["deploymentShapes"] == [made]
    asked = {"deploymentShape": "s"}
    assert guess(await create(api, "&validateOnly=true", **asked, draftModel="small")) == (SMALL, 6, 0)
    anyway = "&validateOnly=true&skipShapeValidation=true"
    for field, value, said, then in (
        ("draftModel", "third", SMALL, (f"{MODELS}/third".removeprefix("/v1/"), 6, 0)),
        ("ngramSpeculationLength", 2, f"draftModel is {SMALL}", ("", 6, 2)),
    ):
        status, message = refusal(await create(api, **asked, **{field: value}))
        assert (status, f", and {said} in {version}" in message) == (400, True), message
        assert guess(await create(api, anyway, **asked, **{field: value})) == then
    without = "&validateOnly=true&disableSpeculativeDecoding=true"
    assert guess(await create(api, without, **asked)) == ("", 0, 0)
    status, message = refusal(await api.patch(f"{SHAPES}/s", json={"disableSpeculativeDecoding": True}))
    assert (status, message) == (400, "disableSpeculativeDecoding and draftModel exclude each other")
    assert guess(await create(api, **asked)) == (SMALL, 6, 0)
    assert rows(db)[0].draft_model_uid == models[1].uid


async def test_a_public_shape_names_no_private_model_and_one_without_its_model_fits_nothing(api, db, models):
    _, version = await shape(api, draftModel="small")
    change(db, models[0], public=True)
    status, message = refusal(await api.patch(f"/v1/{version}", json={"public": True}))
    assert (status, f"its draft model {SMALL} is not" in message) == (400, True)
    change(db, models[1], state="UPLOADING")
    status, message = refusal(await create(api, deploymentShape="default"))
    assert (status, "no validated deployment shape fits" in message) == (400, True)


async def test_a_shape_may_forbid_that_a_models_default_guesses(api, db, models):
    change(db, models[0], default_draft_model=SMALL, default_draft_token_count=3)
    await shape(api, disableSpeculativeDecoding=True)
    assert guess(await create(api, deploymentShape="s")) == ("", 0, 0)
