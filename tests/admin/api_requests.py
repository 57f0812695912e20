"""Requests to whatever operations the published document has: good ones, near misses and nonsense."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from admin.problems import MEDIA_TYPE
from tests.admin.api import NUMBERS, A, B, config_of

C = "tenant-c"
INVENTED = "tenant-n"
MADE_UP_TAGS = ("*", '"1-0123456789abcdef"', 'W/"1-0123456789abcdef"', '"a", "b"', "", "no tag", '"' * 40)
MADE_UP_CURSORS = (
    "",
    "MQ",
    "MTA",
    "LTE",
    "====",
    "%00",
    "dGVuYW50LWE",
    "dGVuYW50LWI",
    "MjAyNS0wMS0wMQo",
    "é",
    "x" * 600,
)
KEYS = ("key-1", "key-2", "key-3", "key-4", "key-5", "key-6", "a key", "k" * 256)
TEXTS = st.one_of(
    st.sampled_from(("x", "", " ", "a reason", "0", "\0", "\ud800", "x" * 2_000, "DROP TABLE tenants; --")), st.text(max_size=8)
)  # fmt: skip


@dataclass
class Seen:
    """What answers have shown to anybody: what an attacker would try."""

    tags: list[str] = field(default_factory=list)
    latest: dict[str, list[str]] = field(default_factory=dict)
    """What a tenant's configuration and status are now."""
    cursors: list[str] = field(default_factory=list)
    token_ids: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Operation:
    """One of the document."""

    method: str
    path: str
    says: dict[str, Any] = field(repr=False)
    document: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def of_a_tenant(self) -> bool:
        return "{tenant_id}" in self.path

    @property
    def for_operators(self) -> bool:
        return self.says.get("x-role") == "operator"

    def check(self, status: int, content_type: str, body: Any) -> None:
        """That this answer is one that the document announces."""
        answer = self.says["responses"].get(str(status))
        assert answer is not None, f"{self!r} answered {status}, which is not in the document"
        if status == 304:
            return
        wanted = MEDIA_TYPE if status >= 400 else "application/json"
        assert content_type == wanted, f"{self!r}: {content_type}"
        schema = answer["content"][wanted].get("schema", {})
        whole = {"components": self.document["components"], "allOf": [schema]}
        errors = list(Draft202012Validator(whole).iter_errors(body))
        assert not errors, f"{self!r}: {errors[0].message}"


@dataclass(frozen=True)
class Asked:
    """A request that was drawn."""

    operation: Operation
    tenant_id: str | None
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    content: bytes | None
    json: Any

    def about(self, tenant_id: str) -> str:
        """The path with another tenant in it."""
        assert self.tenant_id is not None
        return self.path.replace(f"/tenants/{self.tenant_id}", f"/tenants/{tenant_id}", 1)


def operations_of(document: dict[str, Any]) -> list[Operation]:
    return [
        Operation(method.upper(), path, says, document)
        for path, methods in document["paths"].items()
        for method, says in methods.items()
    ]


