"""What is found in wrong dataset files before training: the same, and what only tokens tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.conftest import PLAIN_TEMPLATE
from tests.validation.wrong_files import FILES, WrongFile
from workers.training.examples.dataset import tokenize
from workers.training.examples.duplicates import repeated_rows
from workers.training.examples.encoding import Encoder
from workers.training.examples.renderer import TemplateRenderer
from workers.training.examples.rows import CompletionReader, ConversationReader, RowReader
from workers.training.preflight.findings import FINDINGS, Facts, find
from workers.validation.datasets import validate_dataset

CUTOFF = 64
ONLY_AT_UPLOAD = {"fields that are no text", "no text at all"}
"""Templates would make text of them, if such a dataset could become READY."""


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    with TemplateRenderer(PLAIN_TEMPLATE, {"bos_token": "<|bos|>"}) as found:
        yield found


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_a_wrong_file_is_found_out_before_training(
    file: WrongFile, renderer: TemplateRenderer, encoder: Encoder, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(file.data)
    reader: RowReader = ConversationReader(renderer, encoder, PLAIN_TEMPLATE)
    if validate_dataset([file.data]).format == "COMPLETION":
        reader = CompletionReader(encoder, "{prompt}", "{completion}")

    counts = tokenize([path], reader, encoder, [], CUTOFF, tmp_path / "out.arrow").counts
    found = {
        finding.code: finding for finding in find(Facts(counts, None, repeated_rows(counts), cutoff=CUTOFF))
    }

    if file.told is None:
        assert set(found) == file.found
    elif file.told[0] and "empty" not in file.told[1] and file.name not in ONLY_AT_UPLOAD:
        errors = [finding for finding in found.values() if finding.severity == "ERROR"]
        assert errors, "a file that is refused must not be trained either"
        assert errors[0].places[0].startswith(f"rows.jsonl line {file.told[0]}: ")
    assert set(found) <= set(FINDINGS)
