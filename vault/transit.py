"""Key-encryption keys in a key service: the transit engine of HashiCorp Vault, or of OpenBao, over HTTP.

Used are ``POST /v1/<mount>/encrypt/<key>``, ``decrypt`` and ``rewrap``
(https://developer.hashicorp.com/vault/api-docs/secret/transit); a policy needs ``update`` on these three and nothing
else. The key must exist and be of an authenticated kind (``aes256-gcm96``, the engine's own choice, is).

`rewrap` happens within the service, and what comes of it is opened once before it replaces what was there. As rewrapping
takes no associated data, what is wrapped says itself whose key it is (`vault.sealing.payload`).

Bounds: one time limit for each request, waiting for its turn included; so many requests at a time; an answer of 64 KiB;
no redirects, which would carry the token elsewhere. Nothing is repeated but a request on a connection that the service
had closed meanwhile. What the service answers is never part of an error: it may echo what it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from yarl import URL

from vault.errors import BadInput, KekDenied, KekMissing, KekUnavailable, KekUnusable, SealBroken
from vault.kek import read_private
from vault.sealing import (
    KEY_BYTES,
    WRAPPED_BYTES_MAX,
    KeyMaterial,
    KeyPlace,
    WrappedKey,
    broken_key,
    from_payload,
    payload,
)
from vault.secret import Secret

ANSWER_BYTES_MAX: Final = 65_536
_MOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?:/[A-Za-z0-9][A-Za-z0-9_-]{0,63}){0,4}")
_KEY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*/?")
_CIPHERTEXT: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/=]+")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBE: Final = KeyPlace("_probe", 0)
_UNAVAILABLE: Final = {
    412: "is behind its primary",
    429: "limits our rate",
    472: "is a standby of another region",
    473: "is a standby",
    503: "is sealed or in maintenance",
}


def token_from_file(path: Path) -> Callable[[], Secret]:
    """Read the token anew for each request: an agent renews it. The file is private as a key's (`read_private`)."""
    return lambda: Secret(read_private(path).strip())


@dataclass(frozen=True, slots=True)
class TransitSettings:
    """Where the key service is. Raises `BadInput`."""

    url: str
    """``https://host:port``, or plain HTTP to this machine alone, as an agent offers it."""
    key: str
    """The name of the transit key; it must exist."""
    mount: str = "transit"
    namespace: str | None = None
    timeout_ms: int = 5_000
    """For a request as a whole, 100 to 60,000."""
    requests_max: int = 16
    """At a time, 1 to 256; more wait."""

    def __post_init__(self) -> None:
        url = URL(self.url)
        if url.host is None or url.scheme not in ("http", "https"):
            raise BadInput("the key service's URL must be https://HOST[:PORT]")
        if url.scheme == "http" and url.host not in _LOOPBACK:
            raise BadInput(
                "the key service's URL must be https: data keys travel there (http only to this machine)"
            )
        if url.user or url.password or url.query_string or url.fragment or url.path != "/":
            raise BadInput("the key service's URL must be https://HOST[:PORT] and nothing more")
        for what, value, form in (
            ("mount", self.mount, _MOUNT),
            ("key", self.key, _KEY),
            ("namespace", self.namespace, _NAMESPACE),
        ):
            if value is not None and not form.fullmatch(value):
                raise BadInput(f"the key service's {what} must have the form {form.pattern}")
        if not 100 <= self.timeout_ms <= 60_000:
            raise BadInput("the key service's timeout must be 100 to 60000 ms")
        if not 1 <= self.requests_max <= 256:
            raise BadInput("requests to the key service at a time must be 1 to 256")

    @property
    def name(self) -> str:
        """What ids begin with."""
        return f"transit:{self.mount}/{self.key}"


class _Answer:
    """What the service said. Its text shows nothing of it."""

    __slots__ = ("raw", "status")

    def __init__(self, status: int, raw: bytes) -> None:
        self.status: Final = status
        self.raw: Final = raw

    def text(self, field: str) -> str | None:
        """A field of ``data``; None where the answer is not as it should be."""
        try:
            value = orjson.loads(self.raw)["data"][field]
        except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
            return None
        return value if isinstance(value, str) else None

    def plaintext(self) -> bytes | None:
        """The decoded plaintext; None where it is none."""
        try:
            return base64.b64decode(self.text("plaintext") or "", validate=True)
        except ValueError:
            return None


def _base64(plain: bytes) -> Secret:
    return Secret(base64.b64encode(plain).decode())


