"""Key-encryption keys: what wraps the tenants' data keys, from a file, a variable or a key service.

A key-encryption key that is at hand is named by a label of the operator's and four bytes that are derived from the key:
``node-2025:1f8a03bc``. A file whose content was exchanged under the same label is therefore another key, and what the old
one wrapped is reported as wrapped by a key that is missing, not as damaged.

A variable of the environment can be read by whoever may read ``/proc/PID/environ``, and children inherit it; a file is
better, a key service best.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from vault.errors import BadInput, KekMissing, KekUnusable
from vault.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    KeyMaterial,
    KeyPlace,
    WrappedKey,
    unwrap_locally,
    wrap_locally,
)

KEK_TEXT_MAX: Final = 1_024
"""Bytes of a file or variable; a key is 44 or 64 characters."""
KEK_IDS_MAX: Final = 16
"""Key-encryption keys that may be at hand at a time: one that wraps and older ones that still open."""
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")

RandomBytes = Callable[[int], bytes]
"""That many unpredictable bytes, as ``os.urandom`` gives them."""


class KeyEncryption(Protocol):
    """Wraps and unwraps data keys. Every method raises `KeyEncryptionError` where it cannot."""

    async def current_id(self) -> str:
        """The id, with the version, of the key that wraps from now on."""
        ...

    async def wrap(self, key: KeyMaterial, place: KeyPlace) -> WrappedKey:
        """Wrap a data key for its place."""
        ...

    async def unwrap(self, wrapped: WrappedKey, place: KeyPlace) -> KeyMaterial:
        """Unwrap a data key. Raises `SealBroken` where it is damaged or of another place."""
        ...

    async def rewrap(self, wrapped: WrappedKey, place: KeyPlace) -> WrappedKey:
        """The same data key under the current key-encryption key. Raises `SealBroken` as `unwrap` does."""
        ...

    async def aclose(self) -> None:
        """Close connections, if any."""
        ...


class LocalKek:
    """A key-encryption key in this process: 32 bytes and a label of 1 to 40 letters, digits, ``.``, ``_`` and ``-``."""

    __slots__ = ("id", "key")

    def __init__(self, label: str, key: KeyMaterial) -> None:
        if not _LABEL.fullmatch(label):
            raise BadInput(
                "a label of a key-encryption key must have 1 to 40 letters, digits, '.', '_' and '-', no such first"
            )
        self.key: Final = key
        self.id: Final = f"{label}:{key.derive(b'vault/kek-id')[:4].hex()}"

    def __repr__(self) -> str:
        return f"LocalKek({self.id})"


class LocalKeyEncryption:
    """Key-encryption keys in this process: one wraps, older ones open what is not yet rewrapped."""

    def __init__(self, current: LocalKek, older: Sequence[LocalKek], random_bytes: RandomBytes) -> None:
        if len(older) >= KEK_IDS_MAX:
            raise BadInput(f"at most {KEK_IDS_MAX} key-encryption keys can be at hand, not {len(older) + 1}")
        self._current = current
        self._keks = {kek.id: kek for kek in (*older, current)}
        self._random_bytes = random_bytes

    @property
    def at_hand(self) -> str:
        """The ids of all, for people."""
        return ", ".join(self._keks)

    def holds(self, kek_id: str) -> bool:
        """Whether it is one of these."""
        return kek_id in self._keks

    async def current_id(self) -> str:
        return self._current.id

    async def wrap(self, key: KeyMaterial, place: KeyPlace) -> WrappedKey:
        kek, nonce = self._current, self._random_bytes(NONCE_BYTES)
        return WrappedKey(kek.id, wrap_locally(key, kek.key, kek.id, place, nonce))

    async def unwrap(self, wrapped: WrappedKey, place: KeyPlace) -> KeyMaterial:
        kek = self._keks.get(wrapped.kek_id)
        if kek is None:
            raise KekMissing(
                wrapped.kek_id,
                f"{place.tenant_id}: data key {place.generation} is wrapped by the key-encryption key {wrapped.kek_id}, "
                f"which is missing; at hand: {self.at_hand}",
            )
        return unwrap_locally(wrapped.blob, kek.key, kek.id, place)

    async def rewrap(self, wrapped: WrappedKey, place: KeyPlace) -> WrappedKey:
        return await self.wrap(await self.unwrap(wrapped, place), place)

    async def aclose(self) -> None:
        """Nothing is open."""


def kek_from_text(label: str, text: str, where: str) -> LocalKek:
    """A key-encryption key from its text: 32 bytes as base64 (either alphabet) or hexadecimal.

    ``where`` is told in errors, the text is not. Raises `KekUnusable`.
    """
    key = _key_bytes(text.strip())
    del text
    if key is None:
        raise KekUnusable(f"{where}: not {KEY_BYTES} bytes as base64 (44 characters) or hexadecimal (64)")
    if len(set(key)) == 1:
        raise KekUnusable(f"{where}: every byte is the same: a placeholder, no key")
    return LocalKek(label, KeyMaterial(key))


def _key_bytes(text: str) -> bytes | None:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        try:
            standard = text.rstrip("=").replace("-", "+").replace("_", "/")
            key = base64.b64decode(standard + "=", validate=True)
        except binascii.Error:
            return None
        return key if len(key) == KEY_BYTES else None
    return None


def kek_from_environment(label: str, variable: str, environ: Mapping[str, str]) -> LocalKek:
    """A key-encryption key from a variable. Raises `KekUnusable`."""
    text = environ.get(variable, "")
    if not text.strip():
        raise KekUnusable(f"{variable} is not set: no key-encryption key")
    return kek_from_text(label, text, variable)


def kek_from_file(label: str, path: Path) -> LocalKek:
    """A key-encryption key from a file that nobody but its owner may read. Raises `KekUnusable`."""
    return kek_from_text(label, read_private(path), str(path))


def read_private(path: Path) -> str:
    """The text of a small regular file of ours (or root's) that group and others cannot read or write.

    Raises `KekUnusable` otherwise, and names the permissions that are wanted.
    """
    try:
        # Without waiting: a named pipe would keep the server from starting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KekUnusable(f"{path}: {error.strerror}") from error
    try:
        # Of what was opened: the name may lead elsewhere a moment later.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KekUnusable(f"{path}: not a regular file")
        if status.st_mode & 0o077:
            raise KekUnusable(
                f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others at it; it must be 0600 or 0400"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise KekUnusable(f"{path}: owned by user {status.st_uid}, not by the server's user or root")
        raw = os.read(descriptor, KEK_TEXT_MAX + 1)
    except OSError as error:
        raise KekUnusable(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(raw) > KEK_TEXT_MAX:
        raise KekUnusable(f"{path}: longer than {KEK_TEXT_MAX} bytes")
    if not raw.isascii():
        raise KekUnusable(f"{path}: not plain text")
    return raw.decode("ascii")
