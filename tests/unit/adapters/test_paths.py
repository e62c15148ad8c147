"""Paths stay inside the folder that they belong to."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.paths import empty, inside, member, near_names, stays_inside
from forge.model.errors import UsageError


@pytest.mark.parametrize("relative", [".", "a", "a/b", "a/../b", "./a/./b/", "a/..", "new/../a"])
def test_inside(tmp_path, relative):
    (tmp_path / "a").mkdir()
    assert inside(tmp_path, relative).is_relative_to(tmp_path)


@pytest.mark.parametrize("relative", ["..", "../x", "/etc/passwd", "a/../../x", "out", "out/x", "/", "a\0b"])
def test_outside(tmp_path, relative):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to("/etc")
    with pytest.raises(UsageError):
        inside(tmp_path / "root", relative)


def test_a_root_behind_a_link_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    assert inside(tmp_path / "root", "x") == tmp_path / "root" / "x"


@pytest.mark.parametrize(
    ("link", "target", "stays"),
    [
        ("a", "b", True),
        ("a", "..", False),
        ("a/b", "..", True),
        ("a/b", "../c", True),
        ("a/b", "../../c", False),
        ("a/b/c", "../../d", True),
        ("a", "/b", False),
        ("a", "b/../c", False),
        ("a", "./b", True),
        ("a", "b\0", False),
    ],
)
def test_links(link, target, stays):
    assert stays_inside(PurePosixPath(link), target) is stays


@given(st.text("ab./", max_size=12))
def test_members_are_relative_and_never_go_up(name):
    path = member(name)
    assert (path is None) == (name.startswith("/") or ".." in name.split("/"))


def test_near_names(tmp_path):
    for name in ("dist/app.tar.gz", "report.xml", ".git/app.tar.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert near_names(tmp_path, "app.tar.gz") == "there is `dist/app.tar.gz`"
    assert near_names(tmp_path, "reports.xml") == "did you mean `report.xml`?"
    assert near_names(tmp_path, "something-else-altogether") == ""


def test_emptying_makes_a_folder_and_follows_no_link(tmp_path):
    empty(tmp_path / "new" / "folder")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "new" / "folder" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "new" / "folder" / "sub").mkdir()
    (tmp_path / "new" / "folder" / "sub" / "link").symlink_to(tmp_path / "precious")
    empty(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    assert (tmp_path / "precious" / "file").exists()
