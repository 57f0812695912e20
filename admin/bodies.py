"""Bodies that are a tenant's configuration, in YAML or JSON, with errors that have line and field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request

from admin.errors import UnsupportedMedia
from admin.models import Fault
from admin.problems import fault_of
from config.errors import Problem
from config.loader import parse_checked_tenant
from config.schema import tenant_schema
from config.tenant import TenantConfig

MEDIA_TYPES: Final = ("application/yaml", "application/json")
"""RFC 9512 and RFC 8259; the second's documents are the first's."""


@dataclass(frozen=True, slots=True)
class ConfigBody:
    """A configuration that follows the schema, and what its author may not have meant."""

    config: TenantConfig
    warnings: tuple[Problem, ...]

    @classmethod
    async def read(cls, request: Request) -> ConfigBody:
        """The request's. Raises `UnsupportedMedia`, `config.errors.ConfigError`."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in MEDIA_TYPES:
            raise UnsupportedMedia(f"a configuration is sent as {' or '.join(MEDIA_TYPES)}")
        return cls(*parse_checked_tenant(await request.body(), "body"))


def faults_of(problems: Iterable[Problem]) -> list[Fault]:
    """Warnings, as the API tells them."""
    found = map(fault_of, problems)
    return [Fault(field=each.field, reason=each.reason, line=each.line, column=each.column) for each in found]


def config_body() -> dict[str, Any]:
    """What the published document says of such a body."""
    schema = {"$ref": "#/components/schemas/TenantConfig"}
    return {
        "requestBody": {
            "required": True,
            "description": "A tenant's configuration, as its file has it.",
            "content": {kind: {"schema": schema} for kind in MEDIA_TYPES},
        }
    }


def config_schema() -> dict[str, Any]:
    """The schema of a tenant's configuration, as a component of the published document."""
    return dict(tenant_schema())
