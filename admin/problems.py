"""Errors as RFC 9457 problem details: one table from what any package raises to the answer that an HTTP client gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from admin.errors import AdminError, BadRequest, Fault, Invalid, TooLarge
from admin.tokens import without_tokens
from config.errors import (
    ConfigComplexityError,
    ConfigError,
    ConfigSyntaxError,
    DuplicateKeyError,
    InvalidConfigError,
    OversizedConfigError,
    Problem,
)
from tenancy import errors as tenancy
from vault import errors as vault

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:mediaserver:problem:"
"""Before the kind, so that a problem's ``type`` is a URI as RFC 9457 3.1.1 wants it."""
MAX_FAULTS: Final = 100
RETRY_AFTER_S: Final = 1
NO_TENANT: Final = "no such tenant"


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """An answer that says what is wrong."""

    status: int
    kind: str
    detail: str
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> Response:
        """The HTTP answer."""
        document: dict[str, object] = {
            "type": TYPE_PREFIX + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": shown(self.detail),
            "request_id": request_id,
        }
        if self.faults:
            document["errors"] = [
                {
                    name: shown(value) if isinstance(value, str) else value
                    for name in Fault.__slots__
                    if (value := getattr(each, name)) is not None
                }
                for each in self.faults[:MAX_FAULTS]
            ]
        return Response(orjson.dumps(document), self.status, dict(self.headers), MEDIA_TYPE)


def shown(text: str) -> str:
    """A text as an answer may have it: without a token that was pasted in place of an id, and writable as UTF-8."""
    return without_tokens(text.encode("utf-8", "replace").decode())


# The most particular class of an error decides. A store's and a vault's own words name files and servers: they are logged, and
# whoever asks gets the third column instead.
STATUSES: Final[Mapping[type[Exception], tuple[int, str, str | None]]] = MappingProxyType(
    {
        tenancy.TenancyError: (500, "internal", "the tenants' store failed"),
        tenancy.CallNotRouted: (404, "not_found", None),
        # The words for another tenant's are the same; and nothing that was pasted in place of an id is repeated.
        tenancy.UnknownTenant: (404, "not_found", NO_TENANT),
        tenancy.UnknownVersion: (404, "not_found", None),
        tenancy.TenantExists: (409, "tenant_exists", None),
        tenancy.TenantChanged: (412, "precondition_failed", None),
        tenancy.TenantMoved: (409, "tenant_moved", None),
        # Only an operator can change addresses (`admin.policy`): no tenant reads of another here.
        tenancy.NumberTaken: (409, "address_taken", None),
        tenancy.ChangeRefused: (409, "change_refused", None),
        tenancy.VersionConflict: (412, "precondition_failed", None),
        tenancy.VersionInvalid: (422, "invalid", "the version cannot be used"),
        tenancy.RestoreRefused: (409, "restore_refused", None),
        tenancy.MigrationFailed: (503, "unavailable", "the tenant is being brought to another store"),
        tenancy.StoreError: (503, "unavailable", "the tenants' store cannot be used now"),
        tenancy.StoreLocked: (503, "unavailable", "the tenants' store is busy"),
        tenancy.StoreFull: (507, "store_full", "the tenants' store has no room left; nothing was changed"),
        tenancy.StoreUnavailable: (503, "unavailable", "the tenants' store cannot be reached"),
        tenancy.TenantElsewhere: (503, "unavailable", "the tenant is in another store than this node has"),
        tenancy.StoreCorrupt: (500, "store_corrupt", "the tenant's data are damaged"),
        vault.VaultError: (500, "internal", "the vault failed"),
        vault.BadInput: (422, "invalid", None),
        vault.SecretMissing: (404, "not_found", None),
        vault.SecretRevoked: (404, "not_found", None),
        vault.SealBroken: (500, "vault_broken", "the key is damaged"),
        vault.VaultFull: (409, "vault_full", None),
        vault.Conflict: (409, "conflict", "somebody else changed the same thing; try again"),
        vault.AuditBroken: (500, "vault_broken", "the vault's audit trail is damaged: nothing is changed"),
        vault.MoveRefused: (503, "unavailable", "the vault is being brought to another store"),
        vault.OtherVault: (503, "unavailable", "the vault is being brought to another store"),
        vault.KeyEncryptionError: (503, "unavailable", "the key-encryption key cannot be used now"),
        vault.KekMissing: (503, "unavailable", "the key-encryption key is not here"),
        vault.KekUnusable: (503, "unavailable", "the key-encryption key cannot be used"),
        vault.KekDenied: (503, "unavailable", "the key service refuses this node"),
        vault.KekUnavailable: (503, "unavailable", "the key service cannot be reached"),
        vault.VaultStoreError: (503, "unavailable", "the vault's store cannot be used now"),
        vault.VaultStoreLocked: (503, "unavailable", "the vault's store is busy"),
        vault.VaultStoreUnavailable: (503, "unavailable", "the vault's store cannot be reached"),
        vault.VaultStoreFull: (507, "store_full", "the vault's store has no room left; nothing was changed"),
        vault.VaultElsewhere: (503, "unavailable", "the vault is in another store than this node has"),
        vault.VaultStoreCorrupt: (500, "vault_broken", "the vault's store is damaged"),
    }
)


def problem_of(error: Exception) -> ProblemDetails | None:
    """The answer to an error; None for one that nobody raised on purpose."""
    match error:
        case AdminError():
            faults = error.faults if isinstance(error, Invalid) else ()
            return ProblemDetails(error.status, error.kind, str(error), faults, error.headers)
        case tenancy.VersionInvalid():
            return ProblemDetails(
                422, "invalid", "the version cannot be used", tuple(map(_named, error.faults))
            )
        case ConfigError():
            return _config_problem(error)
        case RequestValidationError():
            return _request_problem(error)
        case HTTPException():
            return _http_problem(error)
        case _:
            return _listed(error)


def _listed(error: Exception) -> ProblemDetails | None:
    for known in type(error).__mro__:
        if known in STATUSES:
            status, kind, text = STATUSES[known]
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
            return ProblemDetails(status, kind, str(error) if text is None else text, headers=headers)
    return None


def _named(text: str) -> Fault:
    name, colon, reason = text.partition(": ")
    return Fault(name, reason) if colon else Fault("", text)


def fault_of(problem: Problem) -> Fault:
    """A configuration's problem."""
    return Fault(problem.field, problem.text, problem.place.line, problem.place.column)


def _config_problem(error: ConfigError) -> ProblemDetails:
    match error:
        case InvalidConfigError():
            faults = tuple(map(fault_of, error.problems))
        case ConfigSyntaxError() | ConfigComplexityError() | DuplicateKeyError():
            faults = (fault_of(error.problem),)
        case OversizedConfigError():
            return ProblemDetails(413, TooLarge.kind, str(error))
        case _:
            faults = ()
    return ProblemDetails(422, "invalid", "the configuration cannot be used", faults)


def _place(location: Sequence[object]) -> str:
    """Where it is: in the body, where nothing else is said."""
    return ".".join(map(str, location[1:] if location[:1] == ("body",) else location))


def _request_problem(error: RequestValidationError) -> ProblemDetails:
    """Without what was sent: a key may be in it."""
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return ProblemDetails(400, BadRequest.kind, "the body is no JSON")
    faults = tuple(Fault(_place(each["loc"]), str(each["msg"])) for each in found)
    return ProblemDetails(422, "invalid", "the request has fields that cannot be used", faults)


def _http_problem(error: HTTPException) -> ProblemDetails:
    kinds = {404: "not_found", 405: "method_not_allowed", 400: BadRequest.kind}
    texts = {
        404: "there is nothing at this path; /openapi.json says what there is",
        405: "this path has not this method",
    }
    status = error.status_code
    detail = texts.get(status, HTTPStatus(status).phrase)
    return ProblemDetails(status, kinds.get(status, "error"), detail, headers=error.headers or {})
