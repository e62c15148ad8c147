"""Packs folders, the same bytes for the same content, and unpacks archives that nobody has to trust."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from forge.adapters.paths import member, stays_inside
from forge.model.errors import ForgeError
from forge.model.units import format_size

_SLICE = 1 << 20
_LARGEST_HEADER = 1 << 20
_ITS_OWN_FAULT = {
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.EILSEQ,
}
"""What the disk says of an archive's names; everything else that it says is about the disk."""


class UnsafeArchive(ForgeError):
    """The archive is damaged, too large, or would write outside of its folder. Whoever made it is to blame."""


class Limits(msgspec.Struct, frozen=True):
    """What an archive may expand to, counted while it is unpacked; what it claims of itself is not believed."""

    members: int = 500_000
    size: int = 20 * 1024**3


DEFAULT_LIMITS = Limits()


def pack(folder: Path, names: Iterable[str], archive: Path, *, level: int = 6) -> None:
    """Write `names`, relative to `folder`, to a tar.gz whose bytes depend on names, contents, links and
    executable bits alone. Sockets, pipes and devices are left out. Raises OSError."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", level, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(set(names)):
            _add(tar, folder / name, name)


def pack_folder(folder: Path, archive: Path) -> None:
    """Write everything below `folder`, empty folders too, to a tar.gz. Raises OSError."""
    pack(folder, _below(folder, ""), archive)


def foreign_link(folder: Path) -> str | None:
    """Return the first symbolic link below `folder` that `unpack` would refuse, or None."""
    for name in sorted(_below(folder, "")):
        path = folder / name
        if path.is_symlink() and not stays_inside(PurePosixPath(name), str(path.readlink())):
            return name
    return None


def unpack(archive: Path, into: Path, limits: Limits = DEFAULT_LIMITS, *, any_links: bool = False) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip into the folder `into`, which is made if missing.

    Nothing is written outside of `into`, also not through links that were there before. Devices, absolute
    names, `..` and links that lead outside are refused; owners, setuid bits and times are not taken over.
    `any_links` accepts links to anywhere (never followed while unpacking), for an archive of our own making.
    Raises UnsafeArchive; `into` may then hold a part.
    """
    into.mkdir(parents=True, exist_ok=True)
    writer = _Writer(into, limits, any_links=any_links)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _unpack_zip(packed, writer)
        else:
            with tarfile.open(archive, "r:*", tarinfo=_BoundedHeader) as tar:
                _unpack_tar(tar, writer)
        writer.make_links()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise UnsafeArchive(f"{archive.name} is not an archive that can be read: {error}") from error
    except OSError as error:
        if error.errno is not None and error.errno not in _ITS_OWN_FAULT:
            raise
        raise UnsafeArchive(f"{archive.name} cannot be unpacked: {error.strerror or error}") from error


