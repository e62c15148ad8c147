"""Pack the service into one archive; the same sources always give the same bytes."""

import gzip
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parent
CONTENT = ("shop.toml", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("shop/*.py")))


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out of an entry what differs from machine to machine and from time to time."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


def main(archive: str) -> None:
    """Write the archive."""
    with (
        open(archive, "wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in CONTENT:
            tar.add(ROOT / name, arcname=name, filter=plain)
    print(f"{archive}: {len(CONTENT)} files, {Path(archive).stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
