"""What a JWT says: its header before anything is believed, its claims once the signature is known to be good. Sans-IO.

After RFC 7519 and the advice of RFC 8725. The signature itself, issuer and audience are PyJWT's to check (`admin.jwt_tokens`).
No error repeats anything of the token.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from admin.errors import Forbidden, Unauthenticated
from admin.principals import Role
from config.admin import IssuerConfig
from config.tenant import TENANT_ID_PATTERN

TOKEN_CHARACTERS_MAX: Final = 16_384
NAME_CHARACTERS_MAX: Final = 128
"""Of ``sub`` and ``jti``."""
KEY_ID_CHARACTERS_MAX: Final = 200
TYPES: Final = ("JWT", "AT+JWT", "APPLICATION/AT+JWT")
"""An OpenID Connect ID token or any JWT, and an access token (RFC 9068 2.1). What has another type is for another purpose."""
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_LATEST_S: Final = 2**40


@dataclass(frozen=True, slots=True)
class Announced:
    """What a token says before it is verified: by whom, and how, it claims to be signed."""

    algorithm: str
    key_id: str | None
    issuer: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token says."""

    subject: str
    role: Role
    tenant_id: str | None
    token_id: str | None
    """``jti``."""
    issued_ms: int
    expires_ms: int
    """Its ``exp``, without leeway."""


def looks_like_jwt(text: str) -> bool:
    """Whether it has a JWT's three parts."""
    return text.count(".") == 2


def announced(text: str) -> Announced:
    """Read a token's header and its issuer; believe nothing. Raises `Unauthenticated`."""
    if len(text) > TOKEN_CHARACTERS_MAX:
        raise Unauthenticated(f"the token is longer than {TOKEN_CHARACTERS_MAX} characters")
    parts = text.split(".")
    if len(parts) != 3 or not all(map(_SEGMENT.fullmatch, parts)):
        raise Unauthenticated(
            "the token is not a signed JWT: three parts of base64url with full stops between them"
        )
    header = _object(parts[0], "header")
    # RFC 7515 4.1.11: what one does not understand must be refused, and nothing of that kind is understood here.
    for name in ("crit", "b64", "zip", "enc"):
        if name in header:
            raise Unauthenticated(f"the token's header has {name!r}, which is not supported")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() not in TYPES:
        raise Unauthenticated("the token's type (typ) is not JWT or at+jwt: it is for another purpose")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise Unauthenticated("the token's header names no algorithm")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARACTERS_MAX):
        raise Unauthenticated(f"the token's kid is not a text of 1 to {KEY_ID_CHARACTERS_MAX} characters")
    issuer = _object(parts[1], "payload").get("iss")
    if not isinstance(issuer, str):
        raise Unauthenticated("the token names no issuer (iss)")
    return Announced(algorithm, key_id, issuer)


def identity(claims: Mapping[str, object], issuer: IssuerConfig, now_ms: int) -> Identity:
    """Check the claims of a token whose signature, issuer and audience are good.

    Raises: Unauthenticated. Forbidden: it is good, and gives no role here.
    """
    issued_s, expires_s = _time(claims, "iat"), _time(claims, "exp")
    now_s = now_ms / 1000
    if now_s >= expires_s + issuer.leeway_s:
        raise Unauthenticated("the token has expired")
    if issued_s > now_s + issuer.leeway_s:
        raise Unauthenticated("the token was issued in the future (iat): whose clock is wrong?")
    if "nbf" in claims and _time(claims, "nbf") > now_s + issuer.leeway_s:
        raise Unauthenticated("the token is not good yet (nbf)")
    if not 0 < expires_s - issued_s <= issuer.life_max_s:
        raise Unauthenticated(
            f"the token is good for longer than {issuer.life_max_s} s, or expires before it was issued"
        )
    subject, token_id = _name(claims, "sub"), _name(claims, "jti")
    if subject is None:
        raise Unauthenticated("the token names no subject (sub)")
    if issuer.one_use and token_id is None:
        raise Unauthenticated("the token has no id (jti): this issuer's tokens are good once, and need one")
    role, tenant_id = _role(claims, issuer)
    return Identity(
        subject, role, tenant_id, token_id, math.floor(issued_s * 1000), math.ceil(expires_s * 1000)
    )


def _role(claims: Mapping[str, object], issuer: IssuerConfig) -> tuple[Role, str | None]:
    found = _at(claims, issuer.roles_claim)
    roles = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    operator = issuer.operator_role is not None and issuer.operator_role in roles
    tenant = issuer.tenant_role is not None and issuer.tenant_role in roles
    if operator and tenant:
        raise Forbidden(
            "the token has both the operator's and the tenant's role: which is meant cannot be told"
        )
    if operator:
        return Role.OPERATOR, None
    if not tenant:
        raise Forbidden("the token has no role that means anything on this node")
    tenant_id = _at(claims, issuer.tenant_claim)
    if not isinstance(tenant_id, str) or not re.fullmatch(TENANT_ID_PATTERN, tenant_id):
        raise Forbidden("the token has the tenant's role and names no tenant")
    if issuer.tenants and tenant_id not in issuer.tenants:
        raise Forbidden("the token names a tenant that its issuer does not speak for")
    return Role.TENANT, tenant_id


def _at(claims: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _time(claims: Mapping[str, object], name: str) -> float:
    """A NumericDate (RFC 7519 2), which is a JSON number: no text, and no boolean."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST_S:
        raise Unauthenticated(f"the token has no {name}, or one that is no time")
    return value


def _name(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_CHARACTERS_MAX or not value.isprintable():
        raise Unauthenticated(
            f"the token's {name} is not a text of 1 to {NAME_CHARACTERS_MAX} printable characters"
        )
    return value


def _object(segment: str, what: str) -> dict[str, object]:
    value: object = None
    # What is wrong is raised below, apart from an error that quotes what it could not read.
    with contextlib.suppress(binascii.Error, orjson.JSONDecodeError):
        value = orjson.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    if not isinstance(value, dict):
        raise Unauthenticated(f"the token's {what} is not a JSON object in base64url")
    return value
