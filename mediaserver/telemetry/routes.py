"""HTTP for a supervisor (``/healthz``, ``/readyz``) and for Prometheus (``/metrics``); each may be on any listener."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from mediaserver.telemetry.health import Checks
from mediaserver.telemetry.metrics import Telemetry

UNSTORED: Final = {"Cache-Control": "no-store"}


def probe_routes(alive: Checks, ready: Checks) -> APIRouter:
    """``/healthz`` and ``/readyz``: 200 where every check holds, else 503; the body has each by its name."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process should go on: its event loop keeps time and its media threads run."""
        return _answer(alive, "ok", "failing")

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """A new call would be admitted, if there is a slot."""
        return _answer(ready, "ready", "not ready")

    return router


def _answer(checks: Checks, good: str, bad: str) -> JSONResponse:
    held = dict(checks())
    holds = all(held.values())
    body = {"status": good if holds else bad, "checks": held}
    return JSONResponse(body, 200 if holds else 503, headers=UNSTORED)


def metrics_routes(telemetry: Telemetry) -> APIRouter:
    """``/metrics``: every metric, in OpenMetrics where the request accepts it."""
    router = APIRouter()

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Read here, written out in a thread: a thousand lines must not hold up the calls."""
        snapshot = telemetry.snapshot()
        body, content_type = await asyncio.to_thread(snapshot.expose, request.headers.get("Accept", ""))
        return Response(body, headers={"Content-Type": content_type, **UNSTORED})

    return router
