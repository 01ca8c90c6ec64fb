"""The bytes of a stream, cut into whole events however the network cuts them."""

import pytest

from gateway.sse import EventParts, EventTooLarge, NoEnd, data_of, first_data

END = b"data: [DONE]\n\n"


async def read(chunks: list[bytes], event_bytes: int = 100) -> list[list[bytes]]:
    rest = iter([*chunks, b""])

    async def source() -> bytes:
        return next(rest)

    return [data_of(part) async for part in EventParts(source, event_bytes)]


async def test_events_are_found_however_the_bytes_are_cut():
    text = b": hello\n\ndata: one\n\ndata: two\n\ndata:three\r\n\n" + END
    expected = [b"one", b"two", b"three"]
    for cut in range(1, len(text)):
        parts = await read([text[:cut], text[cut:]])
        assert [event for part in parts for event in part] == expected
    parts = await read([text[i : i + 1] for i in range(len(text))])
    assert [event for part in parts for event in part] == expected


async def test_events_that_come_together_stay_together():
    parts = await read([b"data: one\n\ndata: two\n\nda", b"ta: three\n\n", END])
    assert parts == [[b"one", b"two"], [b"three"]]


async def test_what_follows_the_end_mark_is_not_read():
    assert await read([b"data: one\n\n" + END + b"data: two\n\n"]) == [[b"one"]]


async def test_an_end_mark_inside_of_a_text_is_none():
    text = b'data: {"text":"\\n\\ndata: [DONE]\\n\\n"}\n\n'
    assert await read([text, END]) == [[text[6:-2]]]


async def test_a_stream_without_an_end_mark_has_not_ended():
    with pytest.raises(NoEnd):
        await read([b"data: one\n\n"])


async def test_an_event_without_end_is_given_up():
    with pytest.raises(EventTooLarge):
        await read([b"data: " + b"x" * 200])


async def test_a_large_event_that_comes_in_pieces_is_one():
    pieces = [b"data: ", *[b"x" * 1000] * 1000, b"\n", b"\n", END]
    ((event,),) = await read(pieces, event_bytes=2_000_000)
    assert len(event) == 1_000_000


@pytest.mark.parametrize(
    ("part", "first"),
    [
        (b"data: one\n\ndata: two\n\n", b"one"),
        (b": hello\n\n\n\n: again\n\ndata:two\r\n\ndata: three\n\n", b"two"),
        (b": hello\n\n", b""),
        (b": hello\n\n" * 10_000, b""),
    ],
)
def test_the_first_event_of_a_part_is_the_first_with_data(part, first):
    assert first_data(part) == first
    assert data_of(part)[:1] == ([first] if first else [])


async def test_a_part_that_is_put_back_comes_again_though_it_was_the_last():
    rest = iter([b"data: one\n\n" + END])

    async def source() -> bytes:
        return next(rest)

    parts = EventParts(source, 100)
    parts.put_back(await anext(parts))
    assert parts.is_done
    assert [part async for part in parts] == [b"data: one\n\n"]
