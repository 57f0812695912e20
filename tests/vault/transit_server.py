"""A small key service over HTTP with the transit engine's ways, and with faults that a test chooses.

Ciphertexts are ``vault:v<version>:`` and base64 of a 96-bit nonce and AES-256-GCM's output, as the engine's are.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

TOKEN = "canary-token-0123456789"


class Refused(Exception):  # noqa: N818
    """An answer 400 with these words."""


@dataclass
class TransitServer:
    """Keys by name, each a list of versions."""

    keys: dict[str, list[bytes]] = field(default_factory=lambda: {"tenants": [os.urandom(32)]})
    namespace: str | None = None
    mount: str = "transit"
    oldest: int = 1
    """``min_decryption_version``."""
    fault: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    peak: int = 0
    _now: int = 0

    def rotate(self) -> None:
        self.keys["tenants"].append(os.urandom(32))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self._now += 1
        self.peak = max(self.peak, self._now)
        try:
            return await self._answer(request)
        finally:
            self._now -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        action, name = request.match_info["action"], request.match_info["key"]
        body = await request.json()
        self.requests.append((action, body))
        if self.fault is not None:
            return await self.fault(request)
        headers = request.headers
        if headers.get("X-Vault-Token") != TOKEN or headers.get("X-Vault-Namespace") != self.namespace:
            return _errors(403, "permission denied")
        if request.match_info["mount"] != self.mount:
            return _errors(404, f"no handler for route {request.path!r}")
        try:
            data = self._do(action, name, body)
        except Refused as error:
            return _errors(400, str(error))
        return web.json_response({"request_id": "x", "data": data, "warnings": None})

    def _do(self, action: str, name: str, body: dict[str, str]) -> dict[str, object]:
        versions = self.keys.get(name)
        if versions is None:
            raise Refused("encryption key not found")
        match action:
            case "encrypt":
                return self._encrypt(versions, base64.b64decode(body["plaintext"], validate=True))
            case "decrypt":
                return {"plaintext": base64.b64encode(self._decrypt(versions, body["ciphertext"])).decode()}
            case "rewrap":
                return self._encrypt(versions, self._decrypt(versions, body["ciphertext"]))
            case _:
                raise Refused("unsupported path")

    @staticmethod
    def _encrypt(versions: list[bytes], plain: bytes) -> dict[str, object]:
        nonce = os.urandom(12)
        sealed = base64.b64encode(nonce + AESGCM(versions[-1]).encrypt(nonce, plain, None)).decode()
        return {"ciphertext": f"vault:v{len(versions)}:{sealed}", "key_version": len(versions)}

    def _decrypt(self, versions: list[bytes], text: str) -> bytes:
        prefix, version, sealed = text.split(":", 2)
        number = int(version.removeprefix("v"))
        if prefix != "vault":
            raise Refused("invalid ciphertext: no prefix")
        if number > len(versions):
            raise Refused("invalid ciphertext: version is too new")
        if number < self.oldest:
            raise Refused("ciphertext or signature version is disallowed by policy (too old)")
        raw = base64.b64decode(sealed)
        try:
            return AESGCM(versions[number - 1]).decrypt(raw[:12], raw[12:], None)
        except InvalidTag:
            raise Refused("cipher: message authentication failed") from None


def _errors(status: int, *errors: str) -> web.Response:
    return web.json_response({"errors": list(errors)}, status=status)


@asynccontextmanager
async def transit_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[TransitServer]:
    server = TransitServer()
    app = web.Application()
    app.router.add_post("/v1/{mount:[a-z/]+}/{action:encrypt|decrypt|rewrap}/{key}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def hang(request: web.Request) -> web.StreamResponse:
    """Never answer; the client's going away ends it."""
    await asyncio.Event().wait()
    raise AssertionError(request)


async def hang_in_the_body(request: web.Request) -> web.StreamResponse:
    """Begin an answer and never end it."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"data"')
    await asyncio.Event().wait()
    raise AssertionError(request)


async def endless(request: web.Request) -> web.StreamResponse:
    """An answer that does not end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 4096)


async def cut_off(request: web.Request) -> web.StreamResponse:
    """Close the connection instead of answering."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def echo(request: web.Request) -> web.StreamResponse:
    """Say what was said, the token included, as a proxy's error page may."""
    return web.Response(status=502, text=f"{await request.text()} {dict(request.headers)}")


def saying(
    status: int, body: str | bytes, headers: dict[str, str] | None = None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def say(_: web.Request) -> web.Response:
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=raw, headers=headers)

    return say


def tls_of_this_machine(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's certificate for 127.0.0.1, signed by itself, and a client that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "key service")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(chain, private)
    return serving, ssl.create_default_context(cafile=str(chain))
