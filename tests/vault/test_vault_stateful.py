"""Two tenants, two vaults over one store, and everything that may be done in any order: against a model of a few lines."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.vault.conftest import ADA, NOON, Clock, Interrupted, InterruptedStore, local, vault_over
from vault import SealBroken, Secret, SecretMissing, SecretRevoked, SqliteStore, Vault
from vault.audit import Head
from vault.memory import MemoryStore
from vault.records import SecretStore

TENANTS = ("a", "b")
PLACES = st.tuples(st.sampled_from(TENANTS), st.sampled_from(("k", "l")))
WHERE = st.tuples(st.integers(1, 6), st.booleans())


@dataclass
class Expected:
    """What the model says of a name."""

    version: int
    value: str | None
    """None once it is revoked."""


class TwoTenants(RuleBasedStateMachine):
    """On the store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.kek = 1
        self.seed = 0
        self.model: dict[tuple[str, str], Expected] = {}
        self.anchor: Head | None = None
        self.store: SecretStore = self.runner.run(self.new_store())
        self.vault = self.new_vault()

    async def new_store(self) -> SecretStore:
        return MemoryStore()

    def new_vault(self, store: object | None = None, keep_ms: int = 60_000) -> Vault:
        self.seed += 1
        older = [f"k{n}" for n in range(max(1, self.kek - 1), self.kek)]
        keks = local(f"k{self.kek}", *older, seed=self.seed)
        chosen: SecretStore = store or self.store  # type: ignore[assignment]
        return vault_over(chosen, keks, clock=self.clock, seed=1_000 + self.seed, keep_ms=keep_ms)

    @initialize()
    def begin(self) -> None:
        assert self.runner.run(self.vault.verify_audit()) is None

    @rule(place=PLACES, number=st.integers(0, 99))
    def put(self, place: tuple[str, str], number: int) -> None:
        old = self.model.get(place)
        expected = Expected(1 if old is None else old.version + 1, f"of {place[0]}: {number}")
        made = self.runner.run(self.vault.put(*place, Secret(str(expected.value)), actor=ADA, at=NOON))
        assert made.version == expected.version
        self.model[place] = expected

    @rule(place=PLACES)
    def revoke(self, place: tuple[str, str]) -> None:
        if place in self.model:
            self.runner.run(self.vault.revoke(*place, actor=ADA, at=NOON))
            self.model[place].value = None
        else:
            with pytest.raises(SecretMissing):
                self.runner.run(self.vault.revoke(*place, actor=ADA, at=NOON))

    @rule(tenant=st.sampled_from(TENANTS))
    def rotate_data_key(self, tenant: str) -> None:
        if any(owner == tenant for owner, _ in self.model):
            done = self.runner.run(self.vault.rotate_data_key(tenant, actor=ADA, at=NOON))
            assert done.finished
            assert len(self.runner.run(self.store.data_keys(tenant))) == 1
        else:
            with pytest.raises(SecretMissing):
                self.runner.run(self.vault.rotate_data_key(tenant, actor=ADA, at=NOON))

    @rule(tenant=st.sampled_from(TENANTS), where=WHERE)
    def a_rotation_of_the_data_key_is_interrupted(self, tenant: str, where: tuple[int, bool]) -> None:
        interrupted = self.new_vault(InterruptedStore(self.store, *where))
        with suppress(Interrupted, SecretMissing):
            self.runner.run(interrupted.rotate_data_key(tenant, actor=ADA, at=NOON))

    @rule(where=WHERE)
    def the_key_encryption_key_is_changed(self, where: tuple[int, bool]) -> None:
        self.kek += 1
        interrupted = self.new_vault(InterruptedStore(self.store, *where))
        with suppress(Interrupted):
            self.runner.run(interrupted.rotate_kek(actor=ADA, at=NOON))
        # It is gone on with by the vault that comes after; only then may the next change come.
        self.vault = self.new_vault()
        assert self.runner.run(self.vault.rotate_kek(actor=ADA, at=NOON)).finished

    @rule(place=PLACES, where=WHERE)
    def a_put_is_interrupted(self, place: tuple[str, str], where: tuple[int, bool]) -> None:
        at, after = min(where[0], 1), where[1]
        interrupted = self.new_vault(InterruptedStore(self.store, at, after))
        old = self.model.get(place)
        with pytest.raises(Interrupted):
            self.runner.run(interrupted.put(*place, Secret(f"of {place[0]}: half"), actor=ADA, at=NOON))
        if after:
            version = 1 if old is None else old.version + 1
            self.model[place] = Expected(version, f"of {place[0]}: half")

    @rule()
    def a_vault_is_started_anew(self) -> None:
        self.vault = self.new_vault()

    @rule(passed=st.integers(1, 120_000))
    def time_passes(self, passed: int) -> None:
        self.clock.now += passed

    @rule()
    def keep_the_head_elsewhere(self) -> None:
        self.anchor = self.runner.run(self.vault.audit_head())

    @invariant()
    def every_tenant_has_its_own_and_nothing_else(self) -> None:
        for tenant in TENANTS:
            for name in ("k", "l", "none"):
                self.runner.run(self._is_as_expected(tenant, name))
            listed = {info.name: info for info in self.runner.run(self.vault.list(tenant))}
            expected = {name: each for (owner, name), each in self.model.items() if owner == tenant}
            assert {name: info.version for name, info in listed.items()} == {
                name: each.version for name, each in expected.items()
            }
            assert {n for n, info in listed.items() if info.revoked_at} == {
                n for n, each in expected.items() if each.value is None
            }

    async def _is_as_expected(self, tenant: str, name: str) -> None:
        # One vault that keeps data keys open, and one that knows nothing but the store.
        for vault in (self.vault, self.new_vault(keep_ms=0)):
            expected = self.model.get((tenant, name))
            if expected is None:
                with pytest.raises(SecretMissing):
                    await vault.get(tenant, name)
            elif expected.value is None:
                with pytest.raises(SecretRevoked):
                    await vault.get(tenant, name)
            else:
                assert (await vault.get(tenant, name)).reveal() == expected.value

    @invariant()
    def the_trail_is_whole(self) -> None:
        assert self.runner.run(self.vault.verify_audit(self.anchor)) is None

    def teardown(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()


class TwoTenantsInMemory(TwoTenants):
    """With somebody who writes to the store behind the vault's back."""

    @precondition(lambda self: len([1 for each in self.model.values() if each.value is not None]) >= 2)
    @rule(data=st.data())
    def a_row_in_anothers_place_does_not_open(self, data: st.DataObject) -> None:
        store = self.store
        assert isinstance(store, MemoryStore)
        live = [place for place, each in self.model.items() if each.value is not None]
        source, target = data.draw(st.permutations(live).map(lambda order: order[:2]))
        whole, data_keys = dict(store._secrets), dict(store._data_keys)
        taken = store._secrets[source]
        store._secrets[target] = replace(
            store._secrets[target], sealed=taken.sealed, generation=taken.generation
        )
        if data.draw(st.booleans()):
            wrapped = store._data_keys[source[0], taken.generation or 0]
            store._data_keys[target[0], taken.generation or 0] = replace(
                wrapped, place=replace(wrapped.place, tenant_id=target[0])
            )
        with pytest.raises(SealBroken):
            self.runner.run(self.new_vault(keep_ms=0).get(*target))
        store._secrets, store._data_keys = whole, data_keys


class TwoTenantsOnSqlite(TwoTenants):
    """On the file."""

    async def new_store(self) -> SecretStore:
        self.directory = Path(tempfile.mkdtemp())
        return await SqliteStore.open(self.directory / "vault.db")

    @rule()
    def the_file_is_opened_again(self) -> None:
        self.runner.run(self.store.aclose())
        self.store = self.runner.run(SqliteStore.open(self.directory / "vault.db"))
        self.vault = self.new_vault()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)


TestInMemory = TwoTenantsInMemory.TestCase
TestInMemory.settings = settings(max_examples=30, stateful_step_count=25)
TestOnSqlite = TwoTenantsOnSqlite.TestCase
TestOnSqlite.settings = settings(max_examples=10, stateful_step_count=15)
