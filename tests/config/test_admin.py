"""The admin API's section of a node's configuration."""

from __future__ import annotations

import pytest

from config.errors import ConfigError
from config.loader import parse_node_config
from config.node import NodeConfig


def node(text: str, **environ: str) -> NodeConfig:
    return parse_node_config(text.encode(), "node.yaml", environ)


def issuer(more: str = "") -> str:
    return (
        f"admin:\n  issuers:\n    - {{issuer: 'https://idp.example', audience: x, operator_role: op{more}}}\n"
    )


def test_without_the_section_there_is_no_admin_api() -> None:
    assert node("{}").admin is None


def test_an_empty_section_is_enough() -> None:
    config = node("admin: {}")
    assert config.admin is not None
    assert (config.admin.host, config.admin_port, config.admin.issuers) == ("127.0.0.1", 8082, ())


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("http: {port: 9000}\nadmin: {}", 9002),
        ("http: {operator: {port: 9100}}\nadmin: {}", 9101),
        ("http: {port: 0}\nadmin: {}", 0),
        ("admin: {port: 0}", 0),
        ("http: {port: 65534}\nadmin: {port: 7}", 7),
    ],
)
def test_where_it_listens(text: str, port: int) -> None:
    assert node(text).admin_port == port


def test_it_stays_as_it_is_where_the_environment_overrides_something_else() -> None:
    text = issuer(", jwks_file: /etc/jwks.json, roles_claim: [a, b]")
    assert node(text, MEDIASERVER_SLOTS="3").admin == node(text).admin


@pytest.mark.parametrize(
    "url", ["https://idp.example/realms/x", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1/a"]
)
def test_issuers_that_may_be_believed(url: str) -> None:
    config = node(issuer().replace("https://idp.example", url))
    assert config.admin is not None
    assert config.admin.issuers[0].issuer == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (issuer().replace("https:", "http:"), r"admin\.issuers\[0\]\.issuer: must be https"),
        (issuer().replace("idp.example", "user:pw@idp.example"), r"issuers\[0\]\.issuer"),
        (issuer(", jwks_url: 'http://192.0.2.1/keys'"), r"jwks_url: must be https"),
        (issuer(", jwks_url: 'ftp://idp.example/keys'"), r"jwks_url"),
        (issuer(", jwks_file: keys.json"), "jwks_file: must be an absolute path"),
        (issuer(", jwks_file: /k, jwks_url: 'https://idp.example/k'"), "only one of them"),
        (issuer(", tenant_role: op"), "must differ"),
        (issuer().replace(", operator_role: op", ""), "nobody of this issuer may do anything"),
        (issuer(", algorithms: [HS256]"), "'HS256' is not allowed"),
        (issuer(", algorithms: [none]"), "'none' is not allowed"),
        (issuer(", algorithms: []"), "algorithms"),
        (issuer(", leeway_s: 301"), "leeway_s"),
        (issuer(", life_max_s: 604801"), "life_max_s"),
        (issuer(", roles_claim: []"), "roles_claim"),
        (issuer(", tenants: [Acme]"), r"tenants\[0\]"),
        (issuer(", refresh_min_s: 0"), "refresh_min_s"),
        (issuer() + issuer().partition("issuers:\n")[2], "https://idp.example stands there more than once"),
        ("http: {port: 65533}\nadmin: {tokens: {}}\n", None),
        ("http: {port: 65534}\nadmin: {}", "no port comes after the operator's, 65535: set admin.port"),
        ("admin: {tokens: {life_days: 400}}", r"life_days \(400\) must not exceed life_max_days \(365\)"),
        ("admin: {rate_limit: {burst: 0}}", "burst"),
        ("admin: {failed_logins: {per_minute: 0}}", "per_minute"),
        ("admin: {tokens: {checks_at_once: 65}}", "checks_at_once"),
        ("admin: {password: x}", "password"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, said: str | None) -> None:
    if said is None:
        assert node(text).admin is not None
        return
    with pytest.raises(ConfigError, match=said):
        node(text)
