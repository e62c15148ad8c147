"""The files of versions: unpacked once, into a folder that appears whole, and never changed."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

import msgspec

from forge.adapters.archives import UnsafeArchive, unpack
from forge.adapters.targets.local.folders import EnvironmentFolder
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import Version

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")


class _Origin(msgspec.Struct, frozen=True):
    artifact: str


def prepare(folder: EnvironmentFolder, version: Version, artifact: str | None) -> Path:
    """Return the version's working directory, unpacked from `artifact` if it is not there yet.

    Blocks. Raises UsageError if it is there but was made from another artifact, or if the archive is unsafe;
    DependencyFailed if the artifact cannot be read.
    """
    place = folder.version(version.id)
    origin = place / "origin.json"
    if origin.is_file():
        known = msgspec.json.decode(origin.read_bytes(), type=_Origin)
        if known.artifact != version.artifact:
            msg = f"version {version.id} was made from another artifact ({known.artifact[:12] or 'none'})"
            raise UsageError(msg, hint="give the deploy a `version` of its own")
        return folder.working_directory(version.id)
    if version.artifact and artifact is None:
        msg = f"version {version.id} is not unpacked, and its artifact was not given"
        raise DependencyFailed(msg)
    folder.versions.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.versions))
    try:
        (fresh / "files").mkdir()
        if artifact is not None:
            _fill(fresh / "files", Path(artifact), version.artifact_name)
        (fresh / "origin.json").write_bytes(msgspec.json.encode(_Origin(version.artifact)))
        fresh.chmod(0o755)
        try:
            fresh.rename(place)
        except OSError:
            # Somebody else was quicker; what they made is the same.
            if not origin.is_file():
                raise
    except UnsafeArchive as error:
        msg = f"the artifact of version {version.id} cannot be unpacked: {error.message}"
        raise UsageError(msg, hint=error.hint) from error
    except OSError as error:
        msg = f"the artifact of version {version.id} cannot be unpacked: {error}"
        raise DependencyFailed(msg) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder.working_directory(version.id)


def put_aside(folder: EnvironmentFolder, version: str) -> Path:
    """Take a version's files away in one step; return where they are, to be removed at leisure."""
    aside = Path(tempfile.mkdtemp(prefix=".gone-", dir=folder.versions)) if folder.versions.is_dir() else None
    if aside is None:
        return folder.version(version)
    try:
        folder.version(version).rename(aside / "version")
    except OSError:
        pass
    return aside


def _fill(into: Path, artifact: Path, name: str) -> None:
    """Unpack an archive: by its name, or a tar by its content, as a published folder is. A zip must be called
    so, since programs are zips too (.jar, .pyz)."""
    if artifact.is_dir():
        shutil.copytree(artifact, into, symlinks=True, dirs_exist_ok=True)
    elif (name or artifact.name).endswith(_ARCHIVES) or tarfile.is_tarfile(artifact):
        unpack(artifact, into)
    else:
        target = into / (Path(name).name or artifact.name)
        shutil.copyfile(artifact, target)
        target.chmod(0o755)  # a program is published as a plain file
