"""`admin.ports.AuditTrail` in the store."""

from __future__ import annotations

from typing import Final

from admin.audit import EMPTY, Head, Verifier, normal
from admin.ports import Deed, Entry
from admin.store import PAGE_MAX, AdminStore

VERIFIED_AT_ONCE: Final = 500


class StoredAuditTrail:
    """The trail. Nothing in this program deletes an entry: keeping it is for good."""

    def __init__(self, store: AdminStore) -> None:
        self._store = store
        self._seen = EMPTY
        """The last head that this process knows of: a trail that is put back behind it is found."""

    async def append(self, deed: Deed) -> None:
        self._note(await self._store.append(normal(deed)))

    async def page(self, *, tenant_id: str | None, after: int, limit: int) -> tuple[Entry, ...]:
        return await self._store.entries(tenant_id=tenant_id, after=after, limit=min(limit, PAGE_MAX))

    async def head(self) -> Head:
        """Where the trail ends, to be kept elsewhere."""
        return (await self._store.ends())[0]

    async def verify(self, anchor: Head | None = None) -> str | None:
        """What is wrong with the chain first, or None. ``anchor``: a head that was kept elsewhere."""
        for known in {self._seen, anchor or EMPTY}:
            if (finding := await self._verify(known)) is not None:
                return finding
        return None

    async def _verify(self, anchor: Head) -> str | None:
        # The end first: what is entered meanwhile is beyond it, and left to the next time.
        head, last = await self._store.ends()
        verifier, after = Verifier(anchor), 0
        while page := await self._store.entries(tenant_id=None, after=after, limit=VERIFIED_AT_ONCE):
            for entry in page:
                if entry.sequence > max(head.sequence, last):
                    return self._sound(verifier, head)
                if (finding := verifier.take(entry)) is not None:
                    return finding
            after = page[-1].sequence
        return self._sound(verifier, head)

    def _sound(self, verifier: Verifier, head: Head) -> str | None:
        finding = verifier.end(head)
        if finding is None:
            self._note(head)
        return finding

    def _note(self, head: Head) -> None:
        if head.sequence > self._seen.sequence:
            self._seen = head
