"""Deployments that guess tokens ahead, over HTTP."""

from sqlalchemy import select

from controlplane.resources.tables import DeploymentRow

PATH = "/v1/accounts/hearth/deployments"


def rows(db):
    with db.session() as session:
        return list(session.scalars(select(DeploymentRow)))


async def create(api, **fields):
    return await api.post(f"{PATH}?deploymentId=d", json={"baseModel": "base", **fields})


def refusal(answer):
    body = answer.json()
    return answer.status_code, body["code"], body["message"]


async def test_tokens_are_guessed_ahead_as_the_user_says_and_a_change_asks_for_new_engines(api, db, base):
    made = (await create(api, ngramSpeculationLength=3)).json()
    assert (made["ngramSpeculationLength"], made["draftTokenCount"]) == (3, 0)
    changed = (await api.patch(f"{PATH}/d", json={"draftTokenCount": 5})).json()
    assert (changed["ngramSpeculationLength"], changed["draftTokenCount"]) == (3, 5)
    assert (changed["state"], rows(db)[0].generation) == ("CREATING", 2)
    for chosen in ("ngram_speculation_length = 3", "draft_token_count > 4"):
        found = await api.get(PATH, params={"filter": chosen, "orderBy": "draft_token_count desc"})
        assert found.json()["deployments"] == [changed]
    status, code, message = refusal(await api.patch(f"{PATH}/d", json={"ngramSpeculationLength": 0}))
    assert (status, code) == (400, 3)
    assert "draftTokenCount 5 needs ngramSpeculationLength" in message
    none = {"ngramSpeculationLength": 0, "draftTokenCount": 0}
    stopped = (await api.patch(f"{PATH}/d", json=none)).json()
    assert (stopped["ngramSpeculationLength"], rows(db)[0].generation) == (0, 3)


async def test_a_client_may_ask_that_nothing_is_guessed_ahead(api, db, base):
    asked = {"baseModel": "base", "ngramSpeculationLength": 3}
    status, code, message = refusal(await api.post(f"{PATH}?disableSpeculativeDecoding=true", json=asked))
    assert (status, code) == (400, 3)
    assert "disableSpeculativeDecoding and ngramSpeculationLength exclude each other" in message
    assert rows(db) == []
    made = await api.post(f"{PATH}?disableSpeculativeDecoding=true", json={"baseModel": "base"})
    assert made.json()["ngramSpeculationLength"] == 0


async def test_a_model_that_writes_no_text_has_nothing_to_guess(api, add_model):
    add_model("vectors", kind="EMBEDDING_MODEL", facts={"task": "embed"})
    answer = await create(api, baseModel="vectors", ngramSpeculationLength=3)
    assert "vectors writes no text, so that ngramSpeculationLength" in refusal(answer)[2]


async def test_a_model_that_cannot_go_back_guesses_nothing(api, add_model):
    for number, (architecture, status) in enumerate(
        {"MambaForCausalLM": 400, "LlamaForCausalLM": 200}.items()
    ):
        add_model(f"m{number}", facts={"architecture": architecture})
        asked = {"baseModel": f"m{number}", "ngramSpeculationLength": 3}
        answer = await api.post(f"{PATH}?validateOnly=true", json=asked)
        assert answer.status_code == status
        assert (status == 200) or "is a MambaForCausalLM, whose state cannot take back" in answer.text
