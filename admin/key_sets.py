"""An issuer's keys: which of them may verify which signature, and when they are fetched. Sans-IO.

A JWK Set (RFC 7517 5) is read as a whole. What is no public key for signatures is passed over: private and symmetric keys,
keys for encryption, kinds that are not allowed. A key verifies only with algorithms of its own kind (RFC 8725 3.1), so that no
token chooses how its signature is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from jwt import PyJWK
from jwt.exceptions import PyJWTError

KEYS_MAX: Final = 100
TRIED_MAX: Final = 4
"""Keys with one ``kid`` that are tried; there should be one."""
STALE_MS: Final = 86_400_000
"""How old keys may be while no newer ones can be had."""
_KINDS: Final = (
    ("RSA", None, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("EC", "P-256", ("ES256",)),
    ("EC", "P-384", ("ES384",)),
    ("EC", "P-521", ("ES512",)),
    ("OKP", "Ed25519", ("EdDSA",)),
)


class BadKeySet(Exception):  # noqa: N818
    """What was fetched has no key in it that can be used; the text says why and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class _Key:
    key_id: str | None
    by_algorithm: Mapping[str, PyJWK]


class KeySet:
    """Keys by their ids."""

    def __init__(self, keys: Sequence[_Key]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def read(cls, raw: bytes, allowed: Sequence[str]) -> KeySet:
        """Read a JWK Set for these algorithms. Raises `BadKeySet`."""
        value: object = None
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(raw)
        listed = value.get("keys") if isinstance(value, dict) else None
        if not isinstance(listed, list):
            raise BadKeySet("it is no JWK Set: a JSON object with a list of keys")
        if len(listed) > KEYS_MAX:
            raise BadKeySet(f"it has {len(listed)} keys; at most {KEYS_MAX} are read")
        keys = [key for each in listed if (key := _read(each, allowed)) is not None]
        if not keys:
            raise BadKeySet(f"it has no public key for any of {', '.join(allowed)}")
        return cls(keys)

    def fitting(self, key_id: str | None, algorithm: str) -> tuple[PyJWK, ...]:
        """Keys that may have signed it. A token that names none is taken where there is only one of its kind."""
        fit = [
            each.by_algorithm[algorithm]
            for each in self._keys
            if algorithm in each.by_algorithm and key_id in (None, each.key_id)
        ]
        if key_id is None and len(fit) > 1:
            return ()
        return tuple(fit[:TRIED_MAX])


def _read(jwk: object, allowed: Sequence[str]) -> _Key | None:
    if not isinstance(jwk, dict) or {"d", "k", "p"} & jwk.keys():
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in _operations(jwk):
        return None
    key_id = jwk.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        return None
    made = {}
    for kind, curve, algorithms in _KINDS:
        if jwk.get("kty") == kind and curve in (None, jwk.get("crv")):
            for algorithm in algorithms:
                if algorithm in allowed and jwk.get("alg", algorithm) == algorithm:
                    try:
                        made[algorithm] = PyJWK(jwk, algorithm)
                    except PyJWTError:
                        return None
    return _Key(key_id, made) if made else None


def _operations(jwk: Mapping[str, object]) -> Sequence[object]:
    operations = jwk.get("key_ops", ["verify"])
    return operations if isinstance(operations, list) else ()


class Refreshing:
    """When keys are fetched: at first, when they are old, and for a key that nobody knows; never twice within ``min_ms``.

    So whoever makes up key ids causes one fetch per ``min_ms``, as everybody else together. Times are a steady clock's.
    """

    def __init__(self, *, refresh_ms: int, min_ms: int, stale_ms: int = STALE_MS) -> None:
        self._refresh_ms = refresh_ms
        self._min_ms = min_ms
        self._stale_ms = stale_ms
        self._tried_ms: int | None = None
        self._had_ms: int | None = None

    def may_fetch(self, now_ms: int) -> bool:
        """Whether the last attempt is long enough ago."""
        return self._tried_ms is None or now_ms - self._tried_ms >= self._min_ms

    def is_due(self, now_ms: int) -> bool:
        """Whether a fetch is wanted and allowed, whichever key is asked for."""
        old = self._had_ms is None or now_ms - self._had_ms >= self._refresh_ms
        return old and self.may_fetch(now_ms)

    def usable(self, now_ms: int) -> bool:
        """Whether what was fetched last may still be used."""
        return self._had_ms is not None and now_ms - self._had_ms < self._stale_ms

    def began(self, now_ms: int) -> None:
        """A fetch begins."""
        self._tried_ms = now_ms

    def succeeded(self, now_ms: int) -> None:
        """It brought keys; ``now_ms`` is when it began."""
        self._had_ms = now_ms
