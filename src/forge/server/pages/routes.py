"""The routers of this part of the server."""

from __future__ import annotations

from fastapi import APIRouter

routers: list[APIRouter] = []
