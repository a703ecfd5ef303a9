"""Are bodies read within their limits, and every broken one answered with what is wrong?"""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.unit.small_app import BODY_BYTES_MAX, Client, in_chunks, problem_of, small_app


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A small application."""
    async with small_app() as opened:
        yield opened


async def test_a_good_body_is_read(client: Client) -> None:
    """JSON becomes a model, and a model becomes JSON with times in UTC."""
    response = await client.post(
        "/echo", data=b'{"lines": [{"quantity": 2}], "at": "2026-03-01T14:00:00+02:00"}'
    )

    assert response.status == 200
    assert response.content_type == "application/json"
    assert await response.json() == {"lines": [{"quantity": 2}], "at": "2026-03-01T14:00:00+02:00"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"lines": [}', b"[" * 900, b'{"lines": NaN', b"\x00"]
)
async def test_a_body_that_is_not_json_is_malformed(client: Client, body: bytes) -> None:
    """400, not 422: there is nothing to point at."""
    problem = await problem_of(await client.post("/echo", data=body), 400)

    assert problem["type"] == "urn:holdfast:problem:malformed"
    assert "errors" not in problem


async def test_a_body_that_does_not_fit_says_where(client: Client) -> None:
    """422 with a JSON pointer for each fault, and without repeating the value."""
    body = {"lines": [{"quantity": 1}, {"quantity": "two-secret"}], "a/b~c": 1}

    problem = await problem_of(await client.post("/echo", json=body), 422)

    assert {error["pointer"] for error in problem["errors"]} == {"/lines/1/quantity", "/a~1b~0c"}
    assert all(error["detail"] for error in problem["errors"])
    assert "two-secret" not in json.dumps(problem)


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"text"'])
async def test_json_of_another_kind_does_not_fit(client: Client, body: bytes) -> None:
    """422 that points at the whole document."""
    problem = await problem_of(await client.post("/echo", data=body), 422)

    assert [error["pointer"] for error in problem["errors"]] == [""]


async def test_a_body_up_to_the_limit_is_read(client: Client) -> None:
    """The limit itself is allowed, with a length and in chunks."""
    for data in (b" " * (4 * BODY_BYTES_MAX), in_chunks(b" " * (4 * BODY_BYTES_MAX))):
        response = await client.post("/length", data=data)

        assert await response.json() == {"bytes": 4 * BODY_BYTES_MAX}


async def test_a_body_that_says_it_is_too_long_is_refused_unread(client: Client) -> None:
    """413 by the Content-Length alone: the body is never sent."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")

    status_line = await asyncio.wait_for(reader.readline(), 5)

    writer.close()
    assert status_line.startswith(b"HTTP/1.1 413 ")


async def test_a_body_in_chunks_is_refused_past_the_limit(client: Client) -> None:
    """413 also for a body that never says its length."""
    body = b" " * (BODY_BYTES_MAX + 1)

    problem = await problem_of(await client.post("/echo", data=in_chunks(body)), 413)

    assert problem["type"] == "urn:holdfast:problem:too_large"


@pytest.mark.parametrize(("route", "limit"), [("/echo", BODY_BYTES_MAX), ("/length", 4 * BODY_BYTES_MAX)])
async def test_a_compressed_body_is_measured_unpacked(client: Client, route: str, limit: int) -> None:
    """A few bytes that unpack to megabytes are refused without unpacking them all."""
    packed = gzip.compress(b" " * 8_000_000)
    headers = {"Content-Encoding": "gzip"}

    response = await client.post(route, data=packed[:limit] + packed[limit:], headers=headers)

    await problem_of(response, 413)


async def test_a_compressed_body_within_the_limit_is_read(client: Client) -> None:
    """Compression itself is welcome."""
    packed = gzip.compress(b'{"lines": []}')

    response = await client.post("/echo", data=packed, headers={"Content-Encoding": "gzip"})

    assert await response.json() == {"lines": [], "at": None}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"this is no gzip"),
        ("gzip", gzip.compress(b'{"lines": []}', mtime=0)[:-12]),
        ("deflate", b"\xff\xff\xff"),
        ("deflate", zlib.compress(b'{"lines": []}')[:-6]),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_malformed(
    client: Client, encoding: str, body: bytes
) -> None:
    """400: what the client broke is not our fault."""
    response = await client.post("/echo", data=body, headers={"Content-Encoding": encoding})

    assert response.status == 400
