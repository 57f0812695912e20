"""A vault for a whole node in a test: its key-encryption key in a file, and tenants' keys put as the command line puts them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from config.node import FileKek, NodeConfig, VaultConfig
from tenancy.keys import open_vault
from vault import Secret

KEK = "3b" * 31 + "7f"


def vault_config(directory: Path) -> VaultConfig:
    """The section of the node's configuration; the file is made where it is not there."""
    path = directory / "kek"
    if not path.exists():
        path.touch(0o600)
        path.write_text(KEK)
    return VaultConfig(kek=FileKek(source="file", label="test", path=path))


async def keep(directory: Path, tenant_id: str, **secrets: str) -> None:
    """Put keys into the vault of the node that has its data in ``directory / "data"``, whether it runs or not."""
    vault = await open_vault(NodeConfig(data_dir=directory / "data", vault=vault_config(directory)), {})
    assert vault is not None
    try:
        for name, value in secrets.items():
            await vault.put(tenant_id, name, Secret(value), actor="test", at=datetime.now(UTC))
    finally:
        await vault.aclose()
