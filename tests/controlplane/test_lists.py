"""Lists on a real database: what filters find, in which order, page by page, and what they never show."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.resources.tables import (
    DeploymentRow,
    ModelRow,
)

MODELS = "/v1/accounts/hearth/models"
DATASETS = "/v1/accounts/hearth/datasets"
DEPLOYMENTS = "/v1/accounts/hearth/deployments"
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


async def ids(api, path, **parameters):
    """The ids of a whole list, which must fit on one page."""
    answer = await api.get(path, params={"pageSize": 200, **parameters})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    (key,) = body.keys() - {"nextPageToken", "totalSize"}
    assert body["totalSize"] == len(body[key])
    return [item["name"].rsplit("/", 1)[1] for item in body[key]]


async def refusal(api, path, **parameters):
    """What a refused list says, and of which parameter."""
    answer = await api.get(path, params=parameters)
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["code"] == 3
    ((violation,),) = [detail["fieldViolations"] for detail in body["details"]]
    assert violation["description"] == body["message"]
    return violation["field"], body["message"]


def model(name, **columns):
    chosen = {"account_id": "hearth", "id": name, "kind": "HF_BASE_MODEL", "state": "READY", **columns}
    return ModelRow(uid=uuid.uuid4(), **chosen)


@pytest.fixture
def models(admin_key, db):
    """Three base models and two addons, with something different in every column."""
    small = model(
        "small",
        display_name="The Small One",
        description="50% off_er",
        create_time=NEW_YEAR,
        context_length=2048,
        supports_tools=True,
        facts={"parameter_count": 5_000_000_000, "moe": True, "model_type": "llama", "supports_lora": True},
    )
    large = model(
        "large",
        display_name="the large one",
        description="100 percent offXer",
        create_time=NEW_YEAR + timedelta(days=1),
        context_length=131_072,
        public=True,
        facts={"parameter_count": 70_000_000_000, "model_type": "qwen2", "default_precision": "BF16"},
        conversation_config={"style": "jinja", "template": "{{ x }}"},
    )
    raw = model(
        "raw", state="UPLOADING", status_code="INVALID_ARGUMENT", create_time=NEW_YEAR - timedelta(days=1)
    )
    addon = model(
        "addon-a",
        kind="HF_PEFT_ADDON",
        base_model_uid=small.uid,
        fine_tuning_job="accounts/hearth/fineTuningJobs/j1",
        create_time=NEW_YEAR + timedelta(microseconds=1),
        facts={"r": 16, "target_modules": ["q_proj", "v_proj"]},
    )
    other = model(
        "addon-b", kind="HF_PEFT_ADDON", base_model_uid=large.uid, facts={"r": 8}, create_time=NEW_YEAR
    )
    with db.session() as session:
        session.add_all([small, large, raw])
        session.flush()
        session.add_all([addon, other])


FOUND = [
    ("", "addon-a addon-b large raw small"),
    # names, as a whole or by their id
    ("name = small", "small"),
    ("name = accounts/hearth/models/small", "small"),
    ("name = accounts/rival/models/small", ""),
    ("name = accounts/hearth/datasets/small", ""),
    ("name != accounts/hearth/models/small", "addon-a addon-b large raw"),
    ("name = addon-*", "addon-a addon-b"),
    ('name = "accounts/*/models/*a*l*"', "small"),
    ('name != "*l*"', "addon-a addon-b raw"),
    ("name:ADD", "addon-a addon-b"),
    ("name:models/ra", "raw"),
    ("name > raw", "small"),
    ("name >= raw", "raw small"),
    ("name < accounts/hearth/models/b", "addon-a addon-b"),
    # texts
    ('display_name = "The Small One"', "small"),
    ('displayName = "the small one"', ""),
    ('display_name = "*one"', "large"),
    ('display_name = "*One"', "small"),
    ('display_name:"SMALL o"', "small"),
    ('display_name != "*ne"', "addon-a addon-b raw"),
    ('display_name > "Z"', "large"),
    ('display_name = ""', "addon-a addon-b raw"),
    ("display_name:*", "large small"),
    ("display_name = null", "addon-a addon-b raw"),
    ('display_name = "null"', ""),
    ("display_name != null", "large small"),
    # what LIKE has a meaning for is only text
    ('description = "50%*"', "small"),
    ('description = "*off_er"', "small"),
    ('description:"0%"', "small"),
    ('description:"f_"', "small"),
    (r'description = "50\*"', ""),
    (r'description:"\\"', ""),
    # enums
    ("state = READY", "addon-a addon-b large small"),
    ("state != READY", "raw"),
    ("state:UPLOADING", "raw"),
    ("-state = READY", "raw"),
    ("kind = (HF_BASE_MODEL OR LIVE_MERGE) AND state = READY", "large small"),
    ("kind != (HF_PEFT_ADDON OR LIVE_MERGE)", "large raw small"),
    ("status.code = INVALID_ARGUMENT", "raw"),
    ("base_model_details.default_precision = BF16", "large"),
    ("base_model_details.default_precision:*", "large"),
    # booleans
    ("public = true", "large"),
    ("public != true", "addon-a addon-b raw small"),
    ("public = false AND supports_tools = true", "small"),
    ("supportsTools:*", "small"),
    ("tunable = true", "small"),
    ("supports_lora = false", "addon-a addon-b large raw"),
    ("rl_tunable = true", ""),
    ("rl_tunable = false name = raw", "raw"),
    # numbers, in columns and in JSON
    ("context_length = 2048", "small"),
    ("context_length > 2048", "large"),
    ("context_length >= 2048.5", "large"),
    ("context_length < 1e4", "addon-a addon-b raw small"),
    ("context_length != 0", "large small"),
    ("context_length > 9000000000000000000", ""),
    ("context_length > -9000000000000000000", "addon-a addon-b large raw small"),
    ("base_model_details.parameter_count >= 7e10", "large"),
    ("baseModelDetails.parameterCount < 7e10", "raw small"),
    ("base_model_details.parameterCount = 0", "raw"),
    ("base_model_details.moe = true", "small"),
    ("peft_details.r = 16", "addon-a"),
    # a part of what is unset is neither equal nor unequal
    ("peft_details.r != 16", "addon-b"),
    ("NOT peft_details.r = 16", "addon-b large raw small"),
    ("peft_details:*", "addon-a addon-b"),
    ("base_model_details = null", "addon-a addon-b"),
    ("peft_details:r", "addon-a addon-b"),
    ("conversation_config:*", "large"),
    ("conversation_config.style = jinja", "large"),
    ("conversation_config.style != jinja", ""),
    # what belongs to another row
    ("peft_details.base_model = accounts/hearth/models/small", "addon-a"),
    ("peft_details.base_model = small", "addon-a"),
    ("peft_details.base_model != small", "addon-b"),
    ('peft_details.base_model = "*/la*"', "addon-b"),
    ("peft_details.base_model_type = llama", "addon-a"),
    ("peft_details.target_modules:v_proj", "addon-a"),
    ("peft_details.target_modules:v", ""),
    ("fine_tuning_job:J1", "addon-a"),
    # times
    ('create_time = "2030-01-01T00:00:00Z"', "addon-b small"),
    ("create_time > 2030-01-01T00:00:00Z", "addon-a large"),
    ("create_time <= 2030-01-01T01:00:00+01:00 create_time >= 2029-12-31T20:00:00-04:00", "addon-b small"),
    ("create_time > 2030-01-01T00:00:00.0000009Z", "addon-a large"),
    ("create_time < 2030-01-01", "raw"),
    ("create_time:*", "addon-a addon-b large raw small"),
    # words alone, in the name, the display name and the description
    ("large", "large"),
    ("OFF", "large small"),
    ("percent OR addon-b", "addon-b large"),
    ("one NOT small", "large"),
    ('"the s"', "small"),
    ("o*one", ""),
    ("s*one", "small"),
    # logic
    ("name = raw OR name = small public = false", "raw small"),
    ("state = READY AND public = true OR context_length = 2048", "large small"),
    ("(state = READY AND public = true) OR name = raw", "large raw"),
    ("NOT (name = raw OR name = small)", "addon-a addon-b large"),
    ("NOT NOT_A_WORD", "addon-a addon-b large raw small"),
]


async def test_each_operator_finds_what_it_says_on_each_type_of_field(api, models):
    wrong = []
    for text, expected in FOUND:
        found = await ids(api, MODELS, filter=text)
        if found != expected.split():
            wrong.append((text, expected, found))
    assert not wrong


async def test_annotations_are_filtered_by_their_keys(api, db):
    base = model("base")
    rows = [
        ("plain", {}),
        ("red", {"team": "red", "a.b": "1"}),
        ("blue", {"team": "blue"}),
    ]
    with db.session() as session:
        session.add(base)
        session.flush()
        session.add_all(deployment(name, base, annotations=annotations) for name, annotations in rows)
    for text, expected in [
        ("annotations.team = red", "red"),
        ("annotations.team != red", "blue"),
        ("NOT annotations.team = red", "blue plain"),
        ('annotations.team = "*e*"', "blue red"),
        ("annotations.team > blue", "red"),
        ("annotations.team:red", "red"),
        ("annotations.team:re", ""),
        ("annotations.team:*", "blue red"),
        ("annotations.team = null", "plain"),
        ("annotations:team", "blue red"),
        ("annotations:*", "blue red"),
        ("annotations = null", "plain"),
        ('annotations."a.b" = 1', "red"),
        ("annotations.a.b = 1", "red"),
        ('annotations."x\' OR 1=1 --":*', ""),
        ("base_model = base", "blue plain red"),
        ("accelerator_type = ACCELERATOR_TYPE_*", "blue plain red"),
        ("accelerator_type:*", ""),
        ("delete_time != 2030-01-01", "blue plain red"),
        ("delete_time < 2030-01-01", ""),
    ]:
        assert sorted(await ids(api, DEPLOYMENTS, filter=text)) == expected.split(), text
    assert await ids(api, DEPLOYMENTS, orderBy="annotations.team desc,name") == ["red", "blue", "plain"]


def deployment(name, base, **columns):
    return DeploymentRow(
        account_id="hearth", id=name, state="READY", base_model_uid=base.uid, **columns, uid=uuid.uuid4()
    )


WRONG_FILTERS = [
    ("stat = READY", 'column 1: unknown field "stat"; did you mean state?'),
    ("public = true AND displayNam = x", 'column 19: unknown field "displayNam"; did you mean displayName'),
    ("zzz = 1", "fields are base_model_details"),
    ("base_model_details.zzz = 1", "unknown field"),
    ("name.x = 1", "unknown field"),
    ("state = REDY", "column 9: expected one of STATE_UNSPECIFIED, UPLOADING, READY (did you mean READY?)"),
    ("state = ready", "did you mean READY"),
    ("state < READY", "has no order"),
    ("public = yes", 'column 10: expected true or false for public, found "yes"'),
    ("public = 1", "expected true or false"),
    ("public > true", "has no order"),
    ("context_length = many", "expected a whole number"),
    ('context_length = ""', "expected a whole number"),
    ("context_length = 9223372036854775808", "at most 64 bits"),
    ("context_length = 1e9999", "at most 64 bits"),
    ("context_length = " + "9" * 300, "expected a whole number"),
    ("context_length = NaN", "expected a whole number"),
    ("context_length = 1_000", "expected a whole number"),
    ("context_length = ١", "expected a whole number"),
    ("context_length = 1*", "expected a whole number"),
    ("create_time > yesterday", 'expected a time such as "2030-01-31T12:00:00Z"'),
    ("create_time > 2030-02-30", "a time that exists"),
    ('create_time > "0001-01-01T00:00:00+10:00"', "in the years 1 to 9999"),
    ('create_time > "2030-01-01T25:00:00Z"', "a time that exists"),
    ("peft_details = 3", "is a message"),
    ("peft_details:zzz", "unknown field"),
    ("peft_details.target_modules = x", "holds several values"),
    ("teft_details:*", "TEFT addons are not available"),
    ("supported_precisions:FP16", "it is not a single value"),
    ("cohort(x)", "column 1: there is no function cohort()"),
    ("state =", "column 8: expected a field or a value"),
]


async def test_a_wrong_filter_is_refused_with_its_column_and_what_was_expected(api):
    for text, words in WRONG_FILTERS:
        field, message = await refusal(api, MODELS, filter=text)
        assert field == "filter"
        assert words in message


INJECTIONS = [
    "'; DROP TABLE models; --",
    "' OR '1'='1",
    "%' OR 1=1 --",
    "\\'; SELECT pg_sleep(10) --",
    "${jndi:x}",
    ":name",
    "%(x)s",
    "$1",
    "{0}",
    "?",
]


async def test_sql_in_a_filter_is_only_text_that_is_looked_for(api, models, db):
    with db.session() as session:
        session.add_all(model(f"evil-{n}", display_name=text) for n, text in enumerate(INJECTIONS))
    for number, text in enumerate(INJECTIONS):
        value = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"'
        for shape in (f"display_name = {value}", f"display_name:{value}", f"{value} name:evil"):
            found = await ids(api, MODELS, filter=shape)
            assert f"evil-{number}" in found, shape
            assert set(found) <= {f"evil-{n}" for n in range(len(INJECTIONS))}
        assert await ids(api, MODELS, filter=f"name = {value}") == []
        for parameter in ("filter", "orderBy"):
            answer = await api.get(MODELS, params={parameter: f"name) {text}"})
            assert answer.status_code in (200, 400)
    assert len(await ids(api, MODELS)) == 5 + len(INJECTIONS)


ORDERS = [
    ("name", "addon-a addon-b large raw small"),
    ("name desc", "small raw large addon-b addon-a"),
    ("  name   DESC ", "small raw large addon-b addon-a"),
    ("context_length desc, name", "large small addon-a addon-b raw"),
    ("contextLength,name desc", "raw addon-b addon-a small large"),
    ("create_time asc,name desc", "raw small addon-b addon-a large"),
    ("display_name,name", "addon-a addon-b raw small large"),
    ("base_model_details.parameter_count desc,name", "large small raw addon-a addon-b"),
    ("base_model_details.parameter_count,name", "raw small large addon-a addon-b"),
    ("peft_details.base_model,name", "addon-b addon-a large raw small"),
    ("public desc,kind,name", "large raw small addon-a addon-b"),
    ("rl_tunable,name", "addon-a addon-b large raw small"),
]


async def test_lists_are_ordered_by_what_is_asked_and_what_is_unset_comes_last(api, models):
    for order_by, expected in ORDERS:
        found = await ids(api, MODELS, orderBy=order_by)
        assert found == expected.split(), order_by


WRONG_ORDERS = [
    ("nme", 'unknown field "nme"; did you mean name'),
    ("name up", "part 1 of orderBy"),
    ("name,,state", "part 2 of orderBy"),
    ("name,name desc", "twice"),
    ("base_model_details", "is not a single value"),
    ("teft_details", "TEFT"),
    ("peft_details.target_modules", "is not a single value"),
    ("a,b,c,d,e,f,g,h,i", "at most 8"),
    ("name; drop table models", "part 1"),
]


async def test_a_wrong_order_is_refused_by_name(api):
    for order_by, words in WRONG_ORDERS:
        field, message = await refusal(api, MODELS, orderBy=order_by)
        assert field == "orderBy"
        assert words in message
