"""`admin.ports.Idempotency` in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from admin.errors import Throttled
from admin.idempotency import BODY_BYTES_MAX, KEYS_MAX, KeyUse, decide, key_hash, owner_hash
from admin.ports import KeptAnswer
from admin.principals import Principal
from admin.store import AdminStore

RUNNING_MAX: Final = 1_000
"""Requests with a key at a time, of one process."""
BELIEVED_MS: Final = 600_000
"""How long a request that neither ended nor was given up is believed to run; none may take longer."""
FORGET_EVERY_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class _Running:
    claim: bytes
    began_ms: int


class IdempotencyKeys:
    """Keys in the store; which requests run here is known besides, so that none of them is taken for gone."""

    def __init__(self, store: AdminStore, random_bytes: Callable[[int], bytes]) -> None:
        self._store = store
        self._random_bytes = random_bytes
        self._running: dict[bytes, _Running] = {}
        self._forgot_ms: int | None = None
        self.late = 0
        """Requests that ended after another node had taken their key for freed."""

    async def begin(
        self, principal: Principal, key: str, fingerprint: bytes, now: datetime
    ) -> KeptAnswer | None:
        """See `admin.ports.Idempotency`.

        Raises `Throttled` as well: more than `KEYS_MAX` keys of one principal, or `RUNNING_MAX` requests.
        """
        now_ms = round(now.timestamp() * 1000)
        await self._forget(now_ms)
        hashed = key_hash(principal, key)
        new = KeyUse(fingerprint, self._random_bytes(16), now_ms, None)

        def judge(found: KeyUse | None) -> KeptAnswer | None:
            runs_here = found is not None and self._runs_here(hashed, found.claim, now_ms)
            return decide(found, fingerprint, now_ms, runs_here=runs_here)

        if len(self._running) >= RUNNING_MAX:
            self._drop_unbelieved(now_ms)
            if len(self._running) >= RUNNING_MAX:
                raise Throttled("too many requests with an idempotency key are under way", 1)
        answer = await self._store.begin_key(hashed, owner_hash(principal), new, judge, KEYS_MAX)
        if answer is None:
            self._running[hashed] = _Running(new.claim, now_ms)
        return answer

    async def finish(self, principal: Principal, key: str, answer: KeptAnswer, now: datetime) -> None:
        """See `admin.ports.Idempotency`. Raises `ValueError` for a body over `BODY_BYTES_MAX`."""
        del now  # it is kept from when it began
        if len(answer.body) > BODY_BYTES_MAX:
            raise ValueError(f"an answer of over {BODY_BYTES_MAX} bytes is not kept")
        hashed = key_hash(principal, key)
        running = self._running.get(hashed)
        if running is None:
            self.late += 1
            return
        # Where this fails, it goes on to count as running for a while: better than doing what was done once more.
        if not await self._store.finish_key(hashed, running.claim, answer):
            self.late += 1
        self._done(hashed, running)

    async def abandon(self, principal: Principal, key: str) -> None:
        hashed = key_hash(principal, key)
        running = self._running.get(hashed)
        if running is None:
            return
        try:
            await self._store.abandon_key(hashed, running.claim)
        finally:
            self._done(hashed, running)

    def _runs_here(self, hashed: bytes, claim: bytes, now_ms: int) -> bool:
        running = self._running.get(hashed)
        return running is not None and running.claim == claim and now_ms - running.began_ms < BELIEVED_MS

    def _done(self, hashed: bytes, running: _Running) -> None:
        if self._running.get(hashed) == running:
            del self._running[hashed]

    async def _forget(self, now_ms: int) -> None:
        """Clear up, at most once an hour."""
        if self._forgot_ms is None or now_ms - self._forgot_ms >= FORGET_EVERY_MS:
            self._forgot_ms = now_ms
            self._drop_unbelieved(now_ms)
            await self._store.forget_keys(now_ms)

    def _drop_unbelieved(self, now_ms: int) -> None:
        for hashed, running in list(self._running.items()):
            if now_ms - running.began_ms >= BELIEVED_MS:
                del self._running[hashed]
