"""What a tenant's own keys cost at the beginning of a call: ``python -m perf.bench_keys``.

The chains of a call are resolved as the registry does it, without keys in the vault and with one and three, once with the
tenants' data keys still wrapped and once with them open: from the vault's file, and from a Postgres of this machine that
waits for its disk. Wall-clock percentiles and processor time of this process, in microseconds.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from config.loader import DEMO_NODE_FILE, load_node_config, load_tenants
from config.node import PlatformProviders, PostgresConfig
from config.tenant import OpenAICompatible, Providers, TenantConfig
from perf.postgres_server import NoPostgresError, postgres_server
from tenancy.keys import TenantKeys, chains_for
from tenancy.vault_database import VaultDatabase
from vault import LocalKek, LocalKeyEncryption, Secret, SecretStore, SqliteStore, Vault
from vault.open_keys import OpenKeys
from vault.postgres import PostgresSecretStore
from vault.sealing import KEY_BYTES, KeyMaterial

TENANTS = 300
ROUNDS = 5
NAMES = ("stt", "llm", "tts")


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _tenant(base: TenantConfig, number: int, *names: str) -> TenantConfig:
    chains = {
        stage: (OpenAICompatible(model="m", key=name),) for stage, name in zip(NAMES, names, strict=False)
    }
    providers = Providers().model_copy(update=chains)
    return base.model_copy(update={"tenant_id": f"t{number}", "providers": providers})


async def _measure(what: str, configs: list[TenantConfig], keys: TenantKeys) -> None:
    took: list[float] = []
    processor_s = time.process_time()
    for config in configs:
        began = time.perf_counter()
        await chains_for(config, PlatformProviders(), {}, keys)
        took.append((time.perf_counter() - began) * 1e6)
    processor_us = (time.process_time() - processor_s) * 1e6 / len(configs)
    took.sort()
    p10, p50, p99 = (took[len(took) * share // 100] for share in (10, 50, 99))
    print(f"{what:42} p10 {p10:6.0f}  p50 {p50:6.0f}  p99 {p99:6.0f}  processor {processor_us:6.0f}")


async def _run(directory: Path) -> None:
    print("from the file")
    await _run_on(await SqliteStore.open(directory / "vault.db"))
    try:
        with postgres_server(durable=True) as server:
            print("from Postgres")
            await _run_on(
                await PostgresSecretStore.open(VaultDatabase(server.new_database(), PostgresConfig()))
            )
    except NoPostgresError as error:
        print(error)


async def _run_on(store: SecretStore) -> None:
    base = load_tenants(load_node_config(DEMO_NODE_FILE, {}).tenants)[0]
    keks = LocalKeyEncryption(LocalKek("bench", KeyMaterial(os.urandom(KEY_BYTES))), [], os.urandom)
    filling = Vault(store, keks, random_bytes=os.urandom, now_ms=_now_ms)
    for number in range(TENANTS):
        for name in NAMES:
            secret = Secret(f"sk-{os.urandom(24).hex()}")
            await filling.put(f"t{number}", name, secret, actor="bench", at=datetime.now(UTC))
    for count in (0, 1, 3):
        # A vault of its own, which has opened nothing yet.
        vault = Vault(store, keks, random_bytes=os.urandom, now_ms=_now_ms, opened=OpenKeys(keks, _now_ms))
        keys = TenantKeys(vault)
        configs = [_tenant(base, number, *NAMES[:count]) for number in range(TENANTS)]
        if count:
            await _measure(f"{count} of the vault's keys, data key wrapped", configs, keys)
        await _measure(f"{count} of the vault's keys", configs * ROUNDS, keys)
    await store.aclose()


def main() -> None:
    """Run it on a folder of its own."""
    with tempfile.TemporaryDirectory() as directory:
        uvloop.run(_run(Path(directory)))


if __name__ == "__main__":
    main()
