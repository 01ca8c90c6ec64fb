"""Pairs of answers on their way to the trainer: ids and masks, batches, packs, and what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.conftest import write_rows
from tests.training.styles import STYLES, tokenizer_of
from workers.training.errors import RowFailure
from workers.training.examples.counts import Counts
from workers.training.examples.dataset import Tokenized, open_examples, tokenize
from workers.training.examples.encoding import Encoder
from workers.training.examples.pairs import EMPTY_PAIR, SIDES, PairCollator, pack_pairs, pair_up
from workers.training.examples.reading import Reading, template_tokens
from workers.training.examples.rows import RawRow
from workers.training.objectives.preference_trainers import count_pairs
from workers.training.running.together import with_an_empty_one


def row(better: str, worse: str, *asked: tuple[str, str]) -> dict[str, Any]:
    messages = [{"role": role, "content": content} for role, content in asked or [("user", "what colour?")]]
    return {
        "input": {"messages": messages},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }


ROWS = [
    row("blue", "the sky is grey"),
    row("it is  blue\n\nI think", "no", ("user", "hm"), ("assistant", "what?"), ("user", "the colour?")),
    row("blue é 世", "bl"),
]


@pytest.fixture
def paired(tmp_path: Path) -> Callable[..., tuple[Any, Counts]]:
    """Tokenizes rows with a style's template; the pairs and what was counted."""

    def make(
        tokenizer: Any, template: str, rows: Sequence[dict[str, Any]], cutoff: int = 1000
    ) -> tuple[Any, Counts]:
        encoder = Encoder(tokenizer, {tokenizer.eos_token_id})
        reading = Reading("preference", template, template_tokens=template_tokens(tokenizer))
        files = [write_rows(tmp_path / "rows.jsonl", rows)]
        with reading.open(encoder) as reader:
            found = tokenize(files, reader, encoder, [], cutoff, tmp_path / "examples.arrow")
        pairs: Tokenized = pair_up(found, tmp_path / "pairs.arrow")
        return open_examples(pairs), pairs.counts

    return make


@pytest.fixture
def style() -> Any:
    return STYLES["llama 3"]


@pytest.fixture
def llama(style: Any) -> Any:
    """The style's tokenizer."""
    return tokenizer_of(style.specials, style.stop, style.bos)


