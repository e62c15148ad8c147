"""The process of a server: where it listens, whom it refuses to let in, and its orderly end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import httpx2
import pytest

from forge.model.errors import UsageError
from forge.server.serving import Started, address, bind, refuse_open_house, serve, work
from forge.server.settings import Settings, read_settings
from forge.server.site import open_site
from serving.running import make_project


def settings_of(folder, **given) -> Settings:
    return read_settings(None, make_project(folder), environ={}, **given)


class TestListening:
    @pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")])
    def test_it_tells_where_it_is(self, tmp_path, host, shown):
        settings = settings_of(tmp_path, host=host, port=0)
        with bind(settings) as listening:
            port = listening.getsockname()[1]
            assert address(settings, listening) == f"http://{shown}:{port}"

    def test_all_addresses_are_told_by_the_name_of_the_machine(self, tmp_path):
        settings = settings_of(tmp_path, host="0.0.0.0", port=0)
        with bind(settings) as listening:
            assert address(settings, listening).startswith(f"http://{socket.gethostname()}:")

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    def test_an_address_that_is_not_ours_is_told(self, tmp_path, host):
        with pytest.raises(UsageError, match="cannot listen"):
            bind(settings_of(tmp_path, host=host, port=0))


class TestOpenHouse:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
    async def test_this_machine_is_fine(self, tmp_path, host):
        async with open_site(settings_of(tmp_path, host=host)) as site:
            await refuse_open_house(site)

    @pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "forge.example"])
    async def test_others_need_somebody_who_can_log_in(self, tmp_path, host):
        async with open_site(settings_of(tmp_path, host=host)) as site:
            with pytest.raises(UsageError, match="no authentication is configured"):
                await refuse_open_house(site)

    async def test_a_provider_that_cannot_be_asked_is_refused(self, tmp_path):
        oidc = {"issuer": "https://login.example.com", "client_id": "forge"}
        with pytest.raises(UsageError, match="cannot log anybody in by an OpenID provider"):
            async with open_site(settings_of(tmp_path, host="0.0.0.0", oidc=oidc)):
                pass

    async def test_with_a_user_they_are_let_in(self, tmp_path):
        async with open_site(settings_of(tmp_path, host="0.0.0.0")) as site:
            await site.identity.one_time_link()  # which makes the person of this machine a user
            await refuse_open_house(site)


class TestEnding:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    async def test_it_serves_until_it_is_told_to_end(self, tmp_path, how):
        started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(settings_of(tmp_path / "shop", port=0), started.set_result))
        told = await asyncio.wait_for(started, 20)
        assert (told.projects, told.works) == (("shop",), True)
        assert told.link.startswith(f"{told.url}/login?link=")
        async with httpx2.AsyncClient(base_url=told.url, trust_env=False) as client:
            assert (await client.get("/healthz")).status_code == 200
        os.kill(os.getpid(), how)
        await asyncio.wait_for(serving, 20)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(told.url.rpartition(":")[2]))) != 0

    async def test_an_address_for_people_is_what_links_begin_with(self, tmp_path):
        started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        settings = settings_of(tmp_path / "shop", port=0, public_url="https://forge.example.com/", work=False)
        serving = asyncio.create_task(serve(settings, started.set_result))
        told = await asyncio.wait_for(started, 20)
        assert told.url == "https://forge.example.com"
        assert told.link.startswith("https://forge.example.com/login?link=")
        assert not told.works
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 20)

    async def test_a_worker_works_until_it_is_told_to_end(self, tmp_path):
        settings = settings_of(tmp_path / "shop")
        started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        working = asyncio.create_task(work(settings, started.set_result))
        assert (await asyncio.wait_for(started, 20)).url == ""
        async with open_site(settings) as site:
            assert len(await site.workers.alive()) == 1
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(working, 20)
            assert await site.workers.alive() == []

    async def test_a_port_that_is_taken_leaves_nothing_open(self, tmp_path):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(UsageError, match="cannot listen"):
                await serve(settings_of(tmp_path, port=other.getsockname()[1]), lambda _: None)
