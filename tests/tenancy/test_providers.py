"""Who serves a call, and why: the chain from tenant to platform to this machine."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.node import PlatformProviders
from config.tenant import Deepgram, Embedded, OpenAICompatible, Provider, Providers
from tenancy import Chains, Origin, ResolvedProvider, resolve
from tenancy.providers import DEEPGRAM_API_ROOT, DEFAULT_LLM_MODEL, OPENAI_API_ROOT

SECRET = "sk-secret"
OWN = OpenAICompatible(model="own", api_key_env="TENANT_KEY")
LOCAL = OpenAICompatible(model="local", base_url="http://127.0.0.1:9000/v1")
SHARED = OpenAICompatible(model="shared", base_url="https://models.example/v1", api_key_env="SHARED_KEY")


def llm(
    own: tuple[Provider, ...],
    environ: Mapping[str, str],
    platform: tuple[OpenAICompatible, ...] = (),
    *,
    use_platform: bool = True,
) -> Chains:
    return resolve(Providers(llm=own, use_platform=use_platform), PlatformProviders(llm=platform), environ)


def summary(chain: tuple[ResolvedProvider, ...]) -> list[tuple[str, str | None]]:
    return [(str(step.origin), step.model) for step in chain]


FALLBACK = ("fallback", None)


def test_a_fresh_machine_uses_its_own_models() -> None:
    chains = resolve(Providers(), PlatformProviders(), {})
    for chain in (chains.stt, chains.llm, chains.tts):
        assert [(step.kind, step.origin) for step in chain] == [("embedded", Origin.FALLBACK)]
    assert chains.skipped == ()


def test_a_key_in_the_environment_gives_the_same_tenant_a_real_language_model() -> None:
    chains = resolve(Providers(), PlatformProviders(), {"OPENAI_API_KEY": SECRET})
    assert summary(chains.llm) == [("platform", DEFAULT_LLM_MODEL), FALLBACK]
    first = chains.llm[0]
    assert (first.base_url, first.secret(), first.reason) == (
        OPENAI_API_ROOT,
        SECRET,
        "OPENAI_API_KEY is set",
    )
    # It says nothing about speech: that stays on this machine.
    assert summary(chains.stt) == summary(chains.tts) == [FALLBACK]


def test_url_and_model_of_the_implicit_language_model_are_honoured() -> None:
    environ = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://sim:1/v1", "OPENAI_MODEL": "m"}
    (first, _) = llm((Embedded(),), environ).llm
    assert (first.base_url, first.model) == ("http://sim:1/v1", "m")


@pytest.mark.parametrize("url", ["sim:1/v1", "ftp://sim/v1", "http://", "http://sim/v1?key=1", "http://s im"])
def test_an_unusable_url_in_the_environment_costs_the_step_and_not_the_call(url: str) -> None:
    chains = llm((Embedded(),), {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": url})
    assert summary(chains.llm) == [FALLBACK]
    assert len(chains.skipped) == 1
    assert "OPENAI_BASE_URL" in chains.skipped[0]


def test_tenant_then_platform_then_embedded() -> None:
    environ = {"TENANT_KEY": "t", "SHARED_KEY": "s", "OPENAI_API_KEY": SECRET}
    chains = llm((Embedded(), OWN, LOCAL), environ, (SHARED,))
    assert summary(chains.llm) == [("tenant", "own"), ("tenant", "local"), ("platform", "shared"), FALLBACK]
    assert [step.secret() for step in chains.llm] == ["t", None, "s", None]
    assert chains.llm[-1].reason == "named by the tenant"


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_provider_without_its_key_is_left_out_and_says_why(value: str | None) -> None:
    environ = {} if value is None else {"TENANT_KEY": value, "SHARED_KEY": value}
    chains = llm((OWN,), environ, (SHARED,))
    assert summary(chains.llm) == [FALLBACK]
    assert chains.skipped == (
        "llm: tenant own: TENANT_KEY is not set",
        "llm: platform shared: SHARED_KEY is not set",
    )


def test_a_tenants_own_key_does_not_go_to_the_platforms_gateway() -> None:
    environ = {"TENANT_KEY": "t", "OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://gateway:1/v1"}
    tenant, platform, _ = llm((OWN,), environ).llm
    assert (tenant.base_url, tenant.secret()) == (OPENAI_API_ROOT, "t")
    assert (platform.base_url, platform.secret()) == ("http://gateway:1/v1", SECRET)


def test_the_platforms_key_does_not_go_to_a_tenants_url() -> None:
    local = llm((LOCAL,), {"OPENAI_API_KEY": SECRET}).llm[0]
    assert (local.model, local.secret()) == ("local", None)


def test_only_a_model_means_that_model_on_the_platforms_account() -> None:
    bare = OpenAICompatible(model="bigger")
    environ = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://gateway:1/v1"}
    first = llm((bare,), environ).llm[0]
    assert (first.origin, first.model, first.base_url, first.secret()) == (
        Origin.TENANT,
        "bigger",
        "http://gateway:1/v1",
        SECRET,
    )
    assert "OPENAI_API_KEY is not set" in llm((bare,), {}).skipped[0]
    assert "use_platform" in llm((bare,), environ, use_platform=False).skipped[0]


def test_a_tenant_that_keeps_to_itself_gets_nothing_of_the_platform() -> None:
    chains = llm((LOCAL,), {"OPENAI_API_KEY": SECRET, "SHARED_KEY": "s"}, (SHARED,), use_platform=False)
    assert summary(chains.llm) == [("tenant", "local"), FALLBACK]


def test_keys_are_in_no_text() -> None:
    chains = resolve(Providers(llm=(OWN,)), PlatformProviders(), {"TENANT_KEY": SECRET})
    step = chains.llm[0]
    assert step.secret() == SECRET
    for text in (repr(chains), str(step), f"{step}", step.name, step.reason):
        assert SECRET not in text


def test_a_password_in_the_platforms_url_is_not_in_the_name() -> None:
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"http://me:{SECRET}@gateway:1/v1"}
    assert llm((Embedded(),), environ).llm[0].name == f"platform:gateway:1/{DEFAULT_LLM_MODEL}"


STEPS = st.sampled_from([OWN, LOCAL, SHARED, OpenAICompatible(model="bare")])
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(["TENANT_KEY", "SHARED_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"]),
    st.text(max_size=20),
)


@given(
    own=st.lists(st.one_of(STEPS, st.just(Embedded())), min_size=1, max_size=4),
    shared=st.lists(STEPS, max_size=4),
    environ=ENVIRONMENTS,
    use_platform=st.booleans(),
)
def test_every_chain_ends_with_the_embedded_models_and_accounts_for_every_step(
    own: list[Provider], shared: list[OpenAICompatible], environ: dict[str, str], use_platform: bool
) -> None:
    chains = llm(tuple(own), environ, tuple(shared), use_platform=use_platform)
    *others, last = chains.llm
    assert (last.kind, last.origin) == ("embedded", Origin.FALLBACK)
    assert all(step.kind == "openai" and step.base_url and step.model and step.reason for step in others)
    origins = [step.origin for step in others]
    assert origins == sorted(origins, key=[Origin.TENANT, Origin.PLATFORM].index)
    named = sum(step.kind == "openai" for step in own) + (len(shared) if use_platform else 0)
    implicit = use_platform and not shared and bool(environ.get("OPENAI_API_KEY", "").strip())
    assert len(others) + len(chains.skipped) == named + implicit


def test_a_listener_has_its_own_account_and_root() -> None:
    own = (Deepgram(), Deepgram(model="nova-2", base_url="https://stt.example/v1"))
    environ = {"DEEPGRAM_API_KEY": SECRET, "OPENAI_API_KEY": "other", "OPENAI_BASE_URL": "http://gateway/v1"}
    platform = PlatformProviders(stt=(Deepgram(api_key_env="SHARED_KEY"), SHARED))
    chains = resolve(Providers(stt=own), platform, environ)
    assert [(step.kind, step.base_url, step.model, step.secret()) for step in chains.stt] == [
        ("deepgram", DEEPGRAM_API_ROOT, "nova-3", SECRET),
        ("deepgram", "https://stt.example/v1", "nova-2", None),
        ("embedded", None, None, None),
    ]
    assert [text.rpartition(": ")[2] for text in chains.skipped] == [
        "SHARED_KEY is not set",
        "SHARED_KEY is not set",
    ]


def test_a_listener_transcribes_and_does_nothing_else() -> None:
    listener = {"kind": "deepgram", "api_key_env": "KEY"}
    for stage in ("llm", "tts"):
        with pytest.raises(ValidationError, match="deepgram"):
            Providers.model_validate({stage: [listener]})
        with pytest.raises(ValidationError, match="deepgram"):
            PlatformProviders.model_validate({stage: [listener]})


def test_a_platform_s_provider_without_a_kind_is_openai_compatible() -> None:
    platform = PlatformProviders.model_validate({"stt": [{"model": "whisper-1"}, {"kind": "deepgram"}]})
    assert [step.kind for step in platform.stt] == ["openai", "deepgram"]
    with pytest.raises(ValidationError, match="nonsense"):
        PlatformProviders.model_validate({"stt": [{"kind": "nonsense"}]})
