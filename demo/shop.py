"""The demo's copy of the sample service, and the changes that its developers make to it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "shop"
GIT = ("git", "-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")


class Shop:
    """A working copy in a folder of its own, under git where there is git."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._git = shutil.which("git") is not None

    def begin(self) -> None:
        """Make a fresh copy."""
        shutil.rmtree(self.folder, ignore_errors=True)
        leave_out = shutil.ignore_patterns(".forge", "__pycache__", "myapp.tar.gz")
        shutil.copytree(EXAMPLE, self.folder, ignore=leave_out)
        if self._git:
            self._call("init", "--quiet", "--initial-branch=main")
            self._commit("Open the shop")

    def add_a_product(self, version: str) -> None:
        """Make a good change."""
        self._replace("shop/catalogue.py", r'"anvil": 89.00', '"anvil": 89.00, "bellows": 57.90')
        self._replace("shop.toml", r'version = ".*"', f'version = "{version}"')
        self._commit("Sell bellows")

    def make_it_fail(self, version: str, share: float) -> None:
        """Make a bad change that the tests do not find: it fails only after a while, under real traffic."""
        self._replace("shop.toml", r"fault_rate = .*", f"fault_rate = {share}")
        self._replace("shop.toml", r"fault_after = .*", "fault_after = 20")
        self._replace("shop.toml", r'version = ".*"', f'version = "{version}"')
        self._commit("Look prices up faster")

    def _replace(self, file: str, pattern: str, new: str) -> None:
        path = self.folder / file
        text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"), count=1)
        if count != 1:
            raise RuntimeError(f"{file} has no {pattern!r}; the example and the demo have grown apart")
        path.write_text(text, encoding="utf-8")

    def _commit(self, message: str) -> None:
        if self._git:
            self._call("add", "--all")
            self._call("commit", "--quiet", "--message", message)

    def _call(self, *arguments: str) -> None:
        subprocess.run([*GIT, *arguments], cwd=self.folder, check=True, stdin=subprocess.DEVNULL)
