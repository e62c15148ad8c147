"""Files that pages need: styles, scripts. Their addresses hold a hash of their content, so a browser keeps them."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from forge.server.problems import Problem

router = APIRouter(include_in_schema=False)
ROOT = files("forge.server.pages") / "static"


class Asset(NamedTuple):
    """A file as it is sent."""

    body: bytes
    zipped: bytes
    kind: str
    digest: str


@lru_cache(maxsize=200)
def asset(name: str) -> Asset | None:
    """Return a file by its name under `static/`, None when there is none."""
    parts = name.split("/")
    if not all(part and part.strip(".") and "\\" not in part for part in parts):
        return None
    found = ROOT.joinpath(*parts)
    if not found.is_file():
        return None
    body = found.read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(body, gzip.compress(body, 9, mtime=0), kind, hashlib.sha256(body).hexdigest()[:12])


def static_address(name: str) -> str:
    """Return the address of a file. Raises FileNotFoundError for one that is not there."""
    known = asset(name)
    if known is None:
        raise FileNotFoundError(f"static/{name}")
    return f"/static/{known.digest}/{name}"


@router.get("/static/{digest}/{name:path}")
async def static_file(request: Request, digest: str, name: str) -> Response:
    """Send a file. Needs no right: these are the same on every installation."""
    known = asset(name)
    if known is None or known.digest != digest:
        raise Problem(404, f"there is no file {name}")
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    body = known.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = known.zipped, "gzip"
    return Response(body, headers=headers, media_type=known.kind)
