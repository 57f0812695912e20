"""Synthesised phrases, kept so that they play without asking anybody.

Fixed phrases (greeting, apologies) live on disk, made once per voice and text; what else was synthesised is kept in
memory, least recently used first out. The key is what was asked for, so a changed greeting is a different phrase.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenancy import TenantContext

PHRASE_RATE_HZ = 24_000
"""Sample rate of cached phrases (OpenAI's speech API delivers it)."""
DEFAULT_MEMORY_BYTES = 64 * 1024 * 1024
MAX_PINNED_BYTES = 256 * 1024 * 1024
"""Fixed phrases of about 200 tenants."""
MAX_PHRASE_BYTES = 4 * 1024 * 1024
"""A longer phrase (about 87 s) is not kept."""


@dataclass(frozen=True, slots=True)
class PhraseKey:
    """What makes two phrases sound the same."""

    voice: str
    """Whose phrase it is, provider and voice: the same name may be two voices at two providers, and no tenant hears
    what another's provider made."""
    speed: float
    text: str

    @classmethod
    def of(cls, owner: str, provider: str, voice: str, speed: float, text: str) -> PhraseKey:
        """The key of a text of a tenant as the first provider of its chain speaks it."""
        return cls(f"{owner}/{provider}/{voice}", speed, text.strip())

    @property
    def digest(self) -> str:
        """A file name for this key."""
        material = f"{PHRASE_RATE_HZ}\0{self.voice}\0{self.speed}\0{self.text}"
        return hashlib.sha256(material.encode()).hexdigest()


class PhraseCache:
    """PCM by phrase: signed 16-bit mono at `PHRASE_RATE_HZ`."""

    def __init__(self, directory: Path, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._held_bytes = 0
        self._pinned: dict[str, bytes] = {}
        self._pinned_bytes = 0
        self._phrases: OrderedDict[str, bytes] = OrderedDict()
        self.on_put: Callable[[str, bytes], None] | None = None
        """Told of every phrase that is put here: the workers get it too."""

    def get(self, key: PhraseKey) -> bytes | None:
        """The phrase from memory, or None. Never touches the disk: this runs in a call."""
        digest = key.digest
        if digest in self._pinned:
            return self._pinned[digest]
        pcm = self._phrases.get(digest)
        if pcm is not None:
            self._phrases.move_to_end(digest)
        return pcm

    def spoken(self, tenant: TenantContext, text: str) -> bytes | None:
        """A fixed phrase of a tenant, in the voice that they have."""
        voice = tenant.config.voice
        return self.get(PhraseKey.of(tenant.tenant_id, tenant.phrase_voice, voice.name, voice.speed, text))

    def _pin(self, key: PhraseKey, pcm: bytes) -> None:
        """Keep a fixed phrase for good: an apology is needed when nothing else works, and used least.

        Past the limit it takes its chance with the others.
        """
        digest = key.digest
        if digest in self._pinned:
            return
        if self._pinned_bytes + len(pcm) > MAX_PINNED_BYTES:
            self.put(key, pcm)
            return
        self._pinned[digest] = pcm
        self._pinned_bytes += len(pcm)

    def put(self, key: PhraseKey, pcm: bytes) -> None:
        """Keep a phrase in memory, at the cost of the least recently used, and tell who asked to be told."""
        self.keep(key.digest, pcm)
        if self.on_put is not None:
            self.on_put(key.digest, pcm)

    def keep(self, digest: str, pcm: bytes) -> None:
        """The same for a phrase that another process made."""
        if not pcm or len(pcm) > min(MAX_PHRASE_BYTES, self._memory_bytes):
            return
        self._held_bytes -= len(self._phrases.pop(digest, b""))
        self._phrases[digest] = pcm
        self._held_bytes += len(pcm)
        while self._held_bytes > self._memory_bytes:
            _, evicted = self._phrases.popitem(last=False)
            self._held_bytes -= len(evicted)

    async def load(self, key: PhraseKey) -> bool:
        """Bring a phrase from disk to memory; False when the disk does not have it."""
        if key.digest in self._pinned:
            return True
        pcm = await asyncio.to_thread(self._read, key)
        if pcm is None:
            return False
        self._pin(key, pcm)
        return True

    async def load_all(self, keys: Sequence[PhraseKey]) -> None:
        """Bring phrases from disk to memory, as far as the disk has them."""
        missing = [key for key in keys if key.digest not in self._pinned]
        if not missing:
            return
        found = await asyncio.to_thread(lambda: [self._read(key) for key in missing])
        for key, pcm in zip(missing, found, strict=True):
            if pcm is not None:
                self._pin(key, pcm)

    def held(self) -> Iterator[tuple[str, bytes]]:
        """The phrases that are in memory alone, least recently used first."""
        yield from tuple(self._phrases.items())

    async def store(self, key: PhraseKey, pcm: bytes) -> None:
        """Keep a fixed phrase in memory, for good, and on disk."""
        self._pin(key, pcm)
        await asyncio.to_thread(self._write, key, pcm)

    def _path(self, key: PhraseKey) -> Path:
        return self._directory / f"{key.digest}.pcm"

    def _read(self, key: PhraseKey) -> bytes | None:
        try:
            pcm = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        return pcm if pcm and len(pcm) % 2 == 0 else None

    def _write(self, key: PhraseKey, pcm: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed, so that a crash never leaves half a phrase under its name.
        partial = self._path(key).with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(pcm)
        partial.replace(self._path(key))
