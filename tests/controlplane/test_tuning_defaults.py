"""The table of tuning defaults, and the one of modules that can be tuned: data, read and checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from controlplane.checks.architectures import architectures
from controlplane.checks.lora_targets import target_table, tunable_modules
from controlplane.resources.fine_tuning_jobs.defaults import DefaultsTable, defaults_for, defaults_table
from workers.validation.adapter_config import MODULES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "fine-tuning.md"
ROW = re.compile(r"\| `([\w-]+)` \| (\w+) \| (\d+) \| (\d+) \| ([\d.e-]+) \| (\d+) \|")


def test_a_model_has_its_own_row_else_one_by_its_size() -> None:
    assert defaults_for("mixtral-8x7b", 47_000_000_000, 0).method == "LORA"
    assert defaults_for("llama-v3p1-70b-instruct", 70_000_000_000, 0).learning_rate == 2e-5
    large, small = (defaults_for("unknown", size, 0) for size in (40_000_000_000, 39_999_999_999))
    assert (large.method, large.batch_size) == ("QLORA", 8)
    assert (small.method, small.batch_size) == ("LORA", 16)


def test_rows_are_never_cut_beyond_the_models_context() -> None:
    assert defaults_for("unknown", 1, 512).cutoff_length == 512
    assert defaults_for("unknown", 1, 1_000_000).cutoff_length == 8192


def test_every_model_of_the_seventy_billion_class_is_kept_in_four_bits() -> None:
    found = {id for id, row in defaults_table().models.items() if row.method == "QLORA"}
    assert found == {id for id in defaults_table().models if "70b" in id or "72b" in id}


@pytest.mark.parametrize("wrong", [{"lora_rank": 65}, {"method": "FULL"}, {"batch_size": 0}, {"colour": 1}])
def test_a_table_with_a_mistake_is_not_loaded(wrong: dict[str, object]) -> None:
    table = defaults_table().model_dump()
    table["other"] |= wrong
    with pytest.raises(ValidationError):
        DefaultsTable.model_validate(table)


def test_the_guide_shows_the_table_as_it_is() -> None:
    shown = {
        id: (method, int(batch), int(rank), float(rate), int(cutoff))
        for id, method, batch, rank, rate, cutoff in ROW.findall(DOCUMENT.read_text())
    }
    assert shown == {
        id: (row.method, row.batch_size, row.lora_rank, row.learning_rate, row.cutoff_length)
        for id, row in defaults_table().models.items()
    }


def test_only_modules_that_an_adapter_may_have_are_tuned() -> None:
    table = target_table()
    for name, targets in {"default": table.default, **table.architectures}.items():
        assert set(targets.names) <= MODULES.keys(), name
        assert targets.names, name


def test_the_exceptions_are_architectures_that_take_adapters() -> None:
    known = architectures()
    assert all(known[name].supports_lora for name in target_table().architectures)
    assert tunable_modules("LlamaForCausalLM") == tuple(MODULES)
    assert tunable_modules("MixtralForCausalLM") == ("q_proj", "k_proj", "v_proj", "o_proj")
