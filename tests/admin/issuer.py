"""An OpenID Connect provider on this machine: real keys, a real HTTP server, and all that can be wrong with either."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.admin.turned import NOON_MS

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
RsaKey = rsa.RSAPrivateKey
EcKey = ec.EllipticCurvePrivateKey
PrivateKey = RsaKey | EcKey | ed25519.Ed25519PrivateKey
AUDIENCE = "urn:receptionist:admin"
DISCOVERY = "/.well-known/openid-configuration"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def public_jwk(key: PrivateKey, **fields: str) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, **fields}


def _rsa(bits: int) -> RsaKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass
class Keys:
    """Made once: an RSA key takes a while."""

    rsa: RsaKey = field(default_factory=partial(_rsa, 2_048))
    other_rsa: RsaKey = field(default_factory=partial(_rsa, 2_048))
    small_rsa: RsaKey = field(default_factory=partial(_rsa, 1_024))
    ec: EcKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ed: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)


@dataclass
class Issuer:
    """A provider that runs."""

    url: str
    keys: Keys
    jwks: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    """Instead of the right ones."""

    def claims(self, **fields: object) -> dict[str, Any]:
        """Good ones; a field that is None is left out."""
        now_s = NOON_MS // 1000
        good: dict[str, object] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + 300,
            "jti": "t-1",
            "roles": ["admin"],
        }
        return {name: value for name, value in (good | fields).items() if value is not None}

    def token(
        self,
        key: Any = None,
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **claims: object,
    ) -> str:
        """A signed token; good unless something else is said."""
        return jwt.encode(
            self.claims(**claims),
            self.keys.rsa if key is None else key,
            algorithm=algorithm,
            headers={"kid": "rsa"} if headers is None else headers,
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        if (answer := self.answers.get(request.path)) is not None:
            return await answer(request)
        if request.path == DISCOVERY:
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        if request.path == "/keys":
            return web.json_response({"keys": self.jwks})
        return web.Response(status=404)


def saying(body: str | bytes, status: int = 200, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=raw, headers=headers)

    return answer


def raw_token(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"signed") -> str:
    """A token that no library would make."""
    return ".".join((b64(json.dumps(header).encode()), b64(json.dumps(claims).encode()), b64(signature)))


@asynccontextmanager
async def running_issuer(keys: Keys) -> AsyncIterator[Issuer]:
    issuer = Issuer("", keys)
    application = web.Application()
    application.router.add_get("/{path:.*}", issuer.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    issuer.jwks = [
        public_jwk(keys.rsa, kid="rsa", use="sig"),
        public_jwk(keys.ec, kid="ec", alg="ES256"),
        public_jwk(keys.ed, kid="ed"),
    ]
    try:
        yield issuer
    finally:
        await runner.cleanup()
