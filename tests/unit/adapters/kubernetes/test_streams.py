"""How a command in a container ended, from what the cluster says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import PERMISSIONS
from forge.adapters.kubernetes.streams import Executed, _executed, _inner, _receive, _refused, _send
from forge.model.configs import KubernetesAccess
from forge.model.errors import DependencyFailed


def status(**fields: Any) -> bytes:
    return json.dumps({"metadata": {}, **fields}).encode()


def failed(code: str) -> bytes:
    causes = [{"reason": "ExitCode", "message": code}]
    return status(status="Failure", reason="NonZeroExitCode", message=f"exit {code}", details={"causes": causes})


class Session:
    """Gives messages in order and keeps what is sent."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)
        self.sent: list[bytes] = []

    async def receive_bytes(self) -> bytes:
        return self.messages.pop(0)

    async def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)


def test_success_and_exit_codes() -> None:
    assert _executed(status(status="Success"), "", "run sh", "c") == Executed(0)
    assert _executed(failed("3"), "no tar", "run sh", "c") == Executed(3, "no tar")


@pytest.mark.parametrize("told", [status(status="Failure", message="container not found"), b"container not found"])
def test_what_could_not_be_started_is_an_error_of_the_cluster(told: bytes) -> None:
    with pytest.raises(DependencyFailed, match=r"c: run sh: container not found"):
        _executed(told, "", "run sh", "c")


async def test_channels_are_kept_apart_and_complaints_are_bounded() -> None:
    out: list[bytes] = []
    session = Session(b"\x01", b"", b"\x01one", b"\x02" + b"x" * 9000, b"\x01two", b"\x03" + failed("1"))
    done = await _receive(session, out.append, "run sh", "c")  # type: ignore[arg-type]
    assert out == [b"one", b"two"]
    assert (done.exit_code, len(done.complaint)) == (1, 4000)


async def test_standard_input_is_sent_in_its_channel() -> None:
    session = Session()
    await _send(session, iter([b"one", b"two"]))  # type: ignore[arg-type]
    assert session.sent == [b"\x00one", b"\x00two"]


def test_a_refusal_names_what_is_missing_and_where_it_is_told() -> None:
    cluster = Cluster(KubernetesAccess(context="prod"))
    refused = _refused(403, "/api/v1/namespaces/shop/pods/p/exec", "run sh in Pod p", cluster)
    assert refused.message == "prod: not allowed to get and create pods/exec in namespace shop"
    assert refused.hint == PERMISSIONS
    assert "HTTP 500" in _refused(500, "/x", "run sh in Pod p", cluster).message


def test_errors_come_out_of_groups_of_one() -> None:
    error = OSError("reset")
    assert _inner(BaseExceptionGroup("a", [BaseExceptionGroup("b", [error])])) is error
    several = BaseExceptionGroup("c", [error, ValueError()])
    assert _inner(several) is several
