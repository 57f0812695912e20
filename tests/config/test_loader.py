"""What a person who wrote a wrong file is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.canonical import canonical_json, content_hash
from config.errors import (
    ConfigComplexityError,
    ConfigError,
    ConfigSyntaxError,
    DuplicateKeyError,
    EnvironmentOverrideError,
    InvalidConfigError,
    OversizedConfigError,
    UnreadableConfigError,
)
from config.loader import (
    DEMO_NODE_FILE,
    MAX_FILE_BYTES,
    OVERRIDES,
    load_node_config,
    load_tenant_config,
    load_tenants,
    parse_node_config,
    parse_tenant_config,
)
from config.node import HttpConfig, MediaConfig
from config.tenant import TenantConfig

DENTIST = (DEMO_NODE_FILE.parent / "bright_smile_dental.yaml").read_text()
MINIMAL = """\
tenant_id: corner-shop
business_name: Corner Shop
business_kind: shop
numbers: [+15550123]
time_zone: Europe/Berlin
greeting: Corner Shop, good day.
address: 1 Main Street
hours:
  monday: [{opens: 17:30, closes: 22:00}]
human: {name: Ada}
"""


def parse(text: str) -> TenantConfig:
    return parse_tenant_config(text.encode(), "shop.yaml")


def refused(text: str) -> InvalidConfigError:
    with pytest.raises(InvalidConfigError) as caught:
        parse(text)
    return caught.value


def test_scalars_keep_what_was_written() -> None:
    config = parse(MINIMAL.replace("Ada", "no"))
    assert config.numbers == ("+15550123",)  # YAML 1.1 makes it an integer without the plus
    (interval,) = next(iter(config.hours.values()))
    assert (interval.opens.hour, interval.opens.minute) == (17, 30)  # YAML 1.1: 1050
    assert config.human.name == "no"  # YAML 1.1: False


def test_a_mistyped_field_is_named_with_line_and_suggestion() -> None:
    error = refused(MINIMAL.replace("greeting:", "greting:"))
    texts = {(problem.place.line, problem.field): problem.text for problem in error.problems}
    assert texts[1, "greeting"] == "required, but missing"
    assert "did you mean 'greeting'?" in texts[6, "greting"]
    assert "shop.yaml:6:1: greting: unknown field" in str(error)


def test_a_mistyped_field_inside_a_union_gets_that_members_fields() -> None:
    providers = "providers:\n  llm:\n    - kind: openai\n      modell: x\n"
    error = refused(MINIMAL + providers)
    by_field = {problem.field: problem for problem in error.problems}
    assert set(by_field) == {"providers.llm[0].model", "providers.llm[0].modell"}
    wrong = by_field["providers.llm[0].modell"]
    assert wrong.place.line == MINIMAL.count("\n") + 4
    assert (
        wrong.text
        == "unknown field; did you mean 'model'? allowed: api_key_env, base_url, key, kind, model, price"
    )


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("monday:", "mondey:", "hours.mondey", "did you mean 'monday'?"),
        ("17:30", "17", "hours.monday[0].opens", "time of day"),
        ("17:30", "23:30", "hours.monday[0]", "opens 23:30 must be before closes 22:00"),
        ("17:30", "25:00", "hours.monday[0].opens", "time of day"),
        ("+15550123", "5550123", "numbers[0]", "must be text: write '5550123' in quotes"),
        ("+15550123", "'5550123'", "numbers[0]", "not '5550123'"),
        ("[+15550123]", "[+15550123, +15550123]", "numbers", "once; +15550123 stands there twice"),
        ("Europe/Berlin", "Berlin", "time_zone", "IANA time zone"),
        ("corner-shop", "../etc", "tenant_id", "not '../etc'"),
        ("{name: Ada}", "{name: Ada}\nmax_concurrent_calls: '3'", "max_concurrent_calls", "not '3'"),
        ("{name: Ada}", "{name: Ada}\nmax_concurrent_calls: 0", "max_concurrent_calls", "not 0"),
        ("{name: Ada}", "{name: Ada}\nturn_taking: {preroll_ms: 1001}", "turn_taking.preroll_ms", "not 1001"),
        ("{name: Ada}", "{name: Ada}\nschema_version: 2", "schema_version", "version 2 is newer"),
        ("{name: Ada}", "{name: Ada}\nschema_version: 0", "schema_version", "Input should be 1"),
        ("{name: Ada}", "{name: Ada}\nproviders: {llm: [{kind: opena}]}", "providers.llm[0]", "'openai'?"),
        ("{name: Ada}", "{name: Ada}\nproviders: {llm: []}", "providers.llm", "at least 1 item"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(old: str, new: str, field: str, words: str) -> None:
    (problem,) = refused(MINIMAL.replace(old, new)).problems
    assert problem.field == field
    assert words in problem.text


def test_a_key_pasted_into_the_file_does_not_reach_the_message() -> None:
    secret = "sk-" + "a1B2" * 10
    for wrong in (f"api_key_env: {secret}", f"api_key: {secret}", f"base_url: https://me:{secret}@host/v1"):
        error = refused(MINIMAL + f"providers: {{llm: [{{kind: openai, model: x, {wrong}}}]}}")
        assert secret not in str(error)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", ConfigSyntaxError, "empty"),
        ("a: [1", ConfigSyntaxError, "shop.yaml:2:1: not valid YAML"),
        ("a: 1\n---\nb: 2", ConfigSyntaxError, "document"),
        ("a: !!python/object/apply:os.system [x]", ConfigSyntaxError, "need no tags"),
        ("a: !!int x", ConfigSyntaxError, "need no tags"),
        ("? [a]\n: 1", ConfigSyntaxError, "must be text"),
        ("1: 1", ConfigSyntaxError, "must be text"),
        ("a: {b: 1,\n  b: 2}", DuplicateKeyError, "shop.yaml:2:3: a.b: given twice; first on line 1"),
        ("[" * 100 + "]" * 100, ConfigComplexityError, "nested"),
        ("[" * 500_000, ConfigComplexityError, "nested"),
        ("- x\n" * 60_000, ConfigComplexityError, "values"),
        ("a: &a [*a]", ConfigComplexityError, "aliases"),
        ("- just text", InvalidConfigError, "object"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, kind: type[ConfigError], words: str) -> None:
    with pytest.raises(kind) as caught:
        parse(text)
    assert type(caught.value) is kind
    assert words in str(caught.value)


def test_aliases_that_multiply_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigComplexityError, match="aliases"):
        parse("\n".join(lines))


def test_an_alias_within_bounds_is_fine() -> None:
    text = MINIMAL.replace(
        "monday:", "friday: &evening [{opens: 18:00, closes: 23:00}]\n  saturday: *evening\n  monday:"
    )
    hours = parse(text).hours
    assert len(hours) == 3


def test_sizes_and_files(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(OversizedConfigError, match=r"big\.yaml"):
        load_tenant_config(big)
    with pytest.raises(UnreadableConfigError, match=r"none\.yaml: No such file"):
        load_tenant_config(tmp_path / "none.yaml")
    with pytest.raises(UnreadableConfigError, match="Is a directory"):
        load_tenant_config(tmp_path)
    with pytest.raises(UnreadableConfigError, match=r"latin\.yaml:2: not UTF-8"):
        parse_tenant_config(b"a: 1\nb: \xfcber", "latin.yaml")


FRAGMENTS = st.one_of(
    st.sampled_from(MINIMAL.splitlines(keepends=True)),
    st.sampled_from(["&a ", "*a ", "!!str ", "!x ", "? ", "\\x", "\\ud800", "---\n", "<<: ", ": ", "- "]),
    st.sampled_from("[]{},|>'\"#%@`\t\n\r "),
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.lists(FRAGMENTS, max_size=40).map("".join).map(str.encode)))
def test_any_bytes_are_a_configuration_or_a_config_error(data: bytes) -> None:
    for parser in (
        lambda: parse_tenant_config(data, "any.yaml"),
        lambda: parse_node_config(data, "any.yaml", {}),
    ):
        try:
            parser()
        except ConfigError as error:
            assert "any.yaml" in str(error)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_a_configuration_or_a_config_error(data: st.DataObject) -> None:
    text = bytearray(DENTIST.encode())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        parse_tenant_config(bytes(text), "any.yaml")
    except ConfigError as error:
        assert "any.yaml" in str(error)


# -- canonical form ------------------------------------------------------------------------------------


def test_the_hash_is_of_the_content_and_not_of_the_writing() -> None:
    lines = MINIMAL.splitlines()
    human, rest = lines[-1], lines[:-1]
    reordered = "\n".join([human, "# a comment", *rest]) + "\nmax_concurrent_calls: 10\n"
    assert content_hash(parse(reordered)) == content_hash(parse(MINIMAL))
    assert content_hash(parse(MINIMAL.replace("Ada", "Eve"))) != content_hash(parse(MINIMAL))


def test_canonical_json_reads_back_as_the_same_configuration() -> None:
    config = parse(DENTIST)
    again = TenantConfig.model_validate_json(canonical_json(config), strict=True)
    assert again == config
    assert canonical_json(again) == canonical_json(config)


# -- node ----------------------------------------------------------------------------------------------


def test_tenant_paths_are_relative_to_the_nodes_file(tmp_path: Path) -> None:
    folder = tmp_path / "tenants"
    folder.mkdir()
    (folder / "b.yaml").write_text(MINIMAL)
    (folder / "a.yaml").write_text(MINIMAL.replace("corner-shop", "other").replace("+15550123", "+15550124"))
    (folder / "notes.txt").write_text("not a tenant")
    node = tmp_path / "node.yaml"
    node.write_text("tenants: [tenants]")
    config = load_node_config(node, {})
    assert [tenant.tenant_id for tenant in load_tenants(config.tenants)] == ["other", "corner-shop"]


def test_two_files_with_one_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MINIMAL)
    (tmp_path / "b.yaml").write_text(MINIMAL.replace("corner-shop", "other"))
    with pytest.raises(ConfigError, match=r"b\.yaml.*\+15550123.*a\.yaml"):
        load_tenants((tmp_path,))


def test_the_environment_overrides_and_empty_is_unset() -> None:
    environ = {
        "MEDIASERVER_SIP_PORT": "5070",
        "MEDIASERVER_ADVERTISED_HOST": "192.0.2.1",
        "MEDIASERVER_DATA_DIR": "/srv/data",
        "MEDIASERVER_SLOTS": "7",
        "MEDIASERVER_LOG_LEVEL": "",
    }
    config = parse_node_config(b"sip: {port: 5060, host: 127.0.0.1}\nlog_level: DEBUG", "n.yaml", environ)
    assert (config.sip.port, config.sip.host) == (5070, "127.0.0.1")
    assert config.sip.advertised_host == config.media.advertised_host == "192.0.2.1"
    assert config.data_dir == Path("/srv/data")
    assert (config.capacity.slots, config.log_level) == (7, "DEBUG")


def node(media: str) -> MediaConfig:
    return parse_node_config(f"media: {{{media}}}".encode(), "n.yaml", {}).media


def test_the_media_section() -> None:
    media = node("host: '::', codecs: [PCMA, OPUS, g722], srtp: off, realtime: off, threads: 2")
    assert media.codecs == ("PCMA", "opus", "G722")
    assert (media.host, media.srtp, media.realtime, media.threads) == ("::", "off", "off", 2)
    assert (
        node("advertised_host: 192.0.2.1, advertised_host_ipv6: 2001:DB8::0:1").advertised_host_ipv6
        == "2001:db8::1"
    )
    assert node("first_port: 65534, port_count: 1").first_port == 65_534
    assert node("first_port: 65531, port_count: 2").first_port == 65_531  # 65532 to 65535
    assert node("first_port: 65024, port_count: 256").port_count == 256
    assert node("first_port: 0, port_count: 256").port_count == 256


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("host: localhost", "media.host", "'localhost' is not an IPv4 or IPv6 address"),
        ("advertised_host: pbx.example.org", "media.advertised_host", "not an IPv4 or IPv6 address"),
        ("advertised_host_ipv6: 192.0.2.1", "media.advertised_host_ipv6", "not an IPv6 address"),
        (
            "advertised_host: '2001:db8::1', advertised_host_ipv6: '2001:db8::2'",
            "media",
            "advertised_host must be an IPv4 address beside advertised_host_ipv6",
        ),
        ("codecs: [G729]", "media.codecs[0]", "'G729' is not allowed; allowed: G722, PCMA, PCMU, opus"),
        ("codecs: []", "media.codecs", "at least 1 item"),
        ("codecs: [PCMU, pcmu]", "media", "each codec may stand there once"),
        ("first_port: 65530", "media", "would end at 65545; the last port is 65535"),
        ("first_port: 65535, port_count: 1", "media", "would end at 65537; the last port is 65535"),
        ("first_port: 65532, port_count: 3", "media", "would end at 65537; the last port is 65535"),
        ("srtp: on", "media.srtp", "'on' is not allowed"),
        ("realtime: always", "media.realtime", "'always' is not allowed"),
        ("threads: 65", "media.threads", "not 65"),
        ("thread: 1", "media.thread", "did you mean 'threads'?"),
        ("codec_order: mine", "media.codec_order", "'mine' is not allowed"),
    ],
)
def test_a_wrong_media_section_is_named(text: str, field: str, words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        node(text)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert words in problem.text


def http(text: str) -> HttpConfig:
    return parse_node_config(f"http: {{{text}}}".encode(), "n.yaml", {}).http


def test_the_http_section() -> None:
    section = http("trusted_proxies: [192.0.2.0/24, '2001:DB8::1'], waiting_calls_per_source: 2")
    assert section.trusted_proxies == ("192.0.2.0/24", "2001:db8::1/128")
    assert (section.list_numbers, section.operator.host) == (False, "127.0.0.1")
    ports = [http(text).operator_port for text in ("", "port: 0", "port: 65535, operator: {port: 9}")]
    assert ports == [8081, 0, 9]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("trusted_proxies: [192.0.2.1/24]", "http.trusted_proxies[0]", "has host bits set"),
        ("trusted_proxies: [proxy]", "http.trusted_proxies[0]", "'proxy' is not an IPv4 or IPv6 network"),
        ("waiting_calls_per_source: 0", "http.waiting_calls_per_source", "not 0"),
        ("port: 65535", "http", "no port comes after port 65535: set operator.port"),
    ],
)
def test_a_wrong_http_section_is_named(text: str, field: str, words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        http(text)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert words in problem.text


@pytest.mark.parametrize("variable", [name for name, _ in OVERRIDES])
def test_a_wrong_override_names_its_variable(variable: str) -> None:
    wrong = {"MEDIASERVER_DATA_DIR": None}.get(variable, "not a value !")
    if wrong is None:
        assert parse_node_config(b"{}", "n.yaml", {variable: "any path"}).data_dir == Path("any path")
        return
    with pytest.raises(EnvironmentOverrideError, match=f"^{variable}: "):
        parse_node_config(b"{}", "n.yaml", {variable: wrong})


def test_every_override_sets_a_field_that_exists() -> None:
    for variable, fields in OVERRIDES:
        value = {
            "HOST": "192.0.2.9",
            "PORT": "1234",
            "SLOTS": "3",
            "WORKERS": "3",
            "LEVEL": "ERROR",
            "FORMAT": "json",
            "URL": "http://m:1/v1",
        }.get(variable.rpartition("_")[2], "some/folder")
        config = parse_node_config(b"{}", "n.yaml", {variable: value}).model_dump(mode="json")
        for field in fields:
            found: object = config
            for part in field:
                assert isinstance(found, dict)
                found = found[part]
            assert str(found) == value


def test_without_a_file_the_demo_node_starts() -> None:
    config = load_node_config(None, {})
    assert (config.sip.port, config.sip.tcp, config.http.port) == (5060, True, 8080)
    assert (config.http.operator_port, config.http.list_numbers) == (8081, True)
    assert {number for tenant in load_tenants(config.tenants) for number in tenant.numbers} == {
        "+15550100",
        "+15550101",
    }
    assert os.access(DEMO_NODE_FILE, os.R_OK)
