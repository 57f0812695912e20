"""Keys by name in a tenant's file, and the vault's section of a node's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from config.canonical import canonical_json
from config.errors import ConfigError
from config.loader import parse_node_config, parse_tenant_config
from config.node import EnvironmentKek, FileKek, TransitKek
from config.tenant import Deepgram, KeyName, OpenAICompatible, TenantConfig
from tests.tenancy.conftest import tenant
from vault import BadInput
from vault.names import check_name

PASTED = "sk-proj-9f3c1de7a4b84f60"


def with_provider(provider: str) -> TenantConfig:
    text = f"""
tenant_id: a
business_name: A
business_kind: shop
numbers: ["+15550100"]
time_zone: Europe/Berlin
greeting: Hello.
address: 1 Main Street
hours: {{}}
human: {{name: Ada}}
providers:
  llm:
    - {provider}
"""
    return parse_tenant_config(text.encode(), "a.yaml")


def node(vault: str) -> str:
    try:
        config = parse_node_config(f"vault: {vault}\n".encode(), "node.yaml", {})
    except ConfigError as error:
        return str(error)
    assert config.vault is not None
    return config.vault.kek.source


def test_a_provider_names_its_key_in_the_vault() -> None:
    (provider,) = with_provider("{kind: openai, model: m, key: acme.llm}").providers.llm
    assert isinstance(provider, OpenAICompatible)
    assert provider.key == "acme.llm"


def test_two_keys_for_one_provider_are_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml:13:7: providers\.llm\[0\].*keep one") as caught:
        with_provider("{kind: openai, model: m, key: acme, api_key_env: ACME_KEY}")
    assert "api_key_env for a variable" in str(caught.value)


@pytest.mark.parametrize(
    "pasted", [PASTED, "a" * 32, "gsk-0123456789ab", "SK-Aa0", "0123456789abcdef" * 3 + "g"]
)
def test_a_key_that_was_pasted_where_its_name_belongs_is_refused_and_not_repeated(pasted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_provider(f"{{kind: openai, model: m, key: {pasted}}}")
    assert pasted not in str(caught.value)


@given(st.text(alphabet="aZ09._-ö ", max_size=66))
def test_a_name_of_a_key_is_what_the_vault_takes_for_one(name: str) -> None:
    try:
        check_name(name)
    except BadInput:
        with pytest.raises(ValidationError):
            TypeAdapter(KeyName).validate_python(name)
    else:
        assert TypeAdapter(KeyName).validate_python(name) == name


def test_a_configuration_without_keys_is_stored_as_before_there_were_any() -> None:
    config = tenant().model_copy(
        update={"providers": tenant().providers.model_copy(update={"stt": (Deepgram(),)})}
    )
    assert b'"key"' not in canonical_json(config)
    assert b'"api_key_env":null' in canonical_json(config)


@pytest.mark.parametrize(
    ("section", "source"),
    [
        ("{kek: {source: file, path: /etc/kek}}", "file"),
        (
            "{kek: {source: env, label: k2, variable: KEK}, older: [{source: file, label: k1, path: /k}]}",
            "env",
        ),
        ("{kek: {source: transit, url: 'https://v:8200', key: tenants, token_file: /run/token}}", "transit"),
        (
            "{kek: {source: transit, url: 'https://v', key: k, token_file: /t}, older: [{source: file, path: /k},"
            " {source: transit, url: 'https://v', key: l, token_file: /t}]}",
            "transit",
        ),
    ],
)
def test_the_sources_of_a_key_encryption_key(section: str, source: str) -> None:
    assert node(section) == source


def test_what_a_key_encryption_key_is_unless_the_file_says_otherwise() -> None:
    assert FileKek(source="file", path="/k").label == "node"  # type: ignore[arg-type]
    assert EnvironmentKek(source="env", variable="KEK").label == "node"
    transit = TransitKek(source="transit", url="https://v", key="k", token_file="/t")  # type: ignore[arg-type]
    assert (transit.mount, transit.timeout_ms) == ("transit", 5_000)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{}", "kek: required"),
        ("{kek: {source: keychain}}", "allowed: env, file, transit"),
        (f"{{kek: {{source: file, path: {PASTED}}}}}", "absolute path"),
        (f"{{kek: {{source: env, variable: {PASTED}}}}}", "vault.kek"),
        ("{kek: {source: file, path: /k, label: 'two words'}}", "label"),
        ("{kek: {source: transit, url: 'ftp://v', key: k, token_file: /t}}", "url"),
        (
            "{kek: {source: transit, url: 'https://v', key: k, token_file: /t},"
            " older: [{source: transit, url: 'https://w', key: k, mount: transit/, token_file: /t}]}",
            "older: the key service's key transit/k is listed twice",
        ),
        (
            "{kek: {source: file, path: /k}, older: [{source: keychain}]}",
            "allowed: env, file, transit",
        ),
    ],
)
def test_what_is_no_vault_is_told(section: str, words: str) -> None:
    told = node(section)
    assert words in told
    assert PASTED not in told


def test_the_platform_has_no_key_in_a_vault() -> None:
    with pytest.raises(ConfigError, match=r"providers\.llm.*the platform's are named by api_key_env"):
        parse_node_config(b"providers: {llm: [{model: m, key: acme}]}", "node.yaml", {})