def trls_own(tokenizer: Any, template: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The batch that trl makes of the same rows by itself."""
    from datasets import Dataset
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    tokenizer.chat_template = template
    columns = {"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output"}
    given = [
        {name: one[of]["messages"] if of == "input" else one[of] for name, of in columns.items()}
        for one in rows
    ]
    prepared = DPOTrainer._prepare_dataset(
        SimpleNamespace(_tokenizer=tokenizer),
        Dataset.from_list(given),
        tokenizer,
        SimpleNamespace(dataset_num_proc=None, max_length=None),
        "train",
    )
    batch: dict[str, Any] = DataCollatorForPreference(tokenizer.pad_token_id)(list(prepared))
    return batch


@pytest.mark.parametrize("way", ["prefix", "generation", "unk_token"])
def test_ids_and_masks_are_trls_own(paired: Callable[..., Any], llama: Any, style: Any, way: str) -> None:
    llama.pad_token = style.stop
    pairs, _ = paired(llama, style.written(way), ROWS)

    ours = PairCollator(llama.pad_token_id)(list(pairs))
    theirs = trls_own(llama, style.written("prefix"), ROWS)

    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert ours[name].tolist() == values.tolist(), name


def test_both_answers_are_read_after_the_same_prompt_and_nothing_else_is_learned(
    paired: Callable[..., Any], llama: Any, style: Any
) -> None:
    (pair, *_), counts = paired(llama, style.written("prefix"), ROWS[1:2])
    learned = {
        side: llama.decode([label for label in pair[f"{side}_labels"] if label >= 0]) for side in SIDES
    }
    assert learned == {"chosen": "it is  blue\n\nI think<|eot_id|>", "rejected": "no<|eot_id|>"}
    assert (counts.rows_in, counts.rows_trained, counts.examples) == (1, 1, 2)
    assert counts.tokens == sum(len(pair[f"{side}_ids"]) for side in SIDES)


@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packs"])
def test_what_fills_up_a_ranks_share_is_in_a_batch_only_where_there_is_nothing_else(
    paired: Callable[..., Any], llama: Any, style: Any, tmp_path: Path, packed: bool
) -> None:
    found, _ = paired(llama, style.written("prefix"), ROWS)
    pairs = pack_pairs(found, 200, tmp_path / "packs.arrow") if packed else found
    filled = list(with_an_empty_one(pairs, {**EMPTY_PAIR, "pairs": [EMPTY_PAIR]}))
    collate = PairCollator(0)

    some, empty = collate(filled), collate(filled[-1:] * 3)

    assert some.keys() == empty.keys()
    for name, values in collate(filled[:-1]).items():
        assert some[name].tolist() == values.tolist()
    assert (count_pairs(some), count_pairs(empty)) == (len(ROWS), 0)
    assert empty["input_ids"].shape == (2, 2)


def test_a_pair_is_left_out_whole(paired: Callable[..., Any], llama: Any, style: Any) -> None:
    long_question = row("blue", "grey", ("user", "what colour? " * 50))
    same_start = row("blue " * 40 + "now", "blue " * 40 + "cost")

    pairs, counts = paired(llama, style.written("prefix"), [long_question, ROWS[0], same_start], 40)

    assert [found["row"] for found in pairs] == [1]
    assert (counts.rows_in, counts.rows_trained, counts.rows_dropped) == (3, 1, 2)
    assert counts.places["ROWS_DROPPED"] == ["rows.jsonl line 1", "rows.jsonl line 3"]


def test_a_row_that_is_no_pair_is_named(paired: Callable[..., Any], llama: Any, style: Any) -> None:
    one_answer = {name: value for name, value in ROWS[0].items() if name != "non_preferred_output"}

    _, counts = paired(llama, style.written("prefix"), [ROWS[0], one_answer])

    (message,) = counts.messages["BAD_ROW"]
    assert message == "rows.jsonl line 2: non_preferred_output is missing"


def test_special_tokens_that_users_type_are_text_on_both_sides(
    paired: Callable[..., Any], llama: Any, style: Any
) -> None:
    pairs, counts = paired(llama, style.written("prefix"), [row("a<|eot_id|>b", "c<|eot_id|>d")])
    stop = llama.convert_tokens_to_ids(style.stop)
    assert all(pairs[0][f"{side}_labels"].count(stop) == 1 for side in SIDES)
    assert counts.notes["SPECIALS_TYPED"] == 1


def test_the_prompt_of_a_row_is_what_it_is_asked_with_when_it_is_served(llama: Any, style: Any) -> None:
    encoder = Encoder(llama, {llama.eos_token_id})
    reading = Reading("preference", style.written("prefix"), template_tokens=template_tokens(llama))
    with reading.open(encoder) as reader:
        prompt = reader.read_prompt(RawRow("here", ROWS[0]))
        better, worse = (text.text for text in reader.read(RawRow("here", ROWS[0])))
        with pytest.raises(RowFailure, match="here: input is missing"):
            reader.read_prompt(RawRow("here", {}))
    assert better == prompt + "blue<|eot_id|>"
    assert worse == prompt + "the sky is grey<|eot_id|>"


def test_packs_hold_whole_pairs_and_never_more_tokens_than_asked(
    paired: Callable[..., Any], llama: Any, style: Any, tmp_path: Path
) -> None:
    rows = [row("blue " * (1 + i % 7), "now") for i in range(40)]
    pairs, _ = paired(llama, style.written("prefix"), rows)

    packs = pack_pairs(pairs, 300, tmp_path / "packs.arrow")

    collate = PairCollator(0)
    sizes = [collate([pack])["input_ids"].numel() for pack in packs]
    assert max(sizes) <= 300
    assert len(packs) < 20
    flat = [pair["chosen_ids"] for pack in packs for pair in pack["pairs"]]
    assert flat == [pair["chosen_ids"] for pair in pairs]
    whole, apart = collate([packs[0]]), collate(list(pairs)[: len(packs[0]["pairs"])])
    assert all(whole[name].equal(apart[name]) for name in whole)


def test_the_odds_of_a_certain_answer_are_finite() -> None:
    import torch

    from workers.training.objectives.preference_trainers import log_odds

    likely = torch.tensor([0.0, -1e-9, math.log(0.9), math.log(0.5), -50.0], requires_grad=True)
    found = log_odds(likely)
    found.sum().backward()
    assert found[2:].tolist() == pytest.approx([math.log(9), 0.0, -50.0], abs=1e-5)
    assert all(math.isfinite(number) for number in [*found.tolist(), *likely.grad.tolist()])


def test_a_specification_of_pairs_is_whole_or_refused(make_spec: Callable[..., Any]) -> None:
    good = {"kind": "preference", "preference": {"method": "dpo"}}
    assert make_spec(ROWS, **good, batch_tokens=256, micro_batch_size=1).preference.beta == 0.1
    for bad, why in (
        ({"kind": "preference"}, "preference belongs to preference jobs"),
        ({"preference": {"method": "dpo"}}, "preference belongs to preference jobs"),
        ({**good, "preference": {"method": "ppo"}}, "dpo"),
        ({**good, "preference": {"method": "dpo", "beta": 0}}, "greater than 0"),
        ({**good, "batch_tokens": 255, "micro_batch_size": 1}, "batch_tokens must hold"),
        ({**good, "input_template": "{a}"}, "do not belong to preference jobs"),
    ):
        with pytest.raises(ValueError, match=why):
            make_spec(ROWS, **bad)


def test_pairs_in_the_settings_of_a_job_are_json(make_spec: Callable[..., Any]) -> None:
    spec = make_spec(ROWS, kind="preference", preference={"method": "orpo", "odds_weight": 0.5})
    assert json.loads(spec.model_dump_json())["preference"]["odds_weight"] == 0.5
