"""Asking a store over HTTP, against real servers that fail in every way: errors in words, and never a secret."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from forge.adapters.signals import http as client_module
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.model.errors import DependencyFailed

SECRET = "s3cr3t-t0ken"
TLS = Path(__file__).parent / "tls"
"""`server.pem` (127.0.0.1) is signed by `ours.pem`, whose key exists no more; all of them are for these tests alone."""


class Seen(NamedTuple):
    path: str
    headers: dict
    body: bytes


class Server:
    """Answers each request with what `answer(handler)` does; keeps paths and headers."""

    def __init__(self, answer, context=None):
        self.seen = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.seen.append(Seen(self.path, dict(self.headers), body))
                with contextlib.suppress(ConnectionError):
                    answer(self)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def reply(status=200, body=b"{}", **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@contextlib.asynccontextmanager
async def asking(url, secret=SECRET, **config):
    async def secrets(name):
        assert name == "TOKEN"
        return secret

    client = StoreClient("metrics", HttpConfig(url, **config), secrets)
    try:
        yield client
    finally:
        await client.close()


async def failure(answer, secret=SECRET, **config):
    """Return the words of what goes wrong; they name the store, and no secret."""
    with Server(answer) as server:
        async with asking(f"http://{server.address}/base", secret, **config) as client:
            with pytest.raises(DependencyFailed) as failed:
                await client.json("GET", "/x")
        told = f"{failed.value.message} {failed.value.hint}"
        assert f"metrics at http://{server.address}" in told
        assert secret.strip() not in told
        return told


async def test_an_answer_is_decoded_and_the_request_is_what_was_asked():
    with Server(reply(body=b'{"a": [1]}')) as server:
        async with asking(f"http://{server.address}/base", bearer="TOKEN", headers={"X-Scope": "a"}) as client:
            assert await client.json("POST", "/x", form={"q": "a b"}) == {"a": [1]}
            assert await client.json("POST", "/y", body={"n": 1}) == {"a": [1]}
        first, second = server.seen
        assert (first.path, first.body, first.headers["X-Scope"]) == ("/base/x", b"q=a+b", "a")
        assert first.headers["Authorization"] == f"Bearer {SECRET}"
        assert (second.body, second.headers["Content-Type"]) == (b'{"n":1}', "application/json")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"ouch", "answered 500: ouch"),
        (503, b"", "answered 503: (nothing)"),
        (400, b'{"error":"parse error"}', "parse error"),
        (401, b"no", r"refused (401): no check its credentials"),
        (403, b"no", r"refused (403)"),
        (404, b"x" * 5000, "answered 404: " + "x" * 200 + "…"),
        (200, b"<html>log in</html>", "something that is not JSON (text/x): <html>log in</html>"),
        (200, b'{"a": [1, 2', "not JSON"),
        (200, b'{"a": NaN}', "not JSON"),
        (200, b"", "not JSON (text/x): (nothing)"),
        (200, b"[" * 200_000, "not JSON"),
        (200, b"\xff\xfe\x00", "not JSON"),
    ],
)
async def test_what_is_no_answer_is_told_in_words(status, body, words):
    assert words in await failure(reply(status, body, Content_Type="text/x"))


async def test_being_asked_too_often():
    assert "asked too often (429), again in 7 s" in await failure(reply(429, Retry_After="7"))


@pytest.mark.parametrize("kind", ["bearer", "user", "header"])
async def test_a_store_that_repeats_its_credentials_is_not_quoted(kind):
    config = {
        "bearer": {"bearer": "TOKEN"},
        "user": {"user": "me", "password": "TOKEN"},
        "header": {"secret_headers": {"X-Key": "TOKEN"}},
    }[kind]

    def echo(handler):
        sent = handler.headers.get("Authorization") or handler.headers.get("X-Key")
        reply(403, f"wrong: {sent}, {SECRET}".encode())(handler)

    told = await failure(echo, **config)
    assert "wrong: " in told
    assert "***" in told
    assert "czNjcjN0" not in told


async def test_the_line_end_of_a_secret_file_is_no_part_of_it():
    with Server(reply()) as server:
        async with asking(f"http://{server.address}", SECRET + "\n", bearer="TOKEN") as client:
            await client.json("GET", "/")
        assert server.seen[0].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("secret", ["in\ntwo lines", "süß"])
async def test_a_secret_that_no_header_can_carry_is_not_shown(secret):
    assert "cannot be asked" in await failure(reply(), secret, bearer="TOKEN")


async def test_after_a_refusal_the_secret_is_fetched_again():
    values = iter(["old", "new"])

    async def secrets(_):
        return next(values)

    def answer(handler):
        reply(200 if handler.headers["Authorization"] == "Bearer new" else 401)(handler)

    with Server(answer) as server:
        client = StoreClient("metrics", HttpConfig(f"http://{server.address}", bearer="TOKEN"), secrets)
        with pytest.raises(DependencyFailed, match="refused"):
            await client.json("GET", "/")
        assert await client.json("GET", "/") == {}
        await client.close()


async def test_silence_ends_after_the_time_that_was_given():
    done = threading.Event()
    assert "no whole answer within 0.2 s" in await failure(lambda _: done.wait(5), timeout=0.2)
    done.set()


async def test_drops_that_never_end_are_cut_off_too():
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            if done.wait(0.02):
                return

    done = threading.Event()
    assert "no whole answer within 0.3 s" in await failure(drip, timeout=0.3)
    done.set()


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_that_never_ends_is_not_kept(monkeypatch, packed):
    monkeypatch.setattr(client_module, "LARGEST_ANSWER", 1024 * 1024)
    import gzip

    body = gzip.compress(b"x" * 20_000_000) if packed else b"x" * 3_000_000
    headers = {"Content_Encoding": "gzip"} if packed else {}
    assert "answered more than 1 MB" in await failure(reply(200, body, **headers))


async def test_an_answer_that_breaks_off():
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"a":')
        handler.close_connection = True

    assert "cannot be asked" in await failure(half)


async def test_nobody_listens_and_no_such_host():
    for url in ("http://127.0.0.1:1", "http://nowhere.invalid"):
        async with asking(url) as client:
            with pytest.raises(DependencyFailed, match=f"metrics at {url} cannot be asked"):
                await client.json("GET", "/")


# --- redirects


async def test_a_redirect_on_the_same_host_is_followed_and_one_without_end_is_not():
    def answer(handler):
        if handler.path == "/base/x":
            reply(307, Location="/elsewhere")(handler)
        else:
            reply(body=b"[1]")(handler)

    with Server(answer) as server:
        async with asking(f"http://{server.address}/base") as client:
            assert await client.json("GET", "/x") == [1]
    assert "redirects more than 3 times" in await failure(reply(302, Location="/base/x"))


@pytest.mark.parametrize("place", ["http://127.0.0.2:9/", "//127.0.0.2:9/", "https://127.0.0.1/", "file:///etc/passwd"])
async def test_credentials_are_never_taken_to_another_host(place):
    told = await failure(reply(302, Location=place), bearer="TOKEN")
    assert "redirects to another host" in told
    assert "not followed" in told


async def test_another_port_is_another_host():
    with Server(reply()) as other:
        await failure(reply(302, Location=f"http://{other.address}/"), bearer="TOKEN")
        assert other.seen == []


# --- TLS


async def test_only_the_authority_that_is_named_is_trusted():
    ours, theirs = TLS / "ours.pem", TLS / "theirs.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    with Server(reply(), context) as server:
        url = f"https://{server.address}"
        async with asking(url, ca_file=str(ours), bearer="TOKEN") as client:
            assert await client.json("GET", "/") == {}
        for wrong in (str(theirs), ""):
            async with asking(url, ca_file=wrong, bearer="TOKEN") as client:
                with pytest.raises(DependencyFailed, match=r"(?i)certificate"):
                    await client.json("GET", "/")
        assert len(server.seen) == 1


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_file_of_authorities_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    async with asking("https://127.0.0.1:1", ca_file=str(file)) as client:
        with pytest.raises(DependencyFailed, match=r"`ca_file` .*ca\.pem"):
            await client.json("GET", "/")
