"""The published document, and that every error has its answer."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from admin.problems import STATUSES, problem_of
from config import errors as config
from config.errors import Place, Problem
from tenancy import errors as tenancy
from tenancy.routing import NoTrunk
from tests.admin.api import OPERATOR, A, api_with
from vault import errors as vault

METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
async def document(tmp_path: Path) -> dict[str, Any]:
    async with api_with(tmp_path, ()) as api:
        told = await api.ask(None, "GET", "/openapi.json")
        assert told.status_code == 200
        found: dict[str, Any] = told.json()
        return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_says_what_it_is_and_whom_it_is_for(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) > 30
    ids = [operation["operationId"] for _, _, operation in found]
    assert len(set(ids)) == len(ids)
    for path, method, operation in found:
        where = f"{method} {path}"
        assert method in METHODS, where
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"]), where
        assert re.fullmatch(r"[A-Z].{9,}[^.\s]", operation["summary"]), where
        assert "{tenant_id}" in path or operation["x-role"] in ("operator", "any"), where
        assert operation.get("security", document["security"]) == [{"token": []}], where
        for status, answer in operation["responses"].items():
            assert answer["description"].strip(), where
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (where, status)
    scheme = document["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_every_reference_leads_somewhere_and_nothing_lies_about_unused(document: dict[str, Any]) -> None:
    used: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                used.add(node["$ref"])
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(document)
    have = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert used - have == set()
    assert have - used == set()


async def test_what_the_document_says_of_roles_is_what_is_checked(tmp_path: Path) -> None:
    async with api_with(tmp_path, (A,)) as api:
        document = (await api.ask(None, "GET", "/openapi.json")).json()
        for path, method, operation in operations(document):
            mine = re.sub(r"{(\w+)}", "1", path.replace("{tenant_id}", A))
            nobody = await api.ask(None, method.upper(), mine)
            assert nobody.status_code == 401, (method, path)
            assert nobody.headers["www-authenticate"].startswith("Bearer"), (method, path)
            answer = await api.ask(A, method.upper(), mine)
            for_operators = operation.get("x-role") == "operator"
            assert (answer.status_code == 403) == for_operators, (method, path, answer.text)


async def test_paths_and_methods_that_are_not_there(tmp_path: Path) -> None:
    async with api_with(tmp_path, ()) as api:
        assert api.app.docs_url is None
        for method, path, status in (
            ("GET", "/", 404),
            ("GET", "/docs", 404),
            ("GET", "/v1/tenants/", 404),
            ("GET", "/v1//tenants", 404),
            ("GET", "/v1/tenants/a/config/versions/1/activation/x", 404),
            ("PUT", "/v1/tenants", 405),
            ("TRACE", "/v1/tenants", 405),
            ("OPTIONS", "/v1/tenants", 405),
        ):
            answer = await api.ask(OPERATOR, method, path)
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
            if status == 405:
                assert set(answer.headers["allow"].replace(" ", "").split(",")) <= {"GET", "POST"}


# -- errors ----------------------------------------------------------------------------------------------------


def classes_of(module: ModuleType) -> list[type[Exception]]:
    return [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, Exception) and each.__module__ == module.__name__ and each.__name__[0] != "_"
    ]


@pytest.mark.parametrize("module", [tenancy, vault], ids=["tenancy", "vault"])
def test_every_error_of_a_store_or_vault_has_its_own_line(module: ModuleType) -> None:
    assert [each for each in classes_of(module) if each not in STATUSES] == []


PROBLEM = Problem(Place("body", 3, 7), "greeting", "has to be a text")


def made(kind: type[Exception]) -> Exception:
    if issubclass(kind, config.InvalidConfigError):
        return kind((PROBLEM,))
    if issubclass(kind, config._OneProblemError):
        return kind(PROBLEM)
    if kind is tenancy.CallNotRouted:
        return tenancy.CallNotRouted(NoTrunk())
    if kind is tenancy.TenantMoved:
        return tenancy.TenantMoved("a", "elsewhere")
    if kind is tenancy.VersionConflict:
        return tenancy.VersionConflict("2 is active by now, not 1", 1, 2)
    if kind is tenancy.VersionInvalid:
        return tenancy.VersionInvalid(("greeting: '{x}' is no variable",))
    if kind is vault.KekMissing:
        return vault.KekMissing("k1", "the text")
    return kind("the text")


@pytest.mark.parametrize(
    "kind", [*classes_of(tenancy), *classes_of(vault), *classes_of(config)], ids=lambda kind: kind.__name__
)
def test_every_error_has_an_answer_that_says_what_is_wrong(kind: type[Exception]) -> None:
    problem = problem_of(made(kind))
    assert problem is not None
    assert 400 <= problem.status < 600
    assert problem.detail.strip()
    assert re.fullmatch(r"[a-z][a-z_]+", problem.kind)
    assert ("Retry-After" in problem.headers) == (problem.status == 503)
    if kind is config.OversizedConfigError:
        assert problem.status == 413
    elif issubclass(kind, config.ConfigError):
        assert problem.status == 422
    if issubclass(kind, config.InvalidConfigError | config._OneProblemError):
        (fault,) = problem.faults
        assert (fault.field, fault.line, fault.column) == ("greeting", 3, 7)


def test_what_nobody_raised_on_purpose_has_none() -> None:
    assert problem_of(ValueError("a secret")) is None
