"""Pages of lists: each row once whatever happens meanwhile, tokens for one query only, totals, deadlines."""

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import delete, text

from controlplane.app import create_app
from controlplane.bootstrap import ensure_account
from controlplane.resources.models.listing import LISTING
from controlplane.resources.tables import DatasetRow, ModelRow
from controlplane.rest import counting
from controlplane.rest.filters.fields import SQL_TYPES

MODELS = "/v1/accounts/hearth/models"
DATASETS = "/v1/accounts/hearth/datasets"
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
BASES = [uuid.UUID(int=number) for number in range(1, 4)]


def any_model(dice, name):
    """A model with values that many others have too, and with some that are unset."""
    is_base = dice.random() < 0.5
    return ModelRow(
        account_id="hearth",
        id=name,
        kind="HF_BASE_MODEL" if is_base else "HF_PEFT_ADDON",
        state=dice.choice(["READY", "UPLOADING"]),
        display_name=dice.choice(["", "a", "B", "ä"]),
        description=dice.choice(["", "z" * 300, "z" * 299]),
        public=dice.random() < 0.5,
        context_length=dice.randrange(3),
        create_time=NEW_YEAR + timedelta(microseconds=dice.randrange(4)),
        base_model_uid=None if is_base else dice.choice([*BASES, None]),
        facts={"parameter_count": dice.randrange(3), "moe": dice.random() < 0.5} if is_base else {"r": 8},
    )


@pytest.fixture
def five_hundred(admin_key, db):
    """500 models; `base-1` to `base-3` are the bases of the addons among them."""
    dice = random.Random(1)
    with db.session() as session:
        for uid in BASES:
            base = any_model(dice, f"base-{uid.int}")
            base.uid, base.base_model_uid, base.kind = uid, None, "HF_BASE_MODEL"
            session.add(base)
        session.flush()
        session.add_all(any_model(dice, f"m-{number:03}") for number in range(497))


async def test_every_order_shows_each_surviving_row_exactly_once(api, db, five_hundred):
    dice = random.Random(2)
    ordered = [
        path for path, field in LISTING.fields.items() if field.kind in SQL_TYPES and not field.constant
    ]
    assert len(ordered) > 30
    for number, path in enumerate(ordered):
        for direction in ("", " desc"):
            churn = Churn(db, dice, f"{number}{direction.strip()}")
            seen = await walk(api, MODELS, churn, orderBy=path + direction, pageSize=dice.choice([170, 200]))
            assert len(seen) == len(set(seen)), path + direction
            assert churn.survivors - set(seen) == set(), path + direction


class Churn:
    """Deletes and creates models between the pages; `survivors` are there from the first to the last page."""

    def __init__(self, db, dice, tag):
        self.db, self.dice, self.tag = db, dice, tag
        self.survivors, self.count = self._all(), 0

    def __call__(self):
        gone = self.dice.sample(sorted(self.survivors - {f"base-{uid.int}" for uid in BASES}), 3)
        self.survivors -= set(gone)
        with self.db.session() as session:
            session.execute(delete(ModelRow).where(ModelRow.id.in_(gone)))
            for _ in gone:
                self.count += 1
                session.add(any_model(self.dice, f"{self.dice.choice('anz')}-{self.tag}-{self.count}"))

    def _all(self):
        with self.db.session() as session:
            return set(session.scalars(text("SELECT id FROM models")).all())


async def walk(api, path, between=lambda: None, **parameters):
    """The ids of all pages of a list."""
    seen, token = [], ""
    while True:
        answer = await api.get(path, params={**parameters, "pageToken": token})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        (key,) = body.keys() - {"nextPageToken", "totalSize"}
        assert body[key] or not token
        seen += [item["name"].rsplit("/", 1)[1] for item in body[key]]
        token = body["nextPageToken"]
        if not token:
            return seen
        between()


async def test_several_fields_and_a_filter_page_as_one_list(api, five_hundred):
    order = "state desc,peft_details.base_model desc,display_name,context_length desc"
    chosen = {"filter": "context_length < 2", "orderBy": order}
    at_once = await walk(api, MODELS, pageSize=200, **chosen)
    assert await walk(api, MODELS, pageSize=7, **chosen) == at_once
    assert 100 < len(at_once) < 500


def datasets(count, account="hearth"):
    return [DatasetRow(account_id=account, id=f"d-{n:02}", state="READY") for n in range(count)]


@pytest.fixture
def thirty(admin_key, db):
    with db.session() as session:
        session.add_all(datasets(30))


async def test_page_sizes_are_coerced_and_may_change_from_page_to_page(api, thirty):
    first = (await api.get(DATASETS, params={"pageSize": 3})).json()
    assert [len(first["datasets"]), first["totalSize"]] == [3, 30]
    token = first["nextPageToken"]
    rest = (await api.get(DATASETS, params={"pageSize": 1000, "pageToken": token, "readMask": "name"})).json()
    assert [len(rest["datasets"]), rest["nextPageToken"], rest["totalSize"]] == [27, "", 30]
    assert rest["datasets"][0] == {"name": "accounts/hearth/datasets/d-03"}
    same = (await api.get(DATASETS, params={"page_size": 1, "page_token": token})).json()
    assert same["datasets"][0]["name"] == "accounts/hearth/datasets/d-03"
    negative = await api.get(DATASETS, params={"pageSize": -1})
    assert (negative.status_code, negative.json()["code"]) == (400, 3)


