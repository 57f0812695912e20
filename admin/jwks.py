"""Fetches an issuer's keys: from a file, a URL, or where its discovery document says.

Bounds: one time limit for a fetch as a whole, 256 KiB for each answer, no redirects, one fetch at a time, and how often one may
begin is `admin.key_sets.Refreshing`'s to say. While keys that are merely old are fetched anew, those that are there are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from jwt import PyJWK

from admin.claims import Announced
from admin.errors import Throttled, Unauthenticated, Unavailable
from admin.key_sets import BadKeySet, KeySet, Refreshing
from config.admin import IssuerConfig, trustworthy

ANSWER_BYTES_MAX: Final = 262_144
WAITING_MAX: Final = 256
"""Requests that wait for one fetch."""


class KeySource:
    """One issuer's keys."""

    def __init__(
        self, issuer: IssuerConfig, steady_ms: Callable[[], int], trusted: ssl.SSLContext | None = None
    ) -> None:
        self._issuer = issuer
        self._steady_ms = steady_ms
        self._trusted = trusted
        self._keys = KeySet(())
        self._refreshing = Refreshing(refresh_ms=issuer.refresh_s * 1000, min_ms=issuer.refresh_min_s * 1000)
        self._fetch: asyncio.Task[None] | None = None
        self._waiting = 0
        self._why = "they were not fetched yet"
        self.fetches = 0

    async def keys_for(self, token: Announced) -> tuple[PyJWK, ...]:
        """Keys that may have signed it.

        Raises: Unauthenticated: the issuer has none such. Unavailable: its keys cannot be had. Throttled: too many wait for them.
        """
        now_ms = self._steady_ms()
        if self._refreshing.is_due(now_ms):
            self._begin(now_ms)
        if found := self._fitting(token, now_ms):
            return found
        if self._refreshing.may_fetch(now_ms):
            self._begin(now_ms)
        if self._fetch is not None:
            await self._fetched(self._fetch)
        now_ms = self._steady_ms()
        if not self._refreshing.usable(now_ms):
            raise Unavailable(f"the keys of {self._issuer.issuer} cannot be had: {self._why}")
        if found := self._fitting(token, now_ms):
            return found
        raise Unauthenticated(
            "the token is signed with a key that its issuer does not have, or names none of several"
        )

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    def _fitting(self, token: Announced, now_ms: int) -> tuple[PyJWK, ...]:
        if not self._refreshing.usable(now_ms):
            return ()
        return self._keys.fitting(token.key_id, token.algorithm)

    def _begin(self, now_ms: int) -> None:
        if self._fetch is None:
            self._refreshing.began(now_ms)
            self.fetches += 1
            self._fetch = asyncio.create_task(self._refresh(now_ms), name="issuer's keys")

    async def _fetched(self, fetch: asyncio.Task[None]) -> None:
        """Wait for a fetch; whoever stops waiting does not end it."""
        if self._waiting >= WAITING_MAX:
            raise Throttled(f"too many requests wait for the keys of {self._issuer.issuer}", 1)
        self._waiting += 1
        try:
            await asyncio.wait([fetch])
        finally:
            self._waiting -= 1

    async def _refresh(self, began_ms: int) -> None:
        try:
            async with asyncio.timeout(self._issuer.timeout_ms / 1000):
                raw = await self._read()
            self._keys = KeySet.read(raw, self._issuer.algorithms)
            self._refreshing.succeeded(began_ms)
        except TimeoutError:
            self._why = f"no answer within {self._issuer.timeout_ms} ms"
        except BadKeySet as error:
            self._why = str(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Not its text, which may quote what came.
            self._why = type(error).__name__
        finally:
            self._fetch = None

    async def _read(self) -> bytes:
        if self._issuer.jwks_file is not None:
            return await asyncio.to_thread(_read_file, self._issuer.jwks_file)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=True if self._trusted is None else self._trusted, limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            auto_decompress=False,
        ) as session:
            url = self._issuer.jwks_url or await self._discovered(session)
            return await _get(session, url)

    async def _discovered(self, session: aiohttp.ClientSession) -> str:
        """Where the keys are, by OpenID Connect Discovery 1.0, section 4."""
        raw = await _get(session, f"{self._issuer.issuer.rstrip('/')}/.well-known/openid-configuration")
        document: object = None
        with contextlib.suppress(orjson.JSONDecodeError):
            document = orjson.loads(raw)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer.issuer:
            # Section 4.3: exactly the same, or the document is somebody else's.
            raise BadKeySet("its discovery document names another issuer, or is none")
        url = document.get("jwks_uri")
        # Plain HTTP for a provider on this machine alone: another one has no business here.
        schemes = ("https",) if self._issuer.issuer.startswith("https:") else ("https", "http")
        if not isinstance(url, str) or url.partition("://")[0].lower() not in schemes or "@" in url:
            raise BadKeySet("its discovery document has no jwks_uri with https")
        return trustworthy(url)


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise BadKeySet(f"status {response.status}")
        raw = bytearray()
        async for chunk in response.content.iter_any():
            raw += chunk
            if len(raw) > ANSWER_BYTES_MAX:
                raise BadKeySet(f"an answer of over {ANSWER_BYTES_MAX} bytes")
        return bytes(raw)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as stream:
        raw = stream.read(ANSWER_BYTES_MAX + 1)
    if len(raw) > ANSWER_BYTES_MAX:
        raise BadKeySet(f"a file of over {ANSWER_BYTES_MAX} bytes")
    return raw
