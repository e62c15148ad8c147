"""Tokens of servers: kept in a file that nobody else may read, tried before they are kept, never on a command line."""

from __future__ import annotations

import io
import json
import os
import stat

import pytest

from forge.cli import login
from forge.cli.main import run_command
from forge.cli.servers import keep_login, logins_file, read_logins, token_for
from forge.model.errors import NotAllowed, UsageError

URL = "https://forge.example.org"


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("FORGE_TOKEN", "FORGE_SERVER", "FORGE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config"


class TestKeeping:
    def test_only_its_owner_may_read_the_file(self, config):
        path = keep_login(URL, "forge_secret")
        assert path == config / "forge" / "servers.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [one.name for one in path.parent.iterdir()] == ["servers.json"]
        assert token_for(URL) == "forge_secret"

    def test_each_server_has_its_own_and_may_be_forgotten(self):
        keep_login(URL, "one")
        keep_login("https://other.example.org", "two")
        keep_login(URL, "three")
        assert token_for(URL) == "three"
        keep_login(URL, "")
        assert [*read_logins().servers] == ["https://other.example.org"]
        with pytest.raises(NotAllowed) as raised:
            token_for(URL)
        assert "forge login" in str(raised.value.hint)

    def test_the_environment_goes_before_the_file(self, monkeypatch):
        keep_login(URL, "kept")
        monkeypatch.setenv("FORGE_TOKEN", " given\n")
        assert token_for(URL) == "given"

    def test_a_file_that_others_may_read_is_not_used(self):
        path = keep_login(URL, "forge_secret")
        path.chmod(0o644)
        with pytest.raises(UsageError, match="others may read") as raised:
            token_for(URL)
        assert "chmod 600" in str(raised.value.hint)

    @pytest.mark.parametrize("text", ["", "no json", '{"servers": {"a": 7}}', "[]"])
    def test_a_file_that_is_none_of_ours_is_told(self, text):
        path = keep_login(URL, "forge_secret")
        path.write_text(text)
        with pytest.raises(UsageError, match="cannot be read"):
            read_logins()

    def test_without_a_configured_place_it_is_in_the_home(self, monkeypatch, tmp_path):
        for value in ("", "relative/path"):
            monkeypatch.setenv("XDG_CONFIG_HOME", value)
            monkeypatch.setenv("HOME", str(tmp_path))
            assert logins_file() == tmp_path / ".config" / "forge" / "servers.json"


class TestLoggingIn:
    @pytest.fixture(autouse=True)
    def site(self, monkeypatch):
        """A server that knows one token."""
        self.tried: list[tuple[str, str]] = []

        async def ask(server: str, token: str) -> str:
            self.tried.append((server, token))
            if token != "forge_good":
                raise NotAllowed("nobody has this token")
            return "ann"

        monkeypatch.setattr(login, "_ask_who", ask)

    def say(self, monkeypatch, text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    def test_a_token_from_stdin_is_tried_and_kept(self, monkeypatch, capsys):
        self.say(monkeypatch, "forge_good\nmore\n")
        assert run_command(["login", f"{URL}/"]) == 0
        assert self.tried == [(URL, "forge_good")]
        err = capsys.readouterr().err
        assert "as ann" in err
        assert f"export FORGE_SERVER={URL}" in err
        assert "forge_good" not in err
        assert json.loads(logins_file().read_text()) == {"servers": {URL: {"token": "forge_good"}}}

    def test_a_token_that_nobody_has_is_not_kept(self, monkeypatch):
        self.say(monkeypatch, "forge_bad\n")
        assert run_command(["login", URL]) == 4
        assert not logins_file().exists()

    @pytest.mark.parametrize("typed", ["", "\n", "fōrge\n", "a\tb\n"])
    def test_what_is_no_token_is_not_even_tried(self, monkeypatch, typed):
        self.say(monkeypatch, typed)
        assert run_command(["login", URL]) == 2
        assert self.tried == []

    def test_the_server_is_named_by_the_environment_too(self, monkeypatch, capsys):
        assert run_command(["login"]) == 2
        monkeypatch.setenv("FORGE_SERVER", URL)
        self.say(monkeypatch, "forge_good\n")
        assert run_command(["login"]) == 0
        assert "export" not in capsys.readouterr().err
        assert run_command(["whoami"]) == 0
        assert capsys.readouterr().out == "ann\n"
        assert run_command(["logout"]) == 0
        assert run_command(["logout"]) == 2
        assert run_command(["whoami"]) == 4

    def test_without_a_server_one_is_who_one_is_here(self, monkeypatch, capsys):
        monkeypatch.setenv("FORGE_ACTOR", "bea")
        assert run_command(["whoami"]) == 0
        assert capsys.readouterr().out == "bea\n"

    def test_a_url_that_would_tell_the_token_is_refused(self, monkeypatch):
        self.say(monkeypatch, "forge_good\n")
        assert run_command(["login", "http://forge.example.org"]) == 2
        assert self.tried == []

    def test_nobody_can_read_the_file_while_it_is_written(self, monkeypatch):
        modes = []
        real = os.open

        def opened(path, flags, mode=0o777):
            modes.append((flags & os.O_EXCL, mode))
            return real(path, flags, mode)

        monkeypatch.setattr("forge.cli.servers.os.open", opened)
        keep_login(URL, "forge_secret")
        assert modes == [(os.O_EXCL, 0o600)]