async def test_a_token_is_good_for_its_own_query_only(api, thirty):
    query = {"filter": "state = READY", "orderBy": "create_time desc", "pageSize": 2}
    token = (await api.get(DATASETS, params=query)).json()["nextPageToken"]
    assert (await api.get(DATASETS, params={**query, "pageToken": token})).status_code == 200
    for path, changed in [
        (DATASETS, {"filter": "state = UPLOADING"}),
        (DATASETS, {"filter": ""}),
        (DATASETS, {"orderBy": "create_time"}),
        (DATASETS, {"orderBy": ""}),
        (MODELS, {}),
        ("/v1/accounts/hearth/users", {}),
        ("/v1/accounts/fireworks/models", {}),
        ("/v1/accounts/hearth/deployments", {}),
        ("/v1/accounts/hearth/deployments", {"showDeleted": "true"}),
    ]:
        answer = await api.get(path, params={**query, **changed, "pageToken": token})
        assert answer.status_code == 400, (path, changed)
        body = answer.json()
        assert body["details"][0]["fieldViolations"][0]["field"] == "pageToken"
        assert "another list" in body["message"]


async def test_a_token_that_was_tampered_with_is_refused(api, thirty, settings):
    token = (await api.get(DATASETS, params={"pageSize": 2})).json()["nextPageToken"]
    forged = [
        token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token) - 1)
    ]
    forged += ["nonsense", "0", "1", "%00", "=", "WzEsMl0", token[:-4], token + "AAAA", token[1:], "é"]
    for bad in forged:
        answer = await api.get(DATASETS, params={"pageToken": bad})
        assert answer.status_code == 400, bad
        assert answer.json()["details"][0]["fieldViolations"][0]["field"] == "pageToken"
    settings.page_token_key = SecretStr("another platform's")
    assert (await api.get(DATASETS, params={"pageToken": token})).status_code == 400


async def test_every_api_process_of_a_platform_takes_the_others_tokens(api, thirty, settings, admin_key):
    token = (await api.get(DATASETS, params={"pageSize": 2})).json()["nextPageToken"]
    transport = httpx.ASGITransport(create_app(settings.model_copy()))
    other = transport.app
    async with other.router.lifespan_context(other), httpx.AsyncClient(transport=transport) as client:
        answer = await client.get(
            f"http://other{DATASETS}",
            params={"pageToken": token},
            headers={"Authorization": f"Bearer {admin_key}"},
        )
    assert answer.json()["datasets"][0]["name"].endswith("/d-02")


async def test_totals_are_exact_as_far_as_is_counted_and_estimated_beyond(api, db, thirty, monkeypatch):
    monkeypatch.setattr(counting, "COUNTED", 30)
    assert await total(api) == 30
    assert await total(api, filter="name < d-07") == 7
    monkeypatch.setattr(counting, "COUNTED", 10)
    assert await total(api) >= 11
    with db.session() as session:
        session.execute(text("ANALYZE datasets"))
    assert await total(api) == 30
    assert await total(api, filter="display_name:nothing") == 0
    # An estimate that is lower than what was counted is known to be wrong.
    with db.session() as session:
        session.execute(text("UPDATE pg_class SET reltuples = 2 WHERE relname = 'datasets'"))
    assert await total(api) >= 11


async def total(api, **parameters):
    return (await api.get(DATASETS, params={"pageSize": 2, **parameters})).json()["totalSize"]


async def test_a_list_that_takes_too_long_is_504_and_the_next_one_is_not(api, db, thirty, settings):
    settings.list_timeout_seconds = 0.2
    with db.session() as session:
        session.execute(text("LOCK TABLE datasets IN ACCESS EXCLUSIVE MODE"))
        answer = await asyncio.wait_for(api.get(DATASETS), 30)
    assert (answer.status_code, answer.json()["code"]) == (504, 4)
    assert "narrow the filter" in answer.json()["message"]
    assert (await api.get(DATASETS)).status_code == 200


async def test_no_filter_shows_another_accounts_rows(api, db, thirty):
    with db.session() as session:
        ensure_account(session, "rival", "admin@rival.example")
        session.add_all(datasets(3, "rival"))
        private = ModelRow(
            uid=uuid.uuid4(), account_id="rival", id="private", kind="HF_BASE_MODEL", state="READY"
        )
        private.facts = {"model_type": "secret-type"}
        session.add(private)
        session.flush()
        shared = ModelRow(account_id="rival", id="shared", kind="HF_PEFT_ADDON", state="READY", public=True)
        shared.base_model_uid, shared.fine_tuning_job = private.uid, "accounts/rival/fineTuningJobs/hidden"
        session.add(shared)
    for wanted in (
        "name:*",
        "name:rival",
        'name = "*"',
        "NOT name = x",
        "x OR NOT x",
        "name = accounts/rival/*",
    ):
        assert all(not name.startswith("rival") for name in await accounts_of(api, DATASETS, wanted)), wanted
    assert await accounts_of(api, DATASETS, "name = accounts/rival/datasets/d-01") == []
    assert (await api.get("/v1/accounts/rival/datasets", params={"filter": "name:*"})).status_code == 404
    theirs = "/v1/accounts/rival/models"
    assert await accounts_of(api, theirs, "name:* OR public = false") == ["rival/models/shared"]
    # What the message does not show of a public model, a filter does not tell either.
    for secret in (
        "peft_details.base_model:private",
        "peft_details.base_model:*",
        "peft_details.base_model_type = secret-type",
        "fine_tuning_job:hidden",
        "fine_tuning_job:*",
    ):
        assert await accounts_of(api, theirs, secret) == [], secret


async def accounts_of(api, path, text_):
    answer = await api.get(path, params={"filter": text_, "pageSize": 200})
    assert answer.status_code == 200, answer.text
    (items,) = (value for value in answer.json().values() if isinstance(value, list))
    return [item["name"].removeprefix("accounts/") for item in items]
