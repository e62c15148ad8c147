"""The admin client against a loopback server that answers well, badly and not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from forge.adapters.routers.envoy_admin import EnvoyAdmin, parse_response
from forge.model.errors import DependencyFailed


@pytest.fixture
async def admin(tmp_path) -> AsyncIterator[EnvoyAdmin]:
    answers = {
        "/ready": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLIVE\n",
        "/stats?filter=x": b'HTTP/1.1 200 OK\r\n\r\na.b: 7\nc.version_text: "3-abc"\nnothing\n',
        "/garbage": b"220 smtp ready\r\n\r\n",
        "/clusters?format=json": b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(CLUSTERS).encode(),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if target == "/silent":
            await asyncio.sleep(30)
        writer.write(answers.get(target, b""))
        await writer.drain()
        writer.close()

    path = tmp_path / "admin.sock"
    server = await asyncio.start_unix_server(serve, str(path))
    yield EnvoyAdmin(path, timeout=0.3)
    server.close()


CLUSTERS = {
    "cluster_statuses": [
        {
            "name": "v-1",
            "host_statuses": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9001}},
                    "stats": [{"name": "rq_active", "type": "GAUGE", "value": "2"}, {"name": "rq_error"}],
                    "health_status": {"eds_health_status": "DRAINING"},
                }
            ],
        },
        {"name": "v-2"},
    ]
}


async def test_it_reads_stats_hosts_and_readiness(admin) -> None:
    assert await admin.is_live()
    assert await admin.stats("x") == {"a.b": "7", "c.version_text": "3-abc"}
    hosts = await admin.hosts()
    assert (hosts["v-1"][9001].health, hosts["v-1"][9001].active) == ("DRAINING", 2)
    assert hosts["v-2"] == {}


@pytest.mark.parametrize(
    ("target", "words"), [("/silent", "did not answer within 0.3s"), ("/garbage", "HTTP"), ("/empty", "HTTP")]
)
async def test_a_proxy_that_does_not_answer_is_a_failed_dependency(admin, target, words) -> None:
    with pytest.raises(DependencyFailed, match=words):
        await admin.get(target)


async def test_a_proxy_that_is_not_there_is_not_live(tmp_path) -> None:
    assert not await EnvoyAdmin(tmp_path / "none.sock").is_live()


def test_a_chunked_body_is_put_together_and_a_cut_one_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert parse_response(head + b"4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n") == "wikipedia"
    for cut in (b"4\r\nwi", b"4\r\nwiki\r\n"):
        with pytest.raises(ValueError, match="cut off"):
            parse_response(head + cut)