def requests(operation: Operation, seen: Seen, tenant_ids: tuple[str, ...]) -> st.SearchStrategy[Asked]:
    """Requests to an operation, about one of these tenants where it is about a tenant."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Asked:
        path, params, headers, tenant_id = operation.path, {}, {}, None
        for each in operation.says.get("parameters", ()):
            name, where = each["name"], each["in"]
            if name == "tenant_id":
                tenant_id = draw(st.sampled_from(tenant_ids))
                path = path.replace("{tenant_id}", tenant_id)
            elif where == "path":
                path = path.replace(f"{{{name}}}", draw(_in_path(name, seen)))
            elif where == "header":
                # Mostly what is there: a change that names it passes.
                known = [*seen.latest.get(tenant_id or "", ())] * 12
                value = draw(st.sampled_from([*known, None, *seen.tags[-4:], *MADE_UP_TAGS]))
                if value is not None:
                    headers[name] = value
            elif each.get("required") or draw(st.booleans()):
                value = draw(_in_query(name, each["schema"], operation.document, seen))
                if isinstance(value, str) and value.isprintable():
                    params[name] = value
        if operation.method != "GET":
            key = draw(st.sampled_from((*[None] * 6, *KEYS)))
            if key is not None:
                headers["Idempotency-Key"] = key
        content, json = draw(_body(operation, tenant_id, headers))
        return Asked(operation, tenant_id, path, params, headers, content, json)

    return drawn()


def _in_path(name: str, seen: Seen) -> st.SearchStrategy[str]:
    known = {
        "version": ["1", *["2", "3", "4"] * 4, "0", "-1", "2147483648", "1e3", "x"],
        "name": [*["openai", f"canary-{A}", f"canary-{B}"] * 3, "Not A Name", "%2e%2e"],
        "public_id": [*seen.token_ids, "0123456789abc", "x"],
        "address": [*NUMBERS.values(), "+15559999", "sip:nobody@example.org", "%00", "a/b"],
    }.get(name, ["1", "x"])
    return st.sampled_from([*known, *seen.tokens[-2:]])


def _in_query(
    name: str, schema: dict[str, Any], document: dict[str, Any], seen: Seen
) -> st.SearchStrategy[Any]:
    if name == "cursor":
        return st.sampled_from([*seen.cursors[-6:], *seen.cursors[-6:], *MADE_UP_CURSORS])
    if name in ("limit", "from", "to", "after"):
        return st.sampled_from((*("1", "2", "3", "100") * 4, "0", "101", "-1", "x", "9" * 30))
    return _values(schema, document).map(lambda value: value if isinstance(value, str) else str(value))


def _body(
    operation: Operation, tenant_id: str | None, headers: dict[str, str]
) -> st.SearchStrategy[tuple[bytes | None, Any]]:
    says = operation.says.get("requestBody")
    if says is None:
        return st.just((None, None))
    kind, content = next(iter(says["content"].items()))
    if content["schema"].get("$ref", "").endswith("/TenantConfig"):
        headers["content-type"] = kind
        return _config_bodies(tenant_id).map(lambda text: (text, None))
    nonsense = (b"", b"{", b'{"reason": "\xff"}', b'{"\\ud800": 1}', b"[" * 900)
    headers["content-type"] = kind
    good = _values(content["schema"], operation.document).map(lambda value: (None, value))
    return _mostly(good, st.sampled_from(nonsense).map(lambda text: (text, None)))


def _mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Seven of eight good ones."""
    return st.integers(0, 7).flatmap(lambda number: bad if number == 7 else good)


def _config_bodies(tenant_id: str | None) -> st.SearchStrategy[bytes]:
    whose = st.sampled_from([tenant_id or C] * 4 + [A, B, C])
    changes: list[dict[str, object]] = [
        {},
        {"greeting": "Another greeting."},
        {"greeting": "A third greeting.", "max_concurrent_calls": 1},
        {"greeting": "{nothing}"},
        {"numbers": [NUMBERS[B]]},
        {"numbers": ["+15550177"]},
        {"max_concurrent_calls": 999},
        {"providers": {"llm": [{"kind": "openai", "base_url": "http://169.254.169.254/v1", "model": "m"}]}},
        {"providers": {"llm": [{"kind": "openai", "api_key_env": "AWS_SECRET_ACCESS_KEY", "model": "m"}]}},
        {"unknown_field": 1},
    ]
    good = st.builds(
        lambda tenant, change: config_of(tenant, **change).encode(), whose, st.sampled_from(changes)
    )
    bad = (b"", b"a: [", b"a: &x [*x]", b"\xff\xfe", b"- 1", b"tenant_id: {}", b"a: 1\na: 2", b"null")
    return _mostly(good, st.sampled_from(bad))


def _values(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema allows, mostly."""
    if "$ref" in schema:
        return _values(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([_values(each, document) for each in schema["anyOf"]])
    match schema.get("type"):
        case "object":
            return _objects(schema, document)
        case "array":
            return st.lists(_values(schema.get("items", {}), document), max_size=2)
        case "integer":
            return st.sampled_from((*(1, 2, 3, 4) * 4, 0, 2**31, 2**70))
        case "number":
            return st.sampled_from((*(1, 5.0, 50) * 4, 0.5, -1, 1e300))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return _mostly(st.sampled_from((A, B, "a good reason", "key-value")), TEXTS)
        case _:
            return st.sampled_from((1, "x", None, []))


def _objects(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:
    required = schema.get("required", [])
    needed = {
        name: _values(each, document)
        for name, each in schema.get("properties", {}).items()
        if name in required
    }
    others = {
        name: _values(each, document)
        for name, each in schema.get("properties", {}).items()
        if name not in required
    }
    good = st.fixed_dictionaries(needed, optional=others)
    nonsense: st.SearchStrategy[Any] = good.map(lambda value: {**value, "unknown": 1}) | st.sampled_from(
        ({}, [], None, "x")
    )
    return _mostly(good, nonsense)
