"""What the owner of a wrong dataset file is told when it is uploaded."""

from __future__ import annotations

import pytest

from tests.validation.wrong_files import FILES, GOOD, WrongFile
from workers.validation.datasets import DatasetLimits, validate_dataset


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_a_wrong_file_is_told_what_is_wrong(file: WrongFile) -> None:
    report = validate_dataset([file.data])

    if file.told is None:
        assert report.ok, report.first_problem()
        return
    assert not report.ok
    line, begins = file.told
    assert report.bad_rows[0].line == line
    assert report.bad_rows[0].reason.startswith(begins), report.bad_rows[0].reason


def test_a_line_of_seventeen_megabytes_is_named_and_the_others_are_read() -> None:
    report = validate_dataset([GOOD, b'{"prompt": "', *[b"x" * 2**20] * 17, b'"}\n', GOOD])

    assert [(bad.line, bad.reason) for bad in report.bad_rows] == [
        (3, f"the line is longer than {16 * 2**20} bytes")
    ]
    assert report.example_count == 5


def test_a_row_too_many_is_too_many() -> None:
    report = validate_dataset([b'{"a": "x"}\n' * 31], limits=DatasetLimits(examples=30))

    assert report.first_problem() == "the dataset holds 31 rows; at most 30 are allowed"


def test_there_are_more_than_forty_ways_to_be_wrong() -> None:
    assert len({file.name for file in FILES}) == len(FILES) > 40
