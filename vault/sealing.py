"""How secrets and data keys are sealed: formats, associated data, and nothing that reads a clock. Sans-IO.

AES-256-GCM (NIST SP 800-38D) of the `cryptography` library; nonces are 96 random bits that come in from outside. A data
key seals a few thousand values in its life, far below the 2^32 at which random nonces become a risk (8.3 there).

A sealed secret, format 1::

    0x01 | generation of the data key, 4 bytes | nonce, 12 bytes | ciphertext and 16-byte tag

    associated data: "vault/secret" 0x00 | the first 5 bytes above | tenant id | name | version, 8 bytes

A wrapped data key under a local key-encryption key, format 1::

    0x01 | nonce, 12 bytes | ciphertext of the 32-byte key and 16-byte tag

    associated data: "vault/data-key" 0x00 | 0x01 | id of the key-encryption key | tenant id | generation, 4 bytes

What a key service wraps, format 2, is a payload that says itself whose it is, as its rewrapping takes no associated data::

    0x02 | key, 32 bytes | SHA-256 of ("vault/data-key" 0x00 | 0x02 | tenant id | generation, 4 bytes)

Numbers are big-endian, texts UTF-8 with their length in 2 bytes before them, so that no two sets of values make the same
associated data. A row that is copied to another tenant, name, version or generation therefore does not open.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vault.errors import SealBroken
from vault.secret import SECRET_BYTES_MAX, Secret

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SECRET_FORMAT: Final = 1
LOCAL_WRAP_FORMAT: Final = 1
PAYLOAD_FORMAT: Final = 2
_SECRET_HEADER_BYTES: Final = 5
SEALED_BYTES_MAX: Final = _SECRET_HEADER_BYTES + NONCE_BYTES + SECRET_BYTES_MAX + TAG_BYTES
WRAPPED_BYTES_MAX: Final = 2_048
"""A key service's ciphertext is a few hundred bytes."""
_SECRET_LABEL: Final = b"vault/secret\x00"
_DATA_KEY_LABEL: Final = b"vault/data-key\x00"


class KeyMaterial:
    """32 bytes that seal something. Neither their text nor a pickle shows them."""

    __slots__ = ("__value",)

    def __init__(self, value: bytes) -> None:
        self.__value = value
        if len(value) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(value)}")

    def reveal(self) -> bytes:
        """The bytes, for a cipher or a key service."""
        return self.__value

    def derive(self, purpose: bytes) -> bytes:
        """A key of 32 bytes for one purpose (HKDF-SHA-256, RFC 5869)."""
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=purpose).derive(self.__value)

    def __repr__(self) -> str:
        return "KeyMaterial(…)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a key is not pickled")


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """Where a sealed secret belongs."""

    tenant_id: str
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a wrapped data key belongs."""

    tenant_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is stored."""

    kek_id: str
    """What wrapped it."""
    blob: bytes


def seal(secret: Secret, key: KeyMaterial, generation: int, place: SecretPlace, nonce: bytes) -> bytes:
    """Seal a secret under a tenant's data key of this generation."""
    header = bytes([SECRET_FORMAT]) + generation.to_bytes(4, "big")
    _check_nonce(nonce)
    sealed = AESGCM(key.reveal()).encrypt(nonce, secret.reveal().encode(), _secret_data(header, place))
    return header + nonce + sealed


def sealed_generation(sealed: bytes) -> int:
    """The generation of the data key that opens it. Raises `SealBroken` for another format."""
    if not _SECRET_HEADER_BYTES + NONCE_BYTES + TAG_BYTES < len(sealed) <= SEALED_BYTES_MAX:
        raise SealBroken(f"a sealed secret has {len(sealed)} bytes")
    if sealed[0] != SECRET_FORMAT:
        raise SealBroken(f"a sealed secret is of format {sealed[0]}; this program knows {SECRET_FORMAT}")
    return int.from_bytes(sealed[1:_SECRET_HEADER_BYTES], "big")


def unseal(sealed: bytes, key: KeyMaterial, place: SecretPlace) -> Secret:
    """Open a sealed secret.

    Raises:
        SealBroken: it is damaged, or was sealed for another place or under another key.
    """
    sealed_generation(sealed)
    header, rest = sealed[:_SECRET_HEADER_BYTES], sealed[_SECRET_HEADER_BYTES:]
    try:
        plain = AESGCM(key.reveal()).decrypt(
            rest[:NONCE_BYTES], rest[NONCE_BYTES:], _secret_data(header, place)
        )
    except InvalidTag:
        raise SealBroken(
            f"{place.tenant_id}: {place.name} version {place.version} does not open: damaged, or of another place"
        ) from None
    return Secret(plain.decode())


def wrap_locally(key: KeyMaterial, kek: KeyMaterial, kek_id: str, place: KeyPlace, nonce: bytes) -> bytes:
    """Wrap a data key under a key-encryption key that is at hand."""
    _check_nonce(nonce)
    sealed = AESGCM(kek.reveal()).encrypt(nonce, key.reveal(), _wrap_data(kek_id, place))
    return bytes([LOCAL_WRAP_FORMAT]) + nonce + sealed


def unwrap_locally(wrapped: bytes, kek: KeyMaterial, kek_id: str, place: KeyPlace) -> KeyMaterial:
    """Unwrap what `wrap_locally` made. Raises `SealBroken`."""
    if len(wrapped) != 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES or wrapped[0] != LOCAL_WRAP_FORMAT:
        raise broken_key(place)
    try:
        plain = AESGCM(kek.reveal()).decrypt(
            wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :], _wrap_data(kek_id, place)
        )
    except InvalidTag:
        raise broken_key(place) from None
    return KeyMaterial(plain)


def payload(key: KeyMaterial, place: KeyPlace) -> bytes:
    """What a key service is given to wrap: the key and whose it is."""
    return bytes([PAYLOAD_FORMAT]) + key.reveal() + _owner(place)


def from_payload(plain: bytes | None, place: KeyPlace) -> KeyMaterial | None:
    """The key out of what a key service unwrapped; None where it is another's or none at all.

    No error: the frame that raised it would hold the key.
    """
    if plain is None or plain[:1] != bytes([PAYLOAD_FORMAT]):
        return None
    if not hmac.compare_digest(plain[1 + KEY_BYTES :], _owner(place)):
        return None
    return KeyMaterial(plain[1 : 1 + KEY_BYTES])


def broken_key(place: KeyPlace) -> SealBroken:
    """The error for a wrapped data key that does not open."""
    return SealBroken(
        f"{place.tenant_id}: data key {place.generation} does not open: damaged, or of another place"
    )


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")


def _secret_data(header: bytes, place: SecretPlace) -> bytes:
    return (
        _SECRET_LABEL + header + _text(place.tenant_id) + _text(place.name) + place.version.to_bytes(8, "big")
    )


def _wrap_data(kek_id: str, place: KeyPlace) -> bytes:
    return _DATA_KEY_LABEL + bytes([LOCAL_WRAP_FORMAT]) + _text(kek_id) + _key_place(place)


def _owner(place: KeyPlace) -> bytes:
    return hashlib.sha256(_DATA_KEY_LABEL + bytes([PAYLOAD_FORMAT]) + _key_place(place)).digest()


def _key_place(place: KeyPlace) -> bytes:
    return _text(place.tenant_id) + place.generation.to_bytes(4, "big")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded
