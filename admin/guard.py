"""What stands before every route: who asks, whether it may, how often, and what is written down of it.

In this order: authentication, rate, role and tenant, the body, idempotency, the trail, the route.

The trail is written ahead: a change has a line with the status 102 (RFC 2518 10.1: it is being carried out) before it is begun,
and one with its outcome after. Where the first cannot be written, nothing is done. Where the second cannot, the change stands,
its client gets its answer, and the trail has a line without an outcome: whoever reads it knows that the store has to be
asked. Of reads, the trail has those that were refused for whose data they are. It does not have requests of nobody and
those beyond the rate, which anybody can make without end: they are counted.

A request with an ``Idempotency-Key`` that was carried out is answered from what is kept; one that was refused has changed nothing,
and its key is free again. So is that of one that failed: no route asks anything of a store once its change is made. A process
that dies between the change and the keeping leaves the key free after a minute: the same request is tried then again, which
its ``If-Match`` refuses.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from admin.errors import AdminError, BadRequest, NotFound, UnsupportedMedia
from admin.idempotency import BODY_BYTES_MAX
from admin.ports import Deed, KeptAnswer
from admin.principals import Principal, Role
from admin.problems import MEDIA_TYPE, NO_TENANT, ProblemDetails, problem_of
from admin.services import Services, services_of
from config.errors import ConfigError
from tenancy.database import unbroken
from tenancy.errors import TenancyError
from vault.errors import VaultError

READS: Final = frozenset({"GET", "HEAD"})
BEGUN: Final = 102
OPERATORS: Final = "operator"
ANYBODY: Final = "any"
ROLE: Final = "x-role"
"""Says in the published document whom a route is for, where its path names no tenant; and is what is checked."""
SECRET_ANSWER: Final = "x-secret-answer"
"""Says that an answer must not be kept, and that its request therefore takes no idempotency key."""
ABOUT: Final = "tenant_id"
"""In a request's state."""
MAX_KEY_CHARACTERS: Final = 255
MAX_TARGET_CHARACTERS: Final = 200
KEPT_HEADERS: Final = ("content-type", "etag", "location")
_IDS: Final = re.compile(r"[a-z0-9+][a-z0-9+._:@-]{0,99}")
"""Ids of tenants, versions and tokens, names of keys, addresses."""
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class GuardedRoute(APIRoute):
    """A route of the API. Its name is the action that the trail has; its targets are the path's parameters but the tenant."""

    def get_route_handler(self) -> Handler:
        """FastAPI's, with all that stands before it."""
        handler = super().get_route_handler()
        action = self.name
        marks = self.openapi_extra or {}
        role, keeps = marks.get(ROLE), not marks.get(SECRET_ANSWER)
        takes_json = self.body_field is not None

        async def guarded(request: Request) -> Response:
            services = services_of(request)
            response = await _Guarded(services, request, handler, action, role, keeps, takes_json).answer()
            services.count(action, response.status_code)
            return response

        return guarded


def _target(value: str) -> str:
    """A path's parameter for the trail.

    Somebody may have pasted a key or a token in place of its name: what can be no id is told by its length alone.
    """
    return value if _IDS.fullmatch(value) else f"({len(value)} characters)"


@dataclass(slots=True)
class _Guarded:
    services: Services
    request: Request
    handler: Handler
    action: str
    role: str | None
    keeps: bool
    takes_json: bool

    async def answer(self) -> Response:
        try:
            principal = await self.services.authenticator.authenticate(
                self.request.headers.get("authorization"), self._source
            )
            quota = self.services.limiter.take(principal, self.services.steady_ms())
        except AdminError as error:
            return self._refused(error)
        self.request.state.principal = principal
        response = await self._answer_to(principal)
        response.headers.update(quota)
        return response

    async def _answer_to(self, principal: Principal) -> Response:
        try:
            self._check(principal)
        except AdminError as error:
            refusal = self._refused(error)
            return await self._written_down(principal, refusal, error.kind)
        try:
            # Here, so that what never comes whole is never begun.
            await self.request.body()
        except AdminError as error:
            return self._refused(error)
        except ClientDisconnect:
            return self._refused(BadRequest("the body did not come whole"))
        if self.request.method in READS:
            return await self._carried_out()
        # What was begun is carried out: a client that hangs up leaves nothing half done.
        return await unbroken(self._change(principal))

    def _check(self, principal: Principal) -> None:
        tenant_id = self.request.path_params.get("tenant_id")
        if tenant_id is not None:
            principal.check_tenant(tenant_id)
        if self.role != ANYBODY and (tenant_id is None or self.role == OPERATORS):
            principal.check_operator()

    async def _check_type(self) -> None:
        """Let a body pass that is JSON where JSON is read (RFC 8259; RFC 6839 3.1). Raises `UnsupportedMedia`."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
        if self.takes_json and not is_json and await self.request.body():
            raise UnsupportedMedia("this request's body is sent as application/json")

    async def _change(self, principal: Principal) -> Response:
        key = self.request.headers.get("idempotency-key")
        try:
            kept = None if key is None else await self._begin(principal, key)
        except AdminError as error:
            return self._refused(error)
        if kept is not None:
            headers = {name: value for name, value in kept.headers if name != "content-type"}
            kind = dict(kept.headers).get("content-type")
            return Response(kept.body, kept.status, {**headers, "Idempotency-Replayed": "true"}, kind)
        try:
            await self.services.audit.append(self._deed(principal, BEGUN))
        except AdminError as error:
            response = self._refused(error)
        else:
            response = await self._carried_out()
            await self._written_down(principal, response, self._kind_of(response))
        if key is not None:
            await self._end(principal, key, response)
        return response

    async def _begin(self, principal: Principal, key: str) -> KeptAnswer | None:
        if not self.keeps:
            raise BadRequest(
                "this request takes no Idempotency-Key: its answer has a secret, which is not kept"
            )
        if not (
            1 <= len(key) <= MAX_KEY_CHARACTERS and key.isascii() and key.isprintable() and " " not in key
        ):
            raise BadRequest(
                f"Idempotency-Key has to be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters, a UUID for example"
            )
        told = hashlib.sha256()
        for part in (
            self.request.method,
            self.request.url.path,
            self.request.url.query,
            self.request.headers.get("if-match", ""),
            self.request.headers.get("content-type", ""),
        ):
            told.update(part.encode() + b"\0")
        told.update(await self.request.body())
        return await self.services.idempotency.begin(principal, key, told.digest(), self.services.now())

    async def _end(self, principal: Principal, key: str, response: Response) -> None:
        body = bytes(response.body)
        try:
            if response.status_code < 300 and len(body) <= BODY_BYTES_MAX:
                headers = tuple(
                    (name, response.headers[name]) for name in KEPT_HEADERS if name in response.headers
                )
                answer = KeptAnswer(response.status_code, headers, body)
                await self.services.idempotency.finish(principal, key, answer, self.services.now())
            else:
                await self.services.idempotency.abandon(principal, key)
        except AdminError as error:
            logger.error("the answer to {} is not kept: {}", self.action, error)

    async def _carried_out(self) -> Response:
        try:
            await self._check_type()
            return await self.handler(self.request)
        except (
            AdminError,
            TenancyError,
            VaultError,
            ConfigError,
            RequestValidationError,
            HTTPException,
        ) as error:
            problem = problem_of(error)
            assert problem is not None, "each of these has its answer"
            if problem.status >= 500:
                logger.error("{} of {}: {}: {}", self.action, self._tenant_id, type(error).__name__, error)
            return self._rendered(problem)
        except Exception as error:  # noqa: BLE001 - the outer boundary of a request
            # Without the error's text: nobody knows what is in it.
            logger.error("{} of {} failed: {}", self.action, self._tenant_id, type(error).__name__)
            return self._rendered(
                ProblemDetails(500, "internal", "this is the server's fault; its log has more")
            )

    async def _written_down(self, principal: Principal, response: Response, kind: str) -> Response:
        try:
            await self.services.audit.append(self._deed(principal, response.status_code, kind))
        except AdminError as error:
            logger.error("the outcome of {} is not in the audit trail: {}", self.action, error)
        return response

    def _deed(self, principal: Principal, status: int, detail: str = "") -> Deed:
        targets = [
            f"{name}={_target(str(value))}"
            for name, value in sorted(self.request.path_params.items())
            if name != "tenant_id" or principal.tenant_id not in (None, value)
        ]
        return Deed(
            at=self.services.now(),
            principal=principal.name,
            credential=principal.credential,
            source=self._source,
            action=self.action,
            tenant_id=principal.tenant_id
            if principal.role is Role.TENANT
            else self._tenant_id or self._about,
            target=" ".join(targets)[:MAX_TARGET_CHARACTERS] or None,
            status=status,
            request_id=self.request.state.request_id,
            detail=detail,
        )

    def _refused(self, error: AdminError) -> Response:
        problem = problem_of(error)
        assert problem is not None, "it is one of ours"
        if isinstance(error, NotFound):
            problem = replace(problem, detail=NO_TENANT)
        return self._rendered(problem)

    def _rendered(self, problem: ProblemDetails) -> Response:
        response = problem.response(self.request.state.request_id)
        self.request.state.kind = problem.kind
        return response

    def _kind_of(self, response: Response) -> str:
        failed = response.headers.get("content-type") == MEDIA_TYPE
        return str(getattr(self.request.state, "kind", "")) if failed else ""

    @property
    def _tenant_id(self) -> str | None:
        found = self.request.path_params.get("tenant_id")
        return None if found is None else _target(str(found))[:63]

    @property
    def _about(self) -> str | None:
        """The tenant that an operator's request was about, where its path does not say so."""
        return getattr(self.request.state, ABOUT, None)

    @property
    def _source(self) -> str:
        return self.services.source(self.request)
