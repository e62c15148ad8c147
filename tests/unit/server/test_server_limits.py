"""Requests that are too long."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from serving.inside import asked
from serving.running import make_project

KEYS = [{}, {"idempotency-key": "k"}]


@pytest.fixture
async def site(tmp_path):
    async with asked(make_project(tmp_path / "shop"), max_body_bytes=2000) as opened:
        yield opened


def check(answer) -> None:
    assert answer.status_code == 413, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "2,000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("headers", KEYS)
async def test_a_body_that_says_that_it_is_too_long_is_refused(site, headers):
    check(await site.post("/runs", {"ref": "x" * 2000}, headers=headers))


@pytest.mark.parametrize("headers", KEYS)
async def test_a_body_that_does_not_say_it_is_refused_too(site, headers):
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"ref": "'
        for _ in range(30):
            yield b"x" * 100
        yield b'"}'

    headers = {**headers, "content-type": "application/json"}
    check(await site.client.post("/api/v1/projects/shop/runs", content=parts(), headers=headers))


@pytest.mark.parametrize("headers", KEYS)
async def test_one_that_fits_is_read(site, headers):
    body = {"parameters": {}, "ref": ""}
    assert (await site.post("/runs", body, headers=headers)).status_code == 201


async def test_a_length_that_is_no_number_harms_nobody(site):
    answer = await site.client.post(
        "/api/v1/projects/shop/runs",
        content=b"{}",
        headers={"content-length": "9" * 30, "content-type": "application/json"},
    )
    assert answer.status_code == 413
