"""Fetches one commit of a git repository, without trusting its address, and without showing a password."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from forge.adapters.paths import empty
from forge.adapters.runners.base import Finished, OutputSink
from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.private import private_file, process_key
from forge.model.configs import CheckoutConfig
from forge.model.errors import DependencyFailed, UsageError

_PROTOCOLS = "file:git:http:https:ssh"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_NOT_THERE = (b"couldn't find remote ref", b"not our ref", b"did not match any", b"unknown revision")
# git hands a URL on to its helpers in their arguments, so a password has to reach it by another way.
_CREDENTIALS = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$FORGE_GIT_USER" "$FORGE_GIT_PASSWORD"; }; f'
)


async def checkout(context: StepContext, config: CheckoutConfig, into: Path) -> StepResult:
    """Make `into` hold the repository at the ref. A ref that is not there is the work's failure; a repository
    that cannot be reached raises DependencyFailed; an address or ref that would be an option, UsageError."""
    url, credentials = split_credentials(_checked_address(config.repository))
    ref = _checked_ref(config.ref)
    clone = private_file(context, ".clone")
    shutil.rmtree(clone, ignore_errors=True)
    git = _Git(context, clone, url, credentials)
    try:
        missing = await git.fetch(ref)
        if missing:
            return StepResult("failed", f"{url} has no ref `{ref}`")
        commit = await git.take(submodules=config.submodules)
        empty(into)
        for entry in clone.iterdir():
            shutil.move(entry, into / entry.name)
    finally:
        shutil.rmtree(clone, ignore_errors=True)
    context.say(f"checked out {url} at {commit[:12]}" + (f" ({ref})" if ref != "HEAD" else ""))
    return StepResult("succeeded", outputs={"commit": commit, "ref": config.ref, "dirty": False})


def split_credentials(address: str) -> tuple[str, dict[str, str]]:
    """Return the address without its password, and the environment that gives it to git."""
    if "://" not in address:
        return address, {}
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or "@" not in parts.netloc:
        return address, {}
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), {
        "FORGE_GIT_USER": unquote(user),
        "FORGE_GIT_PASSWORD": unquote(password),
    }


def _checked_address(address: str) -> str:
    if address.startswith("-") or "::" in address.partition("/")[0] or any(c in address for c in "\0\n\r"):
        shown = split_credentials(address)[0]
        raise UsageError(f"`{shown}` is not the address of a git repository")
    return address


def _checked_ref(ref: str) -> str:
    if ref.startswith("-") or ":" in ref or any(c.isspace() or c in "\0^~?*[\\" for c in ref) or ".." in ref:
        raise UsageError(f"`{ref}` is not the name of a branch, a tag or a commit")
    return ref or "HEAD"


class _Tail(OutputSink):
    """Passes output on and keeps its end, to know what went wrong."""

    def __init__(self, onward: OutputSink) -> None:
        self._onward = onward
        self.end = b""

    def write(self, data: bytes) -> None:
        self._onward.write(data)
        self.end = (self.end + data)[-4096:]


class _Git:
    """Runs git in one fresh clone."""

    def __init__(self, context: StepContext, clone: Path, url: str, credentials: dict[str, str]) -> None:
        self._context = context
        self._clone = clone
        self._url = url
        self._head = "FETCH_HEAD"
        self._env = {
            **context.env,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
            "LC_ALL": "C",
            **_configuration({"remote.origin.url": url}, credentials),
            **credentials,
        }

    async def fetch(self, ref: str) -> bool:
        """Fetch one commit; tell whether the repository lacks it."""
        self._clone.mkdir(parents=True)
        await self._need("init", "-q", ".")
        finished, end = await self._git("fetch", "-q", "--no-tags", "--depth=1", "origin", ref)
        if finished.exit_code and _COMMIT.fullmatch(ref):
            # Not every server gives out single commits: fetch all, then look.
            finished, end = await self._git("fetch", "-q", "--no-tags", "origin", "+refs/*:refs/remotes/origin/*")
            if not finished.exit_code:
                self._head = ref
                known, _ = await self._git("rev-parse", "-q", "--verify", f"{ref}^{{commit}}")
                return known.exit_code != 0
        if not finished.exit_code:
            return False
        if any(words in end for words in _NOT_THERE):
            return True
        raise DependencyFailed(f"git could not fetch {self._url} ({_reason(end)})")

    async def take(self, *, submodules: bool) -> str:
        """Write the fetched commit's files; return its id."""
        await self._need("checkout", "-q", "--detach", self._head)
        if submodules:
            await self._need("submodule", "update", "-q", "--init", "--recursive", "--depth=1")
        head = _Capture()
        await self._run(("rev-parse", "HEAD"), head)
        return head.text.decode().strip()

    async def _need(self, *arguments: str) -> None:
        finished, end = await self._git(*arguments)
        if finished.exit_code:
            raise DependencyFailed(f"`git {arguments[0]}` failed for {self._url} ({_reason(end)})")

    async def _git(self, *arguments: str) -> tuple[Finished, bytes]:
        tail = _Tail(self._context.output)
        return await self._run(arguments, tail), tail.end

    async def _run(self, arguments: Sequence[str], output: OutputSink) -> Finished:
        key = process_key(self._context.run, self._context.key)
        safe = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false")
        return await self._context.runner.run(
            ["git", *safe, *arguments], key=key, cwd=self._clone, env=self._env, output=output
        )


class _Capture(OutputSink):
    """Keeps a little output."""

    def __init__(self) -> None:
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text = (self.text + data)[:4096]


def _configuration(settings: dict[str, str], credentials: dict[str, str]) -> dict[str, str]:
    """Return git configuration as environment variables."""
    if credentials:
        settings = {**settings, "credential.helper": _CREDENTIALS}
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = name
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def _reason(text: bytes) -> str:
    """Return the line of git's output that tells why; what follows it is advice."""
    lines = text.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    told = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (told or lines[-1:])[0]
