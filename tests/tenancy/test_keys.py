"""A tenant's own keys in its chains: fetched once per call, left out with a reason, and never a reason to fail a call."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.node import EnvironmentKek, FileKek, NodeConfig, PlatformProviders, TransitKek, VaultConfig
from config.tenant import Deepgram, OpenAICompatible, Providers
from tenancy import Chains, Origin, Registry, TenantContext, resolve
from tenancy.call_keys import CallKeys, FoundKey, key_names
from tenancy.keys import HUNG_MS, WAIT_MS, TenantKeys, chains_for, open_tenant_keys, open_vault
from tenancy.providers import OPENAI_API_ROOT
from tenancy.wire import dump_context, load_context
from tests.tenancy.conftest import dialled, tenant
from tests.vault.conftest import ADA, NOON, Clock, kek, local, put, vault_over
from tests.vault.transit_server import TOKEN, transit_server
from vault import (
    KekDenied,
    KekMissing,
    KekUnusable,
    KeyRef,
    KeyResolver,
    Outcome,
    Secret,
    Service,
    SqliteStore,
)
from vault.records import Found

OWN = OpenAICompatible(model="own", key="acme")
SHARED = OpenAICompatible(model="shared", base_url="https://models.example/v1", api_key_env="SHARED_KEY")
PLATFORM = PlatformProviders(llm=(SHARED,))
ENVIRON = {"SHARED_KEY": "s", "OPENAI_BASE_URL": "http://gateway/v1"}
KEY = KeyRef("a", "acme", 3)
FOUND = {"acme": FoundKey(Secret("sk-tenant-key"), 3)}


def llm(found: dict[str, FoundKey], resolver: KeyResolver | None = None, now_ms: int = 0) -> Chains:
    keys = CallKeys("a", found, resolver or KeyResolver(), now_ms)
    return resolve(Providers(llm=(OWN,)), PLATFORM, ENVIRON, keys)


def models(chains: Chains) -> list[str | None]:
    return [step.model for step in chains.llm]


def test_a_key_in_the_vault_comes_first_and_goes_to_its_own_provider() -> None:
    chains = llm(FOUND)
    assert models(chains) == ["own", "shared", None]
    first, second, last = chains.llm
    assert (first.secret(), first.origin, first.key_ref) == ("sk-tenant-key", Origin.TENANT, KEY)
    assert first.base_url == OPENAI_API_ROOT, "not the platform's gateway"
    assert second.key_ref == KeyRef(None, "SHARED_KEY")
    assert last.key_ref is None
    assert "sk-tenant-key" not in repr(chains)
    assert tuple(map(str, chains.steps)) == (
        "stt: fallback embedded: named by the tenant",
        "llm: tenant own: named by the tenant, key from its vault; key acme version 3 is usable",
        "llm: platform shared: named by the platform, key from SHARED_KEY; key SHARED_KEY version 1 is usable",
        "llm: fallback embedded: the last step of every chain",
        "tts: fallback embedded: named by the tenant",
    )


@pytest.mark.parametrize("reason", ["is missing", "was revoked", "is unreadable (KekMissing)"])
def test_a_key_that_cannot_be_had_costs_its_step_and_says_why(reason: str) -> None:
    chains = llm({"acme": FoundKey(None, reason=reason)})
    assert models(chains) == ["shared", None]
    assert chains.skipped == (f"llm: tenant own: key acme {reason}",)
    assert chains.skipped[0] in map(str, chains.steps)


def test_a_key_without_a_vault_is_no_reason_to_take_the_platforms_for_it() -> None:
    chains = resolve(Providers(llm=(OWN,), use_platform=False), PLATFORM, {**ENVIRON, "OPENAI_API_KEY": "p"})
    assert models(chains) == [None]
    assert chains.skipped == ("llm: tenant own: key acme is missing: this node has no vault",)


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.OUT_OF_QUOTA, Outcome.RATE_LIMITED])
def test_a_key_that_its_provider_refuses_is_left_out_until_its_hold_off_is_over(outcome: Outcome) -> None:
    resolver = KeyResolver()
    resolver.report(Service.LLM, KEY, outcome, began_ms=0, now_ms=10, retry_after_ms=5_000)
    chains = llm(FOUND, resolver, 20)
    assert models(chains) == ["shared", None]
    assert f"llm: tenant own: key acme version 3 is {outcome.value} for" in chains.skipped[0]
    assert models(llm({"acme": FoundKey(Secret("sk-put-anew"), 4)}, resolver, 20)) == ["own", "shared", None]
    later = llm(FOUND, resolver, 70_000)
    assert models(later) == ["own", "shared", None]
    assert "may be tried again" in later.llm[0].reason


def test_all_keys_may_be_refused_and_the_fallback_is_left() -> None:
    resolver = KeyResolver()
    for key in (KEY, KeyRef(None, "SHARED_KEY")):
        resolver.report(Service.LLM, key, Outcome.DENIED, began_ms=0, now_ms=0)
    chains = llm(FOUND, resolver, 1)
    assert models(chains) == [None]
    assert len(chains.skipped) == 2


def test_another_service_with_the_same_key_is_not_held_off() -> None:
    resolver = KeyResolver()
    resolver.report(Service.TTS, KEY, Outcome.DENIED, began_ms=0, now_ms=0)
    assert models(llm(FOUND, resolver, 1)) == ["own", "shared", None]


steps = st.sampled_from(
    [OWN, SHARED, OpenAICompatible(model="m"), OpenAICompatible(model="l", base_url="http://l/v1")]
)
outcomes = st.lists(
    st.tuples(st.sampled_from([KEY, KeyRef(None, "SHARED_KEY")]), st.sampled_from(list(Outcome))), max_size=6
)


@given(st.lists(steps, min_size=1, max_size=4), st.booleans(), st.booleans(), outcomes)
def test_every_step_is_taken_or_left_out_once_and_every_chain_ends_in_the_fallback(
    own: list[OpenAICompatible], use_platform: bool, found: bool, reports: list[tuple[KeyRef, Outcome]]
) -> None:
    resolver = KeyResolver()
    for at, (key, outcome) in enumerate(reports):
        resolver.report(Service.LLM, key, outcome, began_ms=at, now_ms=at)
    keys = CallKeys("a", FOUND if found else {"acme": FoundKey(None, reason="is missing")}, resolver, 10)
    providers = Providers(llm=tuple(own), use_platform=use_platform)
    chains = resolve(providers, PLATFORM, ENVIRON, keys)
    assert chains.llm[-1].kind == "embedded"
    llm_steps = [step for step in chains.steps if step.service == "llm"]
    skipped = [line for line in chains.skipped if line.startswith("llm: ")]
    assert len(llm_steps) == len(chains.llm) + len(skipped) == len(own) + use_platform + 1
    for step in chains.llm:
        assert step.key_ref is None or not resolver.held_off(Service.LLM, step.key_ref, 10)
    without = resolve(providers, PLATFORM, ENVIRON)
    rest = [step for step in without.llm if step.model != "own"]
    assert all(step.key_ref is None for step in rest), "no vault: nothing is kept about keys"


def test_names_of_keys_each_once() -> None:
    providers = Providers(stt=(Deepgram(key="dg"), OWN), llm=(OWN,), tts=(SHARED,))
    assert key_names(providers) == ("dg", "acme")


def test_a_context_keeps_its_keys_names_across_the_socket_to_a_worker() -> None:
    chains = llm(FOUND)
    config = tenant("a")
    context = TenantContext(
        "a", "c", "+15550100", "any", config, 1, "hash", chains.stt, chains.llm, chains.tts, chains.skipped
    )
    again = load_context(dump_context(context, config.model_dump_json()))
    assert again == context
    assert again.llm[0].key_ref == KEY


# -- the vault of a node ---------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "vault.db")
    yield store
    await store.aclose()


def keyed(*names: str) -> Providers:
    return Providers(llm=tuple(OpenAICompatible(model=name, key=name) for name in names))


async def test_keys_are_fetched_with_their_version_and_told_to_the_log_first(store: SqliteStore) -> None:
    seen: list[str] = []
    vault = vault_over(store)
    for value in ("first-key-of-a", "second-key-of-a"):
        await put(vault, "a", "acme", value)
    await put(vault, "a", "gone", "key-that-goes")
    await vault.revoke("a", "gone", actor=ADA, at=NOON)
    keys = TenantKeys(vault, on_secret=seen.append)
    fetched = await keys.fetch("a", ("acme", "gone", "never"))
    assert fetched.found["acme"] == FoundKey(Secret("second-key-of-a"), 2)
    assert fetched.found["gone"].reason == "was revoked"
    assert fetched.found["never"].reason == "is missing"
    assert seen == ["second-key-of-a"]
    assert (await keys.fetch("b", ("acme",))).found["acme"].reason == "is missing", "another tenant's"


async def test_a_context_has_the_keys_that_are_in_the_vault_when_the_call_comes(
    tmp_path: Path, store: SqliteStore
) -> None:
    registry = await Registry.open(tmp_path / "data", PLATFORM, ENVIRON)
    try:
        vault = vault_over(store)
        registry.keys = TenantKeys(vault)
        changed = tenant("a").model_copy(update={"providers": keyed("acme")})
        await registry.import_tenant(changed, author="test", reason="test")
        await registry.import_tenant(tenant("b", "+15550101"), author="test", reason="test")

        async def call(number: str = "+15550100") -> TenantContext:
            return await registry.context_for(dialled(number), call_id="c")

        assert [step.model for step in (await call()).llm] == ["shared", None]
        await put(vault, "a", "acme", "key-of-a")
        context = await call()
        assert [step.secret() for step in context.llm] == ["key-of-a", "s", None]
        assert context.has_vault_keys
        registry.keys.resolver.report(
            Service.LLM, KeyRef("a", "acme"), Outcome.DENIED, began_ms=0, now_ms=registry.keys.now_ms()
        )
        held = await call()
        assert [step.secret() for step in held.llm] == ["s", None]
        assert "is denied" in held.skipped_providers[0]
        await put(vault, "a", "acme", "key-put-anew")
        assert (await call()).llm[0].secret() == "key-put-anew"
        other = await call("+15550101")
        assert not other.has_vault_keys
        assert [step.key_ref for step in other.llm] == [None, None]
    finally:
        await registry.close()


class Hanging:
    """Key-encryption keys that answer when a test says so."""

    def __init__(self) -> None:
        self.inner = local()
        self.answers = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def unwrap(self, *given: object) -> object:
        await self.answers.wait()
        return await self.inner.unwrap(*given)  # type: ignore[arg-type]


async def test_a_key_service_that_hangs_costs_a_call_its_keys_and_a_bounded_wait(store: SqliteStore) -> None:
    await put(vault_over(store), "a", "acme", "key-of-a")
    hanging, clock = Hanging(), Clock()
    keys = TenantKeys(vault_over(store, hanging, clock=clock, keep_ms=60_000), now_ms=clock)  # type: ignore[arg-type]
    first = await keys.fetch("a", ("acme",))
    assert first.found["acme"].reason == f"was not read within {WAIT_MS} ms"
    second = await keys.fetch("a", ("acme",))
    assert second.found["acme"].reason == "was not read within 25 ms"
    hanging.answers.set()
    clock.now += HUNG_MS
    assert (await keys.fetch("a", ("acme",))).found["acme"].secret == Secret("key-of-a")


class HalfRotated:
    """A store in which one key is sealed as it was before its data key was rotated."""

    def __init__(self, inner: SqliteStore, old: Mapping[str, Found]) -> None:
        self.inner, self.old = inner, old

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def several(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, Found]:
        return {**await self.inner.several(tenant_id, names), **self.old}


async def test_a_key_that_hangs_does_not_hold_the_same_calls_others_up(store: SqliteStore) -> None:
    await put(vault_over(store), "a", "sealed", "of-the-old")
    old = await store.several("a", ("sealed",))
    await vault_over(store).rotate_data_key("a", actor=ADA, at=NOON)
    await put(vault_over(store), "a", "open", "of-the-new")
    hanging, clock = Hanging(), Clock()
    vault = vault_over(HalfRotated(store, old), hanging, clock=clock, keep_ms=60_000)  # type: ignore[arg-type]
    hanging.answers.set()
    assert await vault.fetch("a", "open")
    hanging.answers.clear()
    found = (await TenantKeys(vault, now_ms=clock).fetch("a", ("sealed", "missing", "open"))).found
    assert found["sealed"].reason == f"was not read within {WAIT_MS} ms"
    assert found["missing"].reason == "is missing"
    assert found["open"].secret == Secret("of-the-new")


@pytest.fixture
def kek_file(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.touch(0o600)
    path.write_text("11" * 31 + "12")
    return path


def node(directory: Path, vault: VaultConfig | None) -> NodeConfig:
    return NodeConfig(data_dir=directory / "data", vault=vault)


async def fill(config: NodeConfig, environ: dict[str, str] | None = None) -> None:
    vault = await open_vault(config, environ or {})
    assert vault is not None
    await put(vault, "a", "acme", "key-of-a")
    await vault.aclose()


async def test_no_section_no_vault(tmp_path: Path) -> None:
    assert await open_tenant_keys(node(tmp_path, None), {}) is None
    assert not (tmp_path / "data").exists()


async def test_a_key_encryption_key_from_a_file_and_the_next_from_a_variable(
    tmp_path: Path, kek_file: Path
) -> None:
    old = FileKek(source="file", label="k1", path=kek_file)
    await fill(node(tmp_path, VaultConfig(kek=old)))
    new = EnvironmentKek(source="env", label="k2", variable="KEK")
    environ = {"KEK": "22" * 31 + "23"}
    keys = await open_tenant_keys(node(tmp_path, VaultConfig(kek=new, older=(old,))), environ)
    assert keys is not None
    assert (await keys.fetch("a", ("acme",))).found["acme"].secret == Secret("key-of-a")
    await keys.aclose()
    with pytest.raises(KekMissing, match=r"k1:[0-9a-f]{8}") as caught:
        await open_tenant_keys(node(tmp_path, VaultConfig(kek=new)), environ)
    assert caught.value.kek_id.startswith("k1:")


async def test_a_key_encryption_key_that_is_gone_at_the_start_is_named(
    tmp_path: Path, kek_file: Path
) -> None:
    config = node(tmp_path, VaultConfig(kek=FileKek(source="file", path=kek_file)))
    await fill(config)
    kek_file.rename(tmp_path / "elsewhere")  # noqa: ASYNC240 - the test's own file
    with pytest.raises(KekUnusable, match=rf"{kek_file}: No such file.*wrapped by node:[0-9a-f]{{8}}"):
        await open_tenant_keys(config, {})


async def test_one_tenants_data_key_under_a_key_that_is_gone_is_found(store: SqliteStore) -> None:
    await put(vault_over(store, local("k1")), "a", "acme", "x" * 9)
    both = local("k2", "k1")
    await vault_over(store, both).rotate_data_key("a", actor=ADA, at=NOON)
    with pytest.raises(KekMissing, match=kek("k1").id):
        await vault_over(store, local("k2")).check_keks()
    await vault_over(store, both).check_keks()
    await vault_over(store, both).rotate_kek(actor=ADA, at=NOON)
    await vault_over(store, local("k2")).check_keks()


async def test_a_key_service_from_the_configuration_and_what_it_refuses(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    async with transit_server() as server:
        transit = TransitKek(
            source="transit", url=server.url, key="tenants", token_file=token, timeout_ms=500
        )
        config = node(tmp_path, VaultConfig(kek=transit))
        await fill(config)
        keys = await open_tenant_keys(config, {})
        assert keys is not None
        assert (await keys.fetch("a", ("acme",))).found["acme"].secret == Secret("key-of-a")
        await keys.aclose()
        token.write_text("another")
        with pytest.raises(KekDenied):
            await open_tenant_keys(config, {})
        token.write_text(TOKEN)
    # It is down now: the node starts all the same, and its calls go without the tenants' keys.
    keys = await open_tenant_keys(config, {})
    assert keys is not None
    assert "is unreadable" in (await keys.fetch("a", ("acme",))).found["acme"].reason
    chains = await chains_for(
        tenant("a").model_copy(update={"providers": keyed("acme")}), PLATFORM, ENVIRON, keys
    )
    assert models(chains) == ["shared", None]
    await keys.aclose()


async def test_a_damaged_key_costs_its_step_and_not_the_call(store: SqliteStore, tmp_path: Path) -> None:
    vault = vault_over(store)
    await put(vault, "a", "acme", "key-of-a")
    await put(vault, "a", "whole", "another-of-a")
    with sqlite3.connect(tmp_path / "vault.db") as damage:
        damage.execute("UPDATE secrets SET sealed = zeroblob(40) WHERE name = 'acme'")
    damage.close()
    found = (await TenantKeys(vault).fetch("a", ("acme", "whole"))).found
    assert found["acme"].reason == "is unreadable (SealBroken)"
    assert found["whole"].secret == Secret("another-of-a")
