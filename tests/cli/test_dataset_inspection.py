"""`firectl inspect dataset`: what training would meet, as tables, bars and marked rows."""

import pytest

HOME = "/v1/accounts/acme"
INSPECT = f"{HOME}/datasets/d:inspect"
ROW = {
    "place": "rows.jsonl line 1",
    "examples": [
        [
            {"text": "<|user|>", "tokens": 1, "special": True},
            {"text": "why?\nnow \x1b[2J", "tokens": 4},
            {"text": "<|end|>", "tokens": 1, "special": True},
            {"text": "because", "tokens": 2, "trained": True},
            {"text": "<|end|>", "tokens": 1, "trained": True, "special": True},
            {"text": "more", "tokens": 1, "cut": True},
        ]
    ],
}
REPORT = {
    "kind": "conversation",
    "masking": "generation",
    "template": "of the base model",
    "cutoffLength": 128,
    "training": {
        "rows": "1200",
        "rowsTrained": "1199",
        "rowsCut": "1",
        "tokens": "45000",
        "trainedTokens": "15000",
        "longest": 128,
        "lengths": [{"tokens": 64, "rows": "1199"}, {"tokens": 128, "rows": "1"}],
    },
    "findings": [
        {
            "code": "ROWS_CUT",
            "severity": "WARNING",
            "sentence": "cut off at 128 tokens: 1 row, which lose 4 tokens",
            "hint": "Raise the cut-off length.",
            "rows": "1",
            "places": ["rows.jsonl line 7"],
        }
    ],
    "estimate": {
        "steps": "150",
        "stepsPerEpoch": "75",
        "tokens": "90000",
        "seconds": "90",
        "cost": {"currencyCode": "USD", "units": "1", "nanos": 500000000},
    },
    "rows": [ROW],
}
READY = {"state": "READY", "status": {"code": "OK"}, "report": REPORT}


@pytest.fixture
def server(api):
    api.on("POST", INSPECT, READY)
    return api


def test_everything_is_told_at_once(firectl, server):
    ran = firectl("inspect", "dataset", "d", "--model", "m", "--epochs", "2", "--rows", "1")

    assert ran.code == 0
    assert server.sent("POST", INSPECT)[0].body == {"baseModel": "m", "epochs": 2, "rowCount": 1}
    for line in (
        "Rows: 1,200, 1,199 of them trained",
        "Tokens: 45,000 an epoch, 15,000 trained",
        "Steps: 150, 75 an epoch",
        "Time: 1m30s, as fast as the last job on this model",
        "Cost: USD 1.50 for 90,000 tokens",
        "WARNING ROWS_CUT: cut off at 128 tokens: 1 row, which lose 4 tokens",
        "  rows.jsonl line 7",
        "  Raise the cut-off length.",
    ):
        assert line in ran.out.splitlines(), ran.out


def test_a_length_that_any_row_has_is_drawn(firectl, server):
    bars = [
        line for line in firectl("dataset", "inspect", "d", "--model", "m").out.splitlines() if "█" in line
    ]

    assert [(line.split()[0], line.count("█"), line.split()[-1]) for line in bars] == [
        ("64", 40, "1,199"),
        ("128", 1, "1"),
    ]


def test_without_colours_brackets_say_what_is_trained_and_nothing_moves_the_cursor(firectl, server):
    out = firectl("inspect", "dataset", "d", "--model", "m").out

    assert "\x1b" not in out
    assert "<|user|>why?\nnow \\x1b[2J<|end|>⟦because<|end|>⟧\n" in out


def test_colours_say_what_is_trained_special_and_cut(firectl, server):
    out = firectl("inspect", "dataset", "d", "--model", "m", env={"FORCE_COLOR": "1"}).out

    assert "\x1b[32mbecause\x1b[0m\x1b[33m<|end|>\x1b[0m\x1b[2mmore\x1b[0m" in out
    assert "now \\x1b[2J" in out


def test_one_row_is_asked_for_by_its_number(firectl, server):
    firectl("inspect", "dataset", "d", "--model", "m", "--row", "70")

    assert server.sent("POST", INSPECT)[0].body == {"baseModel": "m", "rowCount": 1, "firstRow": 70}


def test_no_rows_are_shown_where_none_are_wanted(firectl, server):
    assert "because" not in firectl("inspect", "dataset", "d", "--model", "m", "--rows", "0").out


def test_programs_get_the_report_itself(firectl, server):
    found = firectl("inspect", "dataset", "d", "--model", "m", "-o", "json").json

    assert found["findings"][0]["code"] == "ROWS_CUT"
    assert found["training"]["rows_trained"] == "1199"


def test_a_report_that_takes_longer_is_asked_for_again(firectl, api):
    api.on("POST", INSPECT, {"state": "PENDING"}, READY)

    ran = firectl("inspect", "dataset", "d", "--model", "m")

    assert ran.code == 0
    assert len(api.sent("POST", INSPECT)) == 2
    assert "Reading accounts/acme/datasets/d" in ran.err


def test_the_wait_ends_when_it_is_told_to(firectl, api):
    api.on("POST", INSPECT, {"state": "PENDING"})

    ran = firectl("inspect", "dataset", "d", "--model", "m", "--wait-timeout", "0s")

    assert ran.code == 4
    assert "is still being read" in ran.err


def test_what_cannot_be_inspected_says_why(firectl, api):
    refusal = {"state": "FAILED", "status": {"code": "FAILED_PRECONDITION", "message": "no tokenizer.json"}}
    api.on("POST", INSPECT, refusal)

    ran = firectl("inspect", "dataset", "d", "--model", "m")

    assert ran.code == 1
    assert "no tokenizer.json" in ran.err


def test_a_model_must_be_named(firectl, server):
    ran = firectl("inspect", "dataset", "d")

    assert ran.code == 2
    assert "--base-model MODEL" in ran.err
