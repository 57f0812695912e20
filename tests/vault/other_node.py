"""A node of its own process that puts keys and rotates: ``python -m tests.vault.other_node URL NAME PUTS``."""

from __future__ import annotations

import asyncio
import sys

from tests.vault.conftest import ADA, NOON, local, on_postgres, vault_over
from vault import Conflict, Secret


async def main(url: str, name: str, puts: int) -> None:
    store = await on_postgres(url, wait_ms=20_000)
    seed = sum(name.encode())
    vault = vault_over(store, local("k2", "k1", seed=seed), seed=seed)
    conflicts = 0
    for number in range(puts):
        # One that is put by all, and one that is this node's own.
        for key in ("shared", name):
            while True:
                try:
                    await vault.put("a", key, Secret(f"{name} {number}"), actor=ADA, at=NOON)
                except Conflict:
                    conflicts += 1
                else:
                    break
        if number % 3 == 0:
            try:
                await vault.rotate_data_key("a", actor=ADA, at=NOON)
            except Conflict:
                conflicts += 1
        if number % 4 == 0:
            await vault.rotate_kek(actor=ADA, at=NOON)
    await store.aclose()
    print(f"{name} done, {conflicts} conflicts")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
