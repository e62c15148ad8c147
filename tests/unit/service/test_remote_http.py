"""What a client makes of what a server answers, and of one that does not."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx2
import msgspec
import pytest
import stamina
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from forge.model.decision import Event
from forge.model.errors import (
    CorruptData,
    DependencyFailed,
    InvalidConfiguration,
    NotAllowed,
    Rejected,
    StillRunning,
    UsageError,
)
from forge.service import remote_records
from forge.service.base import Accepted
from forge.service.remote import RemoteService, choose_project, who
from forge.service.remote_http import ATTEMPTS, Api, check_server, segment
from forge.store.contract import StoredEvent

SERVER = "https://forge.example.org"


@pytest.fixture(autouse=True)
def hurry():
    """Try again at once."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def api(answer: Callable[[httpx2.Request], httpx2.Response], token: str = "forge_secret") -> Api:
    return Api(SERVER, token, transport=httpx2.MockTransport(answer))


def service(answer: Callable[[httpx2.Request], httpx2.Response]) -> RemoteService:
    return RemoteService(api(answer), "shop")


def problem(status: int, **members: object) -> httpx2.Response:
    return httpx2.Response(status, json=members, headers={"content-type": "application/problem+json"})


class Answers:
    """Gives one answer after another, the last for ever; remembers what it was asked."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "members", "raised"),
        [
            (400, {}, UsageError), (404, {}, UsageError), (409, {}, UsageError), (413, {}, UsageError),
            (401, {}, NotAllowed), (403, {}, NotAllowed), (403, {"kind": "rejected"}, Rejected),
            (422, {}, UsageError), (500, {}, DependencyFailed), (503, {}, DependencyFailed), (504, {}, StillRunning),
            (429, {}, DependencyFailed), (502, {}, DependencyFailed),
        ],
    )  # fmt: skip
    async def test_a_problem_is_the_exception_that_it_was(self, status, members, raised):
        answers = Answers(problem(status, detail="no luck", hint="try harder", **members))
        with pytest.raises(raised, match="no luck") as told:
            await service(answers).runs.get("run-1")
        assert type(told.value) is raised
        assert told.value.hint == "try harder"

    async def test_diagnostics_come_with_their_lines(self):
        found = [{"code": "unknown", "message": "no `waht`", "file": "forge/pipeline.yaml", "line": 3, "column": 5}]
        with pytest.raises(InvalidConfiguration) as told:
            await service(Answers(problem(422, detail="1 problem", diagnostics=found))).runs.start({}, actor="ann")
        assert "forge/pipeline.yaml:3:5" in told.value.diagnostics[0].render()

    async def test_fields_that_do_not_fit_are_named(self):
        answers = Answers(problem(422, detail="does not fit", errors=[{"at": "query.limit", "message": "too large"}]))
        with pytest.raises(UsageError, match=r"query\.limit: too large"):
            await service(answers).runs.page()

    async def test_who_is_not_logged_in_is_told_how_to(self):
        with pytest.raises(NotAllowed) as told:
            await who(api(Answers(problem(401, detail="nobody"))))
        assert "forge login" in str(told.value.hint)

    async def test_something_that_is_no_forge_is_asked_about(self):
        for answer in (httpx2.Response(404, text="<html>nginx"), httpx2.Response(400, content=b"\xff")):
            with pytest.raises(UsageError, match="answered with 4") as told:
                await service(Answers(answer)).runs.get("run-1")
            assert "is there a Forge" in str(told.value.hint)
        with pytest.raises(DependencyFailed, match="understands"):
            await service(Answers(httpx2.Response(200, text="<html>welcome"))).runs.get("run-1")
        with pytest.raises(DependencyFailed, match="understands"):
            await service(Answers(httpx2.Response(200, json={"id": 7}))).runs.get("run-1")


class TestSafety:
    @pytest.mark.parametrize("place", ["https://elsewhere.example/", "http://forge.example.org/api", "/api/v2/me"])
    async def test_a_redirect_is_not_followed(self, place):
        answers = Answers(httpx2.Response(302, headers={"location": place}))
        with pytest.raises(UsageError, match="sends on to"):
            await who(api(answers))
        assert len(answers.asked) == 1

    @pytest.mark.parametrize(
        "server",
        ["forge.example.org", "ftp://forge.example.org", "https://", "http://forge.example.org", "https://a:b@forge.example.org",
         "https://forge.example.org?token=x", "https://forge.example.org#x", "https://[", ""],
    )  # fmt: skip
    def test_urls_that_are_none_or_would_tell_the_token_are_refused(self, server):
        with pytest.raises(UsageError):
            check_server(server)

    @pytest.mark.parametrize(
        ("given", "known"),
        [("https://forge.example.org/", SERVER), ("https://example.org/forge/", "https://example.org/forge"),
         ("http://127.0.0.1:8700", "http://127.0.0.1:8700"), ("http://localhost:1/", "http://localhost:1")],
    )  # fmt: skip
    def test_urls_of_servers(self, given, known):
        assert check_server(given) == known

    async def test_the_token_goes_in_the_header_only(self):
        answers = Answers(httpx2.Response(200, json={"name": "ann"}))
        assert await who(api(answers)) == "ann"
        assert answers.asked[0].headers["authorization"] == "Bearer forge_secret"
        assert "forge_secret" not in str(answers.asked[0].url)
        with pytest.raises(DependencyFailed) as told:
            await who(api(Answers(httpx2.ConnectError("refused"))))
        assert "forge_secret" not in f"{told.value} {told.value.hint}"

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
    def test_a_name_cannot_climb_out_of_its_path(self, name):
        with pytest.raises(UsageError):
            segment(name)

    def test_names_are_quoted(self):
        assert segment("test (3.11)?#%") == "test%20%283.11%29%3F%23%25"
        assert segment("dist/a b", safe="/") == "dist/a%20b"

    async def test_a_servers_words_do_not_steer_the_terminal(self):
        answers = Answers(problem(404, detail="no\x1b]0;evil\x07 run\x1b[2J", hint="a\x9b31m", errors=[]))
        with pytest.raises(UsageError) as told:
            await service(answers).runs.get("run-1")
        assert told.value.message.startswith("no\ufffd]0;evil")
        assert (told.value.message + str(told.value.hint)).isprintable()

    async def test_a_log_that_is_none_is_told(self):
        for headers in ({}, {"x-forge-log-offset": "x", "x-forge-log-size": "1", "x-forge-log-ended": "true"}):
            with pytest.raises(DependencyFailed, match="log"):
                await service(Answers(httpx2.Response(200, text="hello", headers=headers))).runs.log(
                    "run-1", "j", 1, "s"
                )


class TestTryingAgain:
    @pytest.mark.parametrize(
        "trouble", [problem(503, detail="away"), httpx2.ConnectError("no"), httpx2.ReadTimeout("no")]
    )
    async def test_a_short_absence_is_waited_for(self, trouble):
        answers = Answers(trouble, trouble, httpx2.Response(200, json={"name": "ann"}))
        assert await who(api(answers)) == "ann"
        assert len(answers.asked) == 3

    async def test_a_write_that_is_sent_again_has_the_same_key(self):
        accepted = {"machine": "run-1", "id": 4, "after": 9}
        answers = Answers(httpx2.ReadTimeout("no"), problem(502), httpx2.Response(202, json=accepted))
        got = await service(answers).runs.command("run-1", "cancel", {"comment": "x"}, actor="ann")
        assert got == Accepted("run-1", 4, 9)
        keys = {request.headers["idempotency-key"] for request in answers.asked}
        assert len(answers.asked) == 3
        assert len(keys) == 1
        assert len(keys.pop()) >= 16

    async def test_a_key_of_the_callers_is_sent(self):
        answers = Answers(httpx2.Response(202, json={"machine": "env-1", "id": 4, "after": 9}))
        await service(answers).environments.command("production", "pause", {"release": ""}, actor="ann", key="mine")
        (request,) = answers.asked
        assert request.headers["idempotency-key"] == "mine"
        assert (request.method, request.url.path) == ("POST", "/api/v1/projects/shop/environments/production/pause")
        assert msgspec.json.decode(request.content) == {}

    async def test_the_first_of_two_is_waited_for(self):
        busy = httpx2.Response(409, json={"detail": "under way"}, headers={"retry-after": "1"})
        answers = Answers(busy, httpx2.Response(202, json={"machine": "run-1", "id": 4, "after": 9}))
        assert (await service(answers).runs.command("run-1", "retry", {}, actor="ann")).id == 4

    async def test_what_is_wrong_for_good_is_asked_once(self):
        answers = Answers(problem(409, detail="over already"))
        with pytest.raises(UsageError):
            await service(answers).runs.command("run-1", "cancel", {}, actor="ann")
        assert len(answers.asked) == 1

    async def test_patience_ends(self):
        answers = Answers(httpx2.ConnectError("refused"))
        with pytest.raises(DependencyFailed, match="does not answer: refused"):
            await who(api(answers))
        assert len(answers.asked) == ATTEMPTS


class TestProjects:
    @pytest.mark.parametrize(
        ("names", "wanted", "chosen"),
        [(["shop"], "", "shop"), (["shop", "till"], "till", "till"), (["shop"], "shop", "shop")],
    )
    async def test_the_project_is_named_or_the_only_one(self, names, wanted, chosen):
        answers = Answers(httpx2.Response(200, json={"items": [{"name": name} for name in names], "next": ""}))
        assert await choose_project(api(answers), wanted) == chosen

    @pytest.mark.parametrize(
        ("names", "wanted", "told"),
        [([], "", "may see"), (["shop", "till"], "", "which project"), (["shop"], "shpo", "no project `shpo`")],
    )
    async def test_else_one_is_told_which_there_are(self, names, wanted, told):
        answers = Answers(httpx2.Response(200, json={"items": [{"name": name} for name in names], "next": ""}))
        with pytest.raises(UsageError, match=told) as raised:
            await choose_project(api(answers), wanted)
        assert all(name in str(raised.value.hint) for name in names)


class TestArtifacts:
    def answers(self, content: bytes, digest: str) -> Callable[[httpx2.Request], httpx2.Response]:
        row = {"name": "a b", "digest": digest, "size": 1, "run": "run-1", "job": "j", "created_at": 1.0}

        def answer(request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/artifacts"):
                return httpx2.Response(200, json={"items": [row], "next": ""})
            return httpx2.Response(200, content=content)

        return answer

    async def test_bytes_that_are_others_leave_nothing(self, tmp_path):
        there = tmp_path / "there"
        there.write_text("before")
        with pytest.raises(CorruptData):
            await service(self.answers(b"evil", "0" * 64)).runs.fetch("run-1", "a b", there)
        assert there.read_text() == "before"
        assert [path.name for path in tmp_path.iterdir()] == ["there"]

    async def test_the_right_ones_replace_the_file_at_once(self, tmp_path):
        digest = hashlib.sha256(b"good").hexdigest()
        assert await service(self.answers(b"good", digest)).runs.fetch("run-1", "a b", tmp_path / "x") == digest
        assert (tmp_path / "x").read_bytes() == b"good"
        with pytest.raises(UsageError):
            await service(self.answers(b"good", digest)).runs.fetch("run-1", "c", tmp_path / "x")


def message(seq: int) -> str:
    stored = StoredEvent(seq, "run-1", 1.0, Event("k", "m"), "", "")
    return f"id: {seq}\ndata: {msgspec.json.encode(stored).decode()}\n\n"


class TestFollowing:
    async def test_a_broken_stream_is_resumed_where_it_broke(self, monkeypatch):
        monkeypatch.setattr(remote_records, "RECONNECT", (0.0,))
        asked: list[str] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            asked.append(request.headers["last-event-id"])
            if len(asked) == 2:
                raise httpx2.ConnectError("away")
            first = int(asked[-1]) + 1
            text = "retry: 1000\n\n: still here\n\n" + message(first) + message(first + 1)
            return httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})

        seen = []
        async for stored in service(answer).records.follow("", after=5):
            seen.append(stored.seq)
            if len(seen) == 5:
                break
        assert seen == [6, 7, 8, 9, 10]
        assert asked == ["5", "7", "7", "9"]

    async def test_who_may_not_look_is_told_at_once(self):
        with pytest.raises(NotAllowed):
            async for _ in service(Answers(problem(403, detail="no"))).records.follow():
                pass

    async def test_a_server_that_stays_away_is_given_up(self, monkeypatch):
        monkeypatch.setattr(remote_records, "RECONNECT", (0.0,))
        monkeypatch.setattr(remote_records, "GIVE_UP", 0.05)
        with pytest.raises(DependencyFailed, match="does not answer"):
            async for _ in service(Answers(httpx2.ConnectError("gone"))).records.follow():
                pass

    @pytest.mark.parametrize(
        ("became", "refusal"),
        [({"state": "waiting"}, None), ({"state": "taken"}, ""), ({"state": "refused", "reason": "late"}, "late")],
    )
    async def test_what_became_of_a_command(self, became, refusal):
        answers = Answers(httpx2.Response(200, json=became))
        assert await service(answers).records.refusal(Accepted("run-1", 3, 7)) == refusal
        assert answers.asked[0].url.path == "/api/v1/projects/shop/commands/run-1/3"
        assert answers.asked[0].url.params["after"] == "7"


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "server.pem"))
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        evil = Api(f"https://127.0.0.1:{port}", "forge_secret")
        try:
            with pytest.raises(DependencyFailed, match=r"(?i)certificate"):
                await who(evil)
        finally:
            await evil.close()
    assert asked == []


def self_signed(path: Path) -> Path:
    """Write a key and a certificate of 127.0.0.1 that only its maker trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path
