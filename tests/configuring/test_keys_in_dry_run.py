"""What a dry run says of the keys that a configuration names, without opening any of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from config.node import NodeConfig, PlatformProviders
from config.tenant import TenantConfig
from mediaserver.configuring.dry_run import dry_run, dry_run_on
from tenancy import Registry
from tenancy.keys import open_vault, vault_path
from tenancy.lifecycle import Lifecycle
from tenancy.versions import VersionState
from tests.sim import forked
from tests.sim.vault import keep, vault_config
from tests.tenancy.conftest import tenant


def keyed(*names: str) -> TenantConfig:
    """A tenant whose language models have these keys."""
    models = [{"kind": "openai", "model": f"model-{n}", "key": name} for n, name in enumerate(names)]
    document = tenant("a").model_dump(mode="json") | {"providers": {"llm": models}}
    return TenantConfig.model_validate(document)


def node(directory: Path) -> NodeConfig:
    return NodeConfig(data_dir=directory / "data", vault=vault_config(directory))


async def revoke(directory: Path, name: str) -> None:
    vault = await open_vault(node(directory), {})
    assert vault is not None
    try:
        await vault.revoke("a", name, actor="test", at=datetime.now(UTC))
    finally:
        await vault.aclose()


async def test_each_key_that_calls_would_do_without_is_a_warning_with_its_field(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    await keep(tmp_path, "a", there="sk-there", gone="sk-gone")
    await keep(tmp_path, "b", other="sk-of-somebody-else")
    await revoke(tmp_path, "gone")
    here = node(tmp_path)
    (tmp_path / "kek").unlink()  # It is not needed.
    report = await dry_run(keyed("there", "gone", "other"), PlatformProviders(), {}, here)
    assert report.errors == ()
    assert report.warnings == (
        "providers.llm.1.key: key gone was revoked; calls do without this provider",
        "providers.llm.2.key: key other is missing; calls do without this provider",
    )


async def test_without_a_vault_every_key_is_missing_and_none_is_made(tmp_path: Path) -> None:
    report = await dry_run(keyed("k"), PlatformProviders(), {})
    assert report.warnings == (
        "providers.llm.0.key: key k is missing: this node has no vault; calls do without this provider",
    )
    report = await dry_run_on(node(tmp_path), {})(keyed("k"))
    assert report.warnings == ("providers.llm.0.key: key k is missing; calls do without this provider",)
    assert not vault_path(node(tmp_path)).exists()
    assert (await dry_run(tenant("a"), PlatformProviders(), {})).warnings == ()


async def test_a_damaged_vault_is_said_and_refuses_nothing(tmp_path: Path) -> None:
    path = vault_path(node(tmp_path))
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1_000)
    report = await dry_run_on(node(tmp_path), {})(keyed("k"))
    assert report.errors == ()
    (warning,) = report.warnings
    assert warning.startswith("providers: whether the keys are there cannot be said: ")


async def test_a_version_whose_key_is_missing_can_be_activated(tmp_path: Path) -> None:
    """Its owner is told; a change of something else is not held up by a key."""
    registry = await Registry.open(tmp_path / "data", PlatformProviders(), {})
    try:
        await registry.import_tenant(tenant("a"), author="op", reason="first")
        lifecycle = Lifecycle(registry.store, dry_run=dry_run_on(node(tmp_path), {}))
        origin = lifecycle.origin("ada", "a model of ours")
        drafted = await lifecycle.draft(keyed("k"), origin)
        report = await lifecycle.validate("a", drafted.version, origin)
        assert report.errors == ()
        assert "key k is missing" in report.warnings[0]
        await lifecycle.activate("a", drafted.version, origin)
        active = (await lifecycle.ledger("a")).history.active
        assert active is not None
        assert (active.version, active.state) == (2, VersionState.ACTIVE)
    finally:
        await registry.close()


@pytest.mark.parametrize("put", [False, True])
async def test_the_command_says_it(tmp_path: Path, put: bool) -> None:
    (tmp_path / "data").mkdir()
    kek = vault_config(tmp_path).model_dump(mode="json", exclude={"older"})
    if put:
        await keep(tmp_path, "a", k="sk-there")
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"data_dir": str(tmp_path / "data"), "vault": kek}))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(keyed("k").model_dump(mode="json")))
    done = await forked.start("config", "validate", tmp_path / "a.yaml", "--config", tmp_path / "node.yaml")
    assert done.returncode == 0, done.stderr
    said = "warning: providers.llm.0.key: key k is missing; calls do without this provider"
    assert (said in done.stdout.decode()) != put
    assert b"sk-there" not in done.stdout + done.stderr
