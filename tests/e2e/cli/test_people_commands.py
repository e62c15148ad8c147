"""`forge user` and `forge token`, as an operator types them beside a server, and at the server itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.running import Server, make_project


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make_project(tmp_path / "shop")


def forge(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "forge", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_user_with_a_token_does_what_his_role_lets_him(shop: Path) -> None:
    forge(shop, "user", "add", "ann", "--role", "viewer", "--in", "shop")
    secret = forge(shop, "token", "add", "ann", "--label", "laptop", "--days", "1").stdout.strip()
    assert secret.startswith("forge_")
    (user,) = json.loads(forge(shop, "user", "list", "-o", "json").stdout)
    assert user["name"] == "ann"
    listed = forge(shop, "token", "list")
    assert "laptop" in listed.stdout
    assert secret not in listed.stdout
    server = Server(shop)
    try:
        with server.client(secret) as ann:
            assert ann.get("/api/v1/projects/shop/runs").status_code == 200
            assert ann.post("/api/v1/projects/shop/runs", json={}).status_code == 403
            forge(shop, "user", "add", "ann", "--role", "runner", "--in", "shop")
            assert ann.post("/api/v1/projects/shop/runs", json={}).status_code == 201
            forge(shop, "user", "disable", "ann")
            assert ann.get("/api/v1/me").status_code == 401
            forge(shop, "user", "enable", "ann")
            assert ann.get("/api/v1/me").status_code == 200
            (token,) = [one["id"] for one in json.loads(forge(shop, "token", "list", "-o", "json").stdout)]
            forge(shop, "token", "revoke", token)
            assert ann.get("/api/v1/me").status_code == 401
        with server.client() as admin:
            acts = [one["event"]["kind"] for one in admin.get("/api/v1/audit").json()["items"]]
            assert {"granted", "token_made", "token_revoked", "user"} <= set(acts)
            assert admin.get("/api/v1/audit/verify").json() == {"first_wrong": None}
    finally:
        server.stop()


def test_what_is_not_known_is_an_error_with_a_hint(shop: Path) -> None:
    assert "forge user add bob" in forge(shop, "token", "add", "bob", code=2).stderr
    forge(shop, "user", "add", "bob")
    assert "did you mean `bob`" in forge(shop, "token", "add", "bab", code=2).stderr
    assert "admin" in forge(shop, "user", "add", "bob", "--role", "admni", code=2).stderr
    assert "there is no token" in forge(shop, "token", "revoke", "tok-none", code=2).stderr
