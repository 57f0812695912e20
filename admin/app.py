"""The application: its routes, its published document (OpenAPI 3.1), and what it says where there is no route."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from admin import (
    routes_config,
    routes_keys,
    routes_records,
    routes_tenants,
    routes_tokens,
    routes_trials,
)
from admin.bodies import config_schema
from admin.errors import AdminError
from admin.middleware import RequestBounds
from admin.models import Fault, Problem
from admin.problems import MEDIA_TYPE, problem_of
from admin.services import Services

MODULES: Final = (routes_tenants, routes_config, routes_trials, routes_keys, routes_records, routes_tokens)
VERSION: Final = "1"
REFERENCE: Final = "#/components/schemas/{model}"


def make_admin_app(services: Services) -> FastAPI:
    """The API on these services."""
    app = FastAPI(
        title="AI receptionist administration",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        generate_unique_id_function=_operation_id,
    )
    app.state.services = services
    for module in MODULES:
        app.include_router(module.routes())
    app.add_middleware(RequestBounds)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(AdminError, _no_route)
    app.openapi = lambda: document(app)  # type: ignore[method-assign] # FastAPI's own way to extend it
    return app


def _operation_id(route: APIRoute) -> str:
    """The action that the trail has, as a name that programs can have."""
    return route.name.replace(".", "_")


async def _no_route(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    assert problem is not None, "it is registered for what has an answer"
    return problem.response(request.state.request_id)


def document(app: FastAPI) -> dict[str, Any]:
    """The published document."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            summary="Tenants, their configuration versions, keys, calls and the audit trail of a node.",
            routes=app.routes,
        )
        components = found.setdefault("components", {})
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API token of this node, or a JWT of an issuer that it believes.",
            }
        }
        found["security"] = [{"token": []}]
        schemas = components.setdefault("schemas", {})
        for name, made in (
            ("Problem", _component(Problem)),
            ("Fault", _component(Fault)),
            *_config_components(),
        ):
            schemas.setdefault(name, made)
        for gone in ("HTTPValidationError", "ValidationError"):
            schemas.pop(gone, None)
        _problem_schemas(found)
        _summaries(found)
        app.openapi_schema = found
    return app.openapi_schema


def _component(model: type[Problem] | type[Fault]) -> dict[str, Any]:
    made = model.model_json_schema(ref_template=REFERENCE)
    made.pop("$defs", None)
    return made


def _config_components() -> list[tuple[str, dict[str, Any]]]:
    """The schema of a configuration, and those that it refers to."""
    made = config_schema()
    definitions = made.pop("$defs", {})
    made.pop("$schema", None)
    made.pop("$id", None)
    return [
        (f"Tenant{name}" if name != "TenantConfig" else name, _renamed(each))
        for name, each in [("TenantConfig", made), *definitions.items()]
    ]


def _renamed(node: Any) -> Any:
    """With references to where its definitions are in the document."""
    if isinstance(node, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/Tenant")
            if key == "$ref" and isinstance(value, str)
            else _renamed(value)
            for key, value in node.items()
        }
    return [_renamed(each) for each in node] if isinstance(node, list) else node


def _problem_schemas(found: dict[str, Any]) -> None:
    """Every answer that says what is wrong has the problem's schema."""
    for methods in found["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _summaries(found: dict[str, Any]) -> None:
    """Every operation's summary is the first sentence of what is said of it; the rest stays its description."""
    for methods in found["paths"].values():
        for operation in methods.values():
            text = " ".join(operation.pop("description").split())
            operation["summary"], _, rest = text.removesuffix(".").partition(". ")
            if rest:
                operation["description"] = f"{rest}."
