"""Archives: the same bytes for the same content; nothing escapes; bombs are stopped."""

from __future__ import annotations

import gzip
import io
import os
import resource
import signal
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.archives import Limits, UnsafeArchive, pack, pack_folder, tree, unpack


def entry(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target), b""


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target), b""


def plain(name: str, content: bytes = b"x", **fields) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, **fields), content


def contents(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


@pytest.fixture
def box(tmp_path: Path):
    """A folder to unpack into, with something beside it that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "treasure").write_text("untouched")
    into = tmp_path / "box"
    yield into
    assert contents(tmp_path / "outside") == {"treasure": (b"untouched", False)}


HOSTILE = {
    "absolute": [plain("/tmp/forge-escape")],
    "dots": [plain("../outside/treasure")],
    "dots inside": [plain("a/../../outside/treasure")],
    "dots in a folder": [(entry("../new", type=tarfile.DIRTYPE), b"")],
    "absolute link": [symlink("a", "/etc/passwd")],
    "link out": [symlink("a", "../outside")],
    "link out from deep": [symlink("a/b", "../../outside")],
    "link through a link": [symlink("d/e", "."), symlink("f", "d/e/../../outside")],
    "file through a link": [symlink("a", "../outside"), plain("a/treasure")],
    "file through an inner link": [symlink("a", "b"), plain("a/x"), plain("b/x")],
    "link over a folder of the archive": [plain("a/x"), symlink("a", "b")],
    "hard link out": [hardlink("a", "../outside/treasure")],
    "hard link absolute": [hardlink("a", "/etc/passwd")],
    "hard link to what is not there": [hardlink("a", "b")],
    "hard link to a link": [symlink("a", "b"), hardlink("c", "a")],
    "device": [(entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b"")],
    "block device": [(entry("disk", type=tarfile.BLKTYPE, devmajor=8), b"")],
    "pipe": [(entry("pipe", type=tarfile.FIFOTYPE), b"")],
    "empty name": [plain(".")],
    "file over a folder": [plain("a/x"), plain("a")],
    "folder over a file": [plain("a"), plain("a/x")],
    "link to nothing": [symlink("a", "")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_tars_are_refused(tmp_path, box, members):
    archive = make_tar(tmp_path / "evil.tar.gz", *members)
    with pytest.raises(UnsafeArchive):
        unpack(archive, box)
    assert not Path("/tmp/forge-escape").exists()
    for path in box.rglob("*") if box.exists() else ():
        assert path.resolve().is_relative_to(box.resolve())


def test_links_that_were_there_before_are_not_followed(tmp_path, box):
    box.mkdir()
    (box / "way").symlink_to(tmp_path / "outside")
    (box / "treasure").symlink_to(tmp_path / "outside" / "treasure")
    with pytest.raises(UnsafeArchive, match="`way` is a folder in the archive and something else on the disk"):
        unpack(make_tar(tmp_path / "one.tar.gz", plain("way/treasure")), box)
    unpack(make_tar(tmp_path / "two.tar.gz", plain("treasure", b"new")), box)
    assert (box / "treasure").read_bytes() == b"new"
    assert not (box / "treasure").is_symlink()


def test_setuid_owners_and_times_are_not_taken_over(tmp_path, box):
    archive = make_tar(
        tmp_path / "a.tar",
        plain("tool", mode=0o6777, uid=12345, gid=12345, mtime=1),
        (entry("locked", type=tarfile.DIRTYPE, mode=0o000), b""),
        plain("locked/x", mode=0o000),
        mode="w",
    )
    unpack(archive, box)
    status = (box / "tool").stat()
    assert stat.S_IMODE(status.st_mode) & 0o7022 == 0
    assert status.st_mode & 0o100
    assert status.st_uid == os.getuid()
    assert status.st_mtime > 1_000_000_000
    assert stat.S_IMODE((box / "locked").stat().st_mode) & 0o700 == 0o700
    assert stat.S_IMODE((box / "locked" / "x").stat().st_mode) & 0o600 == 0o600


def test_good_links_work(tmp_path, box):
    archive = make_tar(
        tmp_path / "a.tar.xz",
        plain("lib/one.so.1", b"code", mode=0o755),
        symlink("lib/one.so", "one.so.1"),
        symlink("bin/deep/up", "../../lib"),
        hardlink("lib/same", "lib/one.so.1"),
        symlink("dangling", "not/there"),
        mode="w:xz",
    )
    unpack(archive, box)
    assert (box / "bin/deep/up/one.so").read_bytes() == b"code"
    assert contents(box)["lib/same"] == (b"code", True)
    assert contents(box)["dangling"] == "-> not/there"


def test_a_later_member_of_the_same_name_wins(tmp_path, box):
    unpack(make_tar(tmp_path / "a.tar", plain("x", b"1"), plain("./x", b"2"), mode="w"), box)
    assert contents(box) == {"x": (b"2", False)}


def test_zips_are_unpacked_with_their_executables_and_links(tmp_path, box):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("folder/", "")
        packed.writestr("folder/text", "hello")
        tool = zipfile.ZipInfo("tool")
        tool.external_attr = 0o100755 << 16
        packed.writestr(tool, "#!/bin/sh")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "folder/text")
    unpack(archive, box)
    assert contents(box) == {
        "folder": "folder",
        "folder/text": (b"hello", False),
        "tool": (b"#!/bin/sh", True),
        "link": "-> folder/text",
    }


@pytest.mark.parametrize("name", ["/tmp/forge-escape", "../outside/treasure", "a/../../outside/treasure"])
def test_hostile_zip_names_are_refused(tmp_path, box, name):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(name, "evil")
    with pytest.raises(UnsafeArchive, match="would be written outside of its folder"):
        unpack(archive, box)


def test_a_zip_link_that_leads_out_is_refused(tmp_path, box):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "../outside")
    with pytest.raises(UnsafeArchive, match="leads out of the folder"):
        unpack(archive, box)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_bomb_stops_at_the_limit(tmp_path, box, kind):
    archive = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("zeros", b"\0" * 30_000_000)
    else:
        make_tar(archive, plain("zeros", b"\0" * 30_000_000))
    assert archive.stat().st_size < 100_000
    with pytest.raises(UnsafeArchive, match=r"expands to more than 5\.0 MB"):
        unpack(archive, box, Limits(size=5_000_000))
    assert (box / "zeros").stat().st_size <= 5_000_000


def test_too_many_members_are_refused(tmp_path, box):
    archive = make_tar(tmp_path / "many.tar", *(plain(f"f{n}", b"") for n in range(20)), mode="w")
    with pytest.raises(UnsafeArchive, match="more than 10 members"):
        unpack(archive, box, Limits(members=10))


def test_hard_links_count_as_what_they_expand_to(tmp_path, box):
    archive = make_tar(
        tmp_path / "links.tar.gz", plain("a", b"\0" * 1_000_000), *(hardlink(f"l{n}", "a") for n in range(20))
    )
    with pytest.raises(UnsafeArchive, match="expands to more than"):
        unpack(archive, box, Limits(size=5_000_000))


@pytest.mark.parametrize(
    "content", [b"", b"no archive at all", b"\x1f\x8b\x08\0broken", b"PK\x03\x04 broken zip PK\x05\x06"]
)
def test_what_is_no_archive_is_told(tmp_path, box, content):
    archive = tmp_path / "odd.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(UnsafeArchive, match=r"odd\.tar\.gz is not an archive that can be read"):
        unpack(archive, box)


def test_an_archive_that_was_cut_off_is_refused(tmp_path, box):
    archive = make_tar(tmp_path / "a.tar.gz", plain("x", os.urandom(100_000)))
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(UnsafeArchive):
        unpack(archive, box)


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz", "w:gz"])
def test_a_compressed_archive_that_is_broken_in_the_middle_is_refused(tmp_path, box, mode):
    archive = make_tar(tmp_path / "a.tar", plain("x", os.urandom(200_000)), mode=mode)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 100] = b"\xff" * 100
    archive.write_bytes(bytes(data))
    with pytest.raises(UnsafeArchive):
        unpack(archive, box)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_is_a_bomb_is_not_read(tmp_path, box, kind):
    """A few kilobytes that would become hundreds of megabytes of memory before any file is written."""
    archive = tmp_path / "bomb.tar.gz"
    header = entry("header", type=kind, size=100_000_000)
    with gzip.open(archive, "wb") as raw:
        raw.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(100):
            raw.write(b"\0" * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeArchive, match=r"a header of 100\.0 MB"):
            unpack(archive, box)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_long_names_that_are_meant_are_fine(tmp_path, box):
    name = "/".join(["a" * 200] * 10)
    unpack(make_tar(tmp_path / "a.tar", plain(name, b"deep"), mode="w"), box)
    assert (box / name).read_bytes() == b"deep"


def test_a_name_that_the_disk_does_not_take_is_the_archives_fault(tmp_path, box):
    with pytest.raises(UnsafeArchive, match="cannot be written: File name too long"):
        unpack(make_tar(tmp_path / "a.tar", plain("a" * 300), mode="w"), box)


def test_a_full_disk_is_not_the_archives_fault(tmp_path, box):
    archive = make_tar(tmp_path / "a.tar", plain("x", b"x" * 3_000_000), mode="w")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            unpack(archive, box)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_an_encrypted_zip_is_refused(tmp_path, box):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("x", "y")
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(UnsafeArchive, match="`x` is encrypted"):
        unpack(archive, box)


@given(
    st.dictionaries(
        st.text("abc./ ü", min_size=1, max_size=12),
        st.sampled_from(["file", "link", "folder", "hard"]),
        max_size=8,
    ),
    st.lists(st.text("abc./", min_size=1, max_size=10), min_size=8, max_size=8),
)
def test_whatever_is_in_it_nothing_gets_out(tmp_path_factory, members, targets):
    home = tmp_path_factory.mktemp("home")
    (home / "beside").write_text("untouched")
    made = []
    for (name, kind), target in zip(members.items(), targets, strict=False):
        if kind == "file":
            made.append(plain(name))
        elif kind == "link":
            made.append(symlink(name, target))
        elif kind == "hard":
            made.append(hardlink(name, target))
        else:
            made.append((entry(name, type=tarfile.DIRTYPE), b""))
    box = home / "box"
    try:
        unpack(make_tar(home / "a.tar", *made, mode="w"), box)
    except UnsafeArchive:
        pass
    assert {path.name for path in home.iterdir()} == {"beside", "a.tar", "box"}
    assert (home / "beside").read_text() == "untouched"
    for path in box.rglob("*"):
        try:
            assert path.resolve().is_relative_to(box.resolve())
        except RuntimeError:  # links in a circle lead nowhere
            pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "empty").mkdir(parents=True)
    (root / "sub").mkdir()
    (root / "sub" / "tool").write_text("#!/bin/sh\n")
    (root / "sub" / "tool").chmod(0o750)
    (root / "ünïcode name").write_bytes(b"\0\1")
    (root / "link").symlink_to("sub/tool")
    return root


def test_a_folder_comes_back_as_it_was(tmp_path, folder):
    pack_folder(folder, tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)


def test_the_same_content_packs_to_the_same_bytes(tmp_path, folder):
    pack_folder(folder, tmp_path / "one.tar.gz")
    os.utime(folder / "sub" / "tool", (1, 1))
    (folder / "sub" / "tool").chmod(0o700)
    (folder / "passing").touch()
    (folder / "passing").unlink()
    pack_folder(folder, tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    (folder / "sub" / "tool").chmod(0o600)
    pack_folder(folder, tmp_path / "three.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() != (tmp_path / "three.tar.gz").read_bytes()


def test_the_order_of_names_does_not_matter(tmp_path, folder):
    names = ["sub/tool", "sub", "ünïcode name"]
    pack(folder, names, tmp_path / "one.tar.gz")
    pack(folder, [*reversed(names), "sub"], tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_pipes_and_sockets_are_left_out(tmp_path, folder):
    os.mkfifo(folder / "pipe")
    pack_folder(folder, tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "back")
    assert "pipe" not in contents(tmp_path / "back")


def test_a_tree_names_what_is_there(folder):
    assert sorted(tree(folder, "sub")) == ["sub", "sub/tool"]
    assert list(tree(folder, "link")) == ["link"]
    assert list(tree(folder, "nothing")) == []


def test_our_own_archives_may_hold_any_link(tmp_path, folder):
    (folder / "python").symlink_to("/usr/bin/python3")
    pack_folder(folder, tmp_path / "a.tar.gz")
    with pytest.raises(UnsafeArchive):
        unpack(tmp_path / "a.tar.gz", tmp_path / "strict")
    unpack(tmp_path / "a.tar.gz", tmp_path / "back", any_links=True)
    assert contents(tmp_path / "back")["python"] == "-> /usr/bin/python3"