class TransitKeyEncryption:
    """`KeyEncryption` by a transit engine; ids are ``transit:MOUNT/KEY:vVERSION``."""

    def __init__(
        self, settings: TransitSettings, token: Callable[[], Secret], trusted: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._token = token
        self._trusted = trusted
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Semaphore(settings.requests_max)

    @property
    def at_hand(self) -> str:
        """The key's name, for people."""
        return self._settings.name

    def holds(self, kek_id: str) -> bool:
        """Whether it is a version of this key, which the service may have or not."""
        return kek_id.rpartition(":")[0] == self._settings.name

    async def current_id(self) -> str:
        # Encrypting something worthless tells the version, and needs no right that wrapping does not need.
        return (await self._encrypt(_base64(bytes(KEY_BYTES)))).kek_id

    async def wrap(self, key: KeyMaterial, place: KeyPlace) -> WrappedKey:
        return await self._encrypt(_base64(payload(key, place)))

    async def unwrap(self, wrapped: WrappedKey, place: KeyPlace) -> KeyMaterial:
        answer = await self._ask("decrypt", self._ciphertext(wrapped, place), wrapped.kek_id, place)
        if answer.text("plaintext") is None:
            raise self._garbled("decrypt")
        key = from_payload(answer.plaintext(), place)
        if key is None:
            raise broken_key(place)
        return key

    async def rewrap(self, wrapped: WrappedKey, place: KeyPlace) -> WrappedKey:
        answer = await self._ask("rewrap", self._ciphertext(wrapped, place), wrapped.kek_id, place)
        rewrapped = self._wrapped(answer, "rewrap")
        # Before it replaces the only other copy: a wrong answer would lose the key for good.
        await self.unwrap(rewrapped, place)
        return rewrapped

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _encrypt(self, plain: Secret) -> WrappedKey:
        answer = await self._ask("encrypt", plain, self._settings.name, _PROBE)
        return self._wrapped(answer, "encrypt")

    def _wrapped(self, answer: _Answer, action: str) -> WrappedKey:
        form = _CIPHERTEXT.fullmatch(answer.text("ciphertext") or "")
        if form is None or len(form[0]) > WRAPPED_BYTES_MAX:
            raise self._garbled(action)
        return WrappedKey(f"{self._settings.name}:v{form[1]}", form[0].encode())

    def _ciphertext(self, wrapped: WrappedKey, place: KeyPlace) -> Secret:
        """What was stored, if it is this key's; the service would open another key's under a wrong name."""
        if not self.holds(wrapped.kek_id):
            raise KekMissing(
                wrapped.kek_id,
                f"{place.tenant_id}: data key {place.generation} is wrapped by the key-encryption key {wrapped.kek_id}, "
                f"which is missing; at hand: {self.at_hand}",
            )
        text = wrapped.blob.decode("ascii", errors="replace")
        form = _CIPHERTEXT.fullmatch(text)
        if form is None or wrapped.kek_id.rpartition(":v")[2] != form[1]:
            raise broken_key(place)
        return Secret(text)

    async def _ask(self, action: str, value: Secret, kek_id: str, place: KeyPlace) -> _Answer:
        """Send the plaintext or ciphertext; ``kek_id`` and ``place`` are for errors."""
        token = await asyncio.to_thread(self._token)
        name = self._settings.name
        answer: _Answer | None = None
        failure = ""
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1000), self._turn:
                try:
                    answer = await self._post(action, value, token)
                except aiohttp.ServerDisconnectedError:
                    # The connection was idle and the service closed it; these three requests can be repeated.
                    answer = await self._post(action, value, token)
        except TimeoutError:
            failure = f"{name}: no answer to {action} within {self._settings.timeout_ms} ms"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = f"{name}: {action} failed: {type(error).__name__}"
        # Raised here, apart from the client's error, whose frames hold the token and the data key.
        if answer is None:
            raise KekUnavailable(failure)
        if len(answer.raw) > ANSWER_BYTES_MAX:
            raise KekUnavailable(f"{name}: an answer to {action} of over {ANSWER_BYTES_MAX} bytes")
        if answer.status != 200:
            raise self._refusal(answer, action, kek_id, place)
        return answer

    async def _post(self, action: str, value: Secret, token: Secret) -> _Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._trusted if self._trusted is not None else True,
                    limit=self._settings.requests_max,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
            )
        headers = {
            "X-Vault-Token": token.reveal(),
            "X-Vault-Request": "true",
            "Content-Type": "application/json",
        }
        if self._settings.namespace is not None:
            headers["X-Vault-Namespace"] = self._settings.namespace
        body = orjson.dumps({"plaintext" if action == "encrypt" else "ciphertext": value.reveal()})
        url = URL(self._settings.url) / "v1" / self._settings.mount / action / self._settings.key
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            raw = bytearray()
            async for chunk in response.content.iter_any():
                raw += chunk
                if len(raw) > ANSWER_BYTES_MAX:
                    break
            return _Answer(response.status, bytes(raw))

    def _refusal(
        self, answer: _Answer, action: str, kek_id: str, place: KeyPlace
    ) -> KekDenied | KekMissing | KekUnavailable | KekUnusable | SealBroken:
        status = answer.status
        name = self._settings.name
        if status in (401, 403):
            return KekDenied(f"{name}: {action} is denied to our token (status {status})")
        missing = _missing(answer)
        if missing is not None:
            return KekMissing(kek_id, f"{kek_id} is missing: {missing}")
        if status == 400:
            if action == "encrypt":
                return KekUnusable(f"{name}: the key service cannot encrypt with it (status 400)")
            return broken_key(place)
        what = _UNAVAILABLE.get(status, "failed")
        return KekUnavailable(f"{name}: the key service {what} (status {status})")

    def _garbled(self, action: str) -> KekUnavailable:
        return KekUnavailable(f"{self._settings.name}: the answer to {action} is not what a key service says")


def _missing(answer: _Answer) -> str | None:
    """What the service lacks, if that is why it refused. It tells these apart by its words alone."""
    if answer.status == 404:
        return "there is no transit engine at that mount"
    if answer.status == 400:
        if b"key not found" in answer.raw or b"policy not found" in answer.raw:
            return "the key service has no such key"
        if b"disallowed by policy" in answer.raw or b"version is too new" in answer.raw:
            return "the key service does not have that version"
    return None
