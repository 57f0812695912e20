"""Requests with an idempotency key: which is the first, and what the others get. Sans-IO.

The rules, of a key that is somebody's own:

- nobody used it, or what it was used for began over `KEPT_MS` ago: this request is the first;
- the first has ended: the same request gets its answer, another one `KeyReused`;
- the first is under way: `StillRunning`, and `KeyReused` for another one;
- the first began over `FREED_AFTER_MS` ago, has not ended, and is not known to run here: whoever ran it is gone, so that this
  request is the first. What was done by the one that is gone is not known: it may be done once more.

Each first request has a claim of its own. Whoever lost the key to another one by being late neither keeps its answer nor frees
the key.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from admin.errors import KeyReused, StillRunning
from admin.ports import KeptAnswer
from admin.principals import Principal

KEPT_MS: Final = 24 * 3_600_000
FREED_AFTER_MS: Final = 60_000
BODY_BYTES_MAX: Final = 1_048_576
"""Of an answer that is kept."""
KEYS_MAX: Final = 10_000
"""Of one principal, within the time that they are kept."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a key was used for."""

    fingerprint: bytes
    claim: bytes
    began_ms: int
    answer: KeptAnswer | None
    """None: it has not ended."""


def owner_hash(principal: Principal) -> bytes:
    """Whose keys they are: 32 bytes."""
    return _hash(principal.issuer, principal.subject)


def key_hash(principal: Principal, key: str) -> bytes:
    """What a key is looked up by: 32 bytes, other ones for every principal."""
    return _hash(principal.issuer, principal.subject, key)


def decide(found: KeyUse | None, fingerprint: bytes, now_ms: int, *, runs_here: bool) -> KeptAnswer | None:
    """The answer to repeat, or None: the request is the first. ``runs_here``: the one that was found is known to go on.

    Raises: KeyReused, StillRunning.
    """
    if found is None:
        return None
    age_ms = max(0, now_ms - found.began_ms)
    over = age_ms >= KEPT_MS if found.answer is not None else age_ms >= FREED_AFTER_MS and not runs_here
    if over:
        return None
    if found.fingerprint != fingerprint:
        raise KeyReused("this idempotency key was used for another request: take a new key for a new request")
    if found.answer is None:
        raise StillRunning(
            "the first request with this idempotency key has not ended yet: ask again in a second"
        )
    return found.answer


def _hash(*parts: str) -> bytes:
    # JSON, so that no two lists of texts are written alike; escaped, so that every text can be written.
    return hashlib.sha256(json.dumps(parts).encode()).digest()
