"""The admin API's part of a node's configuration: where it listens, whom it believes, how much it lets anybody ask."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from config.addresses import Host, Port
from config.tenant import StrictModel, TenantId

MAX_ISSUERS: Final = 16
MAX_LIFE_S: Final = 604_800
"""Of a JWT, whatever an issuer's section says: what is remembered about one is forgotten after that."""
MAX_LEEWAY_S: Final = 300

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""A signature of RFC 7518 3.1 or RFC 8037. None is symmetric: whoever checks a token must not be able to make one."""


def trustworthy(url: str) -> str:
    """Refuse plain HTTP to other machines: whoever is in between could put keys of his own in. Raises `ValueError`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if parts.scheme != "https" and not local:
        raise ValueError("must be https: keys come from there (http only to this machine)")
    return url


KeysUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/?#@]+(?:/[^\s#@]*)?$", max_length=2_000),
    AfterValidator(trustworthy),
]
"""``https://HOST…``, or plain HTTP to this machine; no user or password in it: URLs reach logs."""
ClaimName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ClaimPath = Annotated[tuple[ClaimName, ...], Field(min_length=1, max_length=4)]
"""A claim, or one within claims: ``[realm_access, roles]``."""
RoleName = Annotated[str, StringConstraints(pattern=r"^\S{1,200}$")]


class IssuerConfig(StrictModel):
    """An OpenID Connect provider, or whoever else signs JWTs, that is believed."""

    issuer: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@]+$", max_length=500)]
    """Exactly what the tokens' ``iss`` says."""
    audience: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    """What ``aud`` must be or have: this node's own name with the provider. Never that of another service, whose tokens would
    be good here then."""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1, max_length=10)
    """Signatures that are accepted."""
    jwks_url: KeysUrl | None = None
    """Where the provider's keys are; unset, with no ``jwks_file``: where ISSUER/.well-known/openid-configuration says
    (OpenID Connect Discovery 1.0, section 4)."""
    jwks_file: Path | None = Field(default=None, validate_default=False)
    """A file with the keys (RFC 7517 5), for a node that reaches no provider; an absolute path. Read anew as a URL is."""
    roles_claim: ClaimPath = ("roles",)
    """Where roles are: a list of texts, or one text with spaces between them (as ``scope`` is)."""
    operator_role: RoleName | None = None
    """Who has it may do everything on this node. Unset: nobody of this issuer."""
    tenant_role: RoleName | None = None
    """Who has it is the tenant's that ``tenant_claim`` names. Unset: nobody of this issuer."""
    tenant_claim: ClaimPath = ("tenant_id",)
    tenants: tuple[TenantId, ...] = Field(default=(), max_length=1_000)
    """The tenants that this issuer may name; none listed: any."""
    leeway_s: int = Field(default=30, ge=0, le=MAX_LEEWAY_S)
    """How far the provider's clock may be from ours."""
    life_max_s: int = Field(default=86_400, ge=60, le=MAX_LIFE_S)
    """How long after ``iat`` a token may expire."""
    one_use: bool = False
    """Each token is good for one request: it must have a ``jti``, which is remembered until it expires."""
    refresh_s: int = Field(default=3_600, ge=60, le=86_400)
    """Keys that are older are fetched anew; while that fails, those that are there are used for a day."""
    refresh_min_s: int = Field(default=10, ge=1, le=3_600)
    """Between two fetches at least, whatever unknown keys tokens name."""
    timeout_ms: int = Field(default=5_000, ge=100, le=60_000)
    """For one fetch as a whole."""

    @field_validator("issuer")
    @classmethod
    def _believable(cls, issuer: str) -> str:
        return trustworthy(issuer)

    @field_validator("jwks_file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("must be an absolute path such as '/etc/mediaserver/jwks.json'")
        return path

    @model_validator(mode="after")
    def _consistent(self) -> IssuerConfig:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("jwks_url and jwks_file: only one of them")
        if self.operator_role is None and self.tenant_role is None:
            raise ValueError(
                "operator_role or tenant_role: without one nobody of this issuer may do anything"
            )
        if self.operator_role == self.tenant_role:
            raise ValueError("operator_role and tenant_role must differ")
        return self


class ApiTokensConfig(StrictModel):
    """API tokens, which the node makes itself."""

    life_days: int = Field(default=90, ge=1, le=3_650)
    """How long a token is good if nothing else is said when it is made."""
    life_max_days: int = Field(default=365, ge=1, le=3_650)
    per_tenant_max: int = Field(default=100, ge=1, le=10_000)
    """Tokens of one tenant that are neither expired nor revoked; as many for operators."""
    checks_at_once: int = Field(default=2, ge=1, le=64)
    """Tokens that are checked against their hash at a time; each takes 19 MiB and a core for some 20 ms."""

    @model_validator(mode="after")
    def _default_within_max(self) -> ApiTokensConfig:
        if self.life_days > self.life_max_days:
            raise ValueError(
                f"life_days ({self.life_days}) must not exceed life_max_days ({self.life_max_days})"
            )
        return self


class RateLimit(StrictModel):
    """Requests over time: ``burst`` at once, and ``per_minute`` on average."""

    per_minute: int = Field(default=600, ge=1, le=1_000_000)
    burst: int = Field(default=100, ge=1, le=100_000)


class AdminConfig(StrictModel):
    """The admin API: who may use it, and how much."""

    host: Host = "127.0.0.1"
    """Tokens travel in clear on this listener: beyond this machine, put a proxy with TLS before it."""
    port: Port | None = None
    """Unset: the port after the operator's (where that is 0: any free one)."""
    issuers: tuple[IssuerConfig, ...] = Field(default=(), max_length=MAX_ISSUERS)
    """Whose JWTs are believed; none: API tokens alone."""
    tokens: ApiTokensConfig = ApiTokensConfig()
    rate_limit: RateLimit = RateLimit()
    """For each of who asks, by name."""
    failed_logins: RateLimit = RateLimit(per_minute=10, burst=20)
    """Failures of one address (IPv6: one /64), after which it has to wait."""

    @field_validator("issuers")
    @classmethod
    def _once_each(cls, issuers: tuple[IssuerConfig, ...]) -> tuple[IssuerConfig, ...]:
        names = [each.issuer for each in issuers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} stands there more than once")
        return issuers
