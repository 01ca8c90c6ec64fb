"""What gateways tell and the autoscaler reads, through a real Valkey."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from redis import Redis

from controlplane.config import Settings
from controlplane.load_board import GATEWAYS, figures_key, known_key, read_board
from gateway.load import AVERAGED_SECONDS, FORGOTTEN_SECONDS, LoadBook, LoadReport

CHAT, OTHER = uuid.uuid4(), uuid.uuid4()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> LoadBook:
    return LoadBook(clock)


@pytest.fixture
def valkey(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        client.delete(GATEWAYS)
        yield client
        client.delete(GATEWAYS)


def test_the_load_is_an_average_over_the_last_seconds(book: LoadBook, clock: Clock) -> None:
    carried = []
    for _ in range(10):
        carried.append(book.begin(CHAT))
        clock.now += 1
        book.look()
    for one in carried:
        book.end(one, 20, 30)
    load = book.look()[CHAT]
    assert load.concurrent == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10) / 10)
    assert load.requests_per_second == pytest.approx(1.0)
    assert (load.prompt_tokens_per_second, load.tokens_generated_per_second) == pytest.approx((20, 30))


def test_what_lies_longer_back_is_forgotten(book: LoadBook, clock: Clock) -> None:
    carried = book.begin(CHAT)
    clock.now += 5
    book.look()
    book.end(carried, 5, 5)
    for _ in range(int(AVERAGED_SECONDS) + 2):
        clock.now += 1
        load = book.look()[CHAT]
    assert (load.concurrent, load.requests_per_second, load.tokens_generated_per_second) == (0, 0, 0)
    assert load.quiet_seconds == pytest.approx(AVERAGED_SECONDS + 2)
    clock.now += FORGOTTEN_SECONDS
    assert book.look() == {}


def test_waiting_requests_are_told_as_they_are_now(book: LoadBook, clock: Clock) -> None:
    book.wait(CHAT, 3)
    assert book.look()[CHAT].waiting == 3
    book.wait(CHAT, -3)
    assert book.look()[CHAT].waiting == 0


async def test_the_figures_of_gateways_are_added_up(valkey: Redis, settings: Settings, clock: Clock) -> None:
    books = [LoadBook(clock), LoadBook(clock)]
    for number, book in enumerate(books):
        book.begin(CHAT)
        clock.now += 10 * number
    books[1].wait(OTHER, 2)
    reports = [LoadReport(settings.redis_url, book) for book in books]
    await asyncio.gather(*(report.tell() for report in reports))
    board = read_board(valkey)
    assert board is not None and board.whole
    assert (board.loads[CHAT].concurrent, board.loads[CHAT].quiet_seconds) == (2, 10)
    assert board.loads[OTHER].waiting == 2
    await asyncio.gather(*(report.close() for report in reports))
    assert read_board(valkey) is None


async def test_a_gateway_that_fell_silent_is_missed_and_then_forgotten(
    valkey: Redis, settings: Settings, book: LoadBook
) -> None:
    silent, other = LoadReport(settings.redis_url, book), LoadReport(settings.redis_url, LoadBook())
    await silent.tell()
    await other.tell()
    valkey.delete(figures_key(silent.gateway_id))  # it has expired
    board = read_board(valkey)
    assert board is not None and not board.whole
    valkey.delete(known_key(silent.gateway_id))
    board = read_board(valkey)
    assert board is not None and board.whole
    assert valkey.smembers(GATEWAYS) == {other.gateway_id.encode()}
    await other.close()
    await silent.close()


async def test_nothing_is_known_when_all_gateways_are_silent(
    valkey: Redis, settings: Settings, book: LoadBook
) -> None:
    assert read_board(valkey) is None
    report = LoadReport(settings.redis_url, book)
    await report.tell()
    valkey.delete(figures_key(report.gateway_id))
    assert read_board(valkey) is None
    await report.close()


async def test_a_valkey_that_is_away_costs_nothing_but_a_line_in_the_log(
    book: LoadBook, caplog: pytest.LogCaptureFixture
) -> None:
    report = LoadReport("redis://127.0.0.1:1/0", book)
    await report.tell()
    await report.tell()
    assert [record.message for record in caplog.records if "load board" in record.message][1:] == []
    await report.close()