class _BoundedHeader(tarfile.TarInfo):
    """Refuses extended headers of a size that nobody needs; the library would read them into memory whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extended = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *tarfile.GNU_TYPES} - {
            tarfile.GNUTYPE_SPARSE
        }
        if self.type in extended and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {format_size(self.size)}")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def tree(root: Path, name: str) -> Iterator[str]:
    """Yield `name`, relative to `root`, and everything below it; nothing if it is not there."""
    path = root / name
    if path.is_symlink() or path.exists():
        yield name
        if path.is_dir() and not path.is_symlink():
            yield from _below(root, f"{name}/")


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755 if status.st_mode & 0o100 or stat.S_ISDIR(status.st_mode) else 0o644
    if stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        tar.addfile(entry)
    elif stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    elif stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            tar.addfile(entry, file)


def _below(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            yield name
            if entry.is_dir(follow_symlinks=False):
                yield from _below(folder, f"{name}/")


def _unpack_tar(tar: tarfile.TarFile, writer: _Writer) -> None:
    while (entry := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # the library would keep them all
        if entry.isdir():
            writer.folder(entry.name)
        elif entry.issym():
            writer.link(entry.name, entry.linkname)
        elif entry.islnk():
            writer.same(entry.name, entry.linkname)
        elif entry.isreg():
            content = tar.extractfile(entry)
            if content is None:
                raise UnsafeArchive(f"`{entry.name}` has no content")
            writer.file(entry.name, content, executable=bool(entry.mode & 0o100))
        else:
            raise UnsafeArchive(f"`{entry.name}` is a device or a pipe; only files, folders and links are unpacked")
    # The checksum of a compressed stream is at its very end, behind what a tar needs.
    while tar.fileobj is not None and (rest := tar.fileobj.read(_SLICE)):
        writer.count(len(rest))


def _unpack_zip(packed: zipfile.ZipFile, writer: _Writer) -> None:
    for entry in packed.infolist():
        mode = entry.external_attr >> 16
        if entry.flag_bits & 1:
            raise UnsafeArchive(f"`{entry.filename}` is encrypted")
        if entry.is_dir():
            writer.folder(entry.filename)
            continue
        with packed.open(entry) as content:
            if stat.S_ISLNK(mode):
                writer.link(entry.filename, content.read(4096).decode(errors="surrogateescape"))
            else:
                writer.file(entry.filename, content, executable=bool(mode & 0o100))


class _Writer:
    """Writes members into a folder. Links come last, so that nothing is ever written through one."""

    def __init__(self, root: Path, limits: Limits, *, any_links: bool) -> None:
        self._root = root
        self._limits = limits
        self._any_links = any_links
        self._members = 0
        self._size = 0
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = {PurePosixPath()}
        self._links: dict[PurePosixPath, str] = {}

    def folder(self, name: str) -> None:
        """Make a folder."""
        self._make_folder(self._checked(name))

    def file(self, name: str, content: IO[bytes], *, executable: bool) -> None:
        """Write a file."""
        path = self._free_place(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._root / path, flags, 0o755 if executable else 0o644)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            while data := content.read(_SLICE):
                self.count(len(data))
                file.write(data)
        self._files.add(path)

    def same(self, name: str, other: str) -> None:
        """Make a hard link: a second name of a file that this archive has brought."""
        source = member(other)
        if source not in self._files:
            raise UnsafeArchive(f"`{name}` is a link to `{other}`, which the archive does not hold before it")
        path = self._checked(name)
        if path == source:
            return
        path = self._free_place(name)
        shutil.copy(self._root / source, self._root / path, follow_symlinks=False)
        self.count((self._root / path).stat().st_size)
        self._files.add(path)

    def link(self, name: str, target: str) -> None:
        """Remember a symbolic link."""
        path = self._checked(name)
        if not target or not (self._any_links or stays_inside(path, target)):
            raise UnsafeArchive(f"`{name}` is a link to `{target}`, which leads out of the folder")
        self._links[path] = target

    def make_links(self) -> None:
        """Make the symbolic links."""
        for path, target in self._links.items():
            self._make_folder(path.parent)
            place = self._root / path
            if path in self._files or path in self._folders:
                raise UnsafeArchive(f"`{path}` is in the archive twice, as a link and as something else")
            if place.is_dir() and not place.is_symlink():
                raise UnsafeArchive(f"`{path}` is a link in the archive and a folder on the disk")
            place.unlink(missing_ok=True)
            place.symlink_to(target)

    def _checked(self, name: str) -> PurePosixPath:
        self._members += 1
        if self._members > self._limits.members:
            raise UnsafeArchive(f"the archive holds more than {self._limits.members} members")
        path = member(name)
        if path is None:
            raise UnsafeArchive(f"`{name}` would be written outside of its folder")
        return path

    def _free_place(self, name: str) -> PurePosixPath:
        path = self._checked(name)
        if path == PurePosixPath():
            raise UnsafeArchive(f"`{name}` is not the name of a file")
        self._make_folder(path.parent)
        try:
            (self._root / path).unlink(missing_ok=True)
        except OSError as error:
            raise UnsafeArchive(f"`{name}` cannot be written: {error.strerror}") from error
        return path

    def _make_folder(self, path: PurePosixPath) -> None:
        if path in self._folders:
            return
        self._make_folder(path.parent)
        place = self._root / path
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UnsafeArchive(f"`{path}` is a folder in the archive and something else on the disk")
        place.mkdir(exist_ok=True)
        self._folders.add(path)

    def count(self, size: int) -> None:
        """Add to what the archive has expanded to."""
        self._size += size
        if self._size > self._limits.size:
            raise UnsafeArchive(f"the archive expands to more than {format_size(self._limits.size)}")
