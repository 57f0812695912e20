"""A node's data folder for a doctor to look at, and a way to know that it changed nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from config.node import HttpConfig, MediaConfig, ModelsConfig, NodeConfig, PlatformProviders, SipConfig
from mediaserver.doctor.checks import Check
from mediaserver.doctor.command import examine_node
from tenancy import Registry
from tests.tenancy.conftest import postgres, tenant

__all__ = ["Patient", "patient", "postgres"]


class Patient:
    """A node that does not run, on ports that the system chooses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.config = NodeConfig(
            data_dir=self.data,
            sip=SipConfig(host="127.0.0.1", port=0),
            media=MediaConfig(host="127.0.0.1", first_port=0, port_count=2),
            http=HttpConfig(host="127.0.0.1", port=0),
            models=ModelsConfig(),
        )

    async def fill(self, *tenants: str) -> None:
        """Make the files as a node does that started and ended."""
        registry = await Registry.open(self.data, PlatformProviders(), {})
        try:
            for number, each in enumerate(tenants):
                await registry.import_tenant(tenant(each, f"+1555{number:04}"), author="test", reason="test")
        finally:
            await registry.close()

    def set(self, **changes: object) -> None:
        """Change its configuration."""
        self.config = self.config.model_copy(update=changes)

    async def examine(
        self, environ: Mapping[str, str] | None = None, *, every_tenant: bool = False
    ) -> dict[str, Check]:
        """All checks by their names; nothing that is there is changed by them."""
        before = contents(self.data)
        checks = await examine_node(self.config, environ or {}, every_tenant=every_tenant)
        assert contents(self.data) == before, "a doctor only looks"
        assert len({each.name for each in checks}) == len(checks)
        return {each.name: each for each in checks}


def contents(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file, what is in it and when it was written."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)
