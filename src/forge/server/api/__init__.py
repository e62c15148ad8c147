"""The JSON API, one router for each resource."""

from __future__ import annotations

from fastapi import APIRouter

routers: list[APIRouter] = []
