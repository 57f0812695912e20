"""Files to configurations, with errors that say where and what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from config.errors import (
    ConfigError,
    ConfigSyntaxError,
    EnvironmentOverrideError,
    InvalidConfigError,
    OversizedConfigError,
    Place,
    Problem,
    UnreadableConfigError,
)
from config.node import NodeConfig
from config.problems import problem_details, problems_of
from config.references import check_references
from config.tenant import TenantConfig
from config.upgrades import TENANT_UPGRADES
from config.yaml_tree import Document, FieldPath, parse_document

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_FILE_BYTES = 1024 * 1024
MAX_TENANT_FILES = 100_000
DEMO_NODE_FILE: Final = Path(__file__).parent / "demo" / "node.yaml"

OVERRIDES: Final[tuple[tuple[str, tuple[FieldPath, ...]], ...]] = (
    ("MEDIASERVER_SIP_HOST", (("sip", "host"),)),
    ("MEDIASERVER_SIP_PORT", (("sip", "port"),)),
    ("MEDIASERVER_MEDIA_HOST", (("media", "host"),)),
    ("MEDIASERVER_MEDIA_FIRST_PORT", (("media", "first_port"),)),
    ("MEDIASERVER_ADVERTISED_HOST", (("sip", "advertised_host"), ("media", "advertised_host"))),
    ("MEDIASERVER_HTTP_HOST", (("http", "host"),)),
    ("MEDIASERVER_HTTP_PORT", (("http", "port"),)),
    ("MEDIASERVER_OPERATOR_HOST", (("http", "operator", "host"),)),
    ("MEDIASERVER_OPERATOR_PORT", (("http", "operator", "port"),)),
    ("MEDIASERVER_DATA_DIR", (("data_dir",),)),
    ("MEDIASERVER_SLOTS", (("capacity", "slots"),)),
    ("MEDIASERVER_MODELS_URL", (("models", "url"),)),
    ("MEDIASERVER_WORKERS", (("workers", "count"),)),
    ("MEDIASERVER_LOG_LEVEL", (("log_level",),)),
    ("MEDIASERVER_LOG_FORMAT", (("log_format",),)),
)
"""What differs between machines that share a file: the variable, and the fields it sets. Empty means unset."""


def load_tenant_config(path: Path) -> TenantConfig:
    """Read a tenant's file. Raises `ConfigError`."""
    return parse_tenant_config(_read(path), str(path))


def load_checked_tenant(path: Path) -> tuple[TenantConfig, tuple[Problem, ...]]:
    """Read a tenant's file; return it with the warnings for its author. Raises `ConfigError`."""
    return parse_checked_tenant(_read(path), str(path))


def parse_tenant_config(data: bytes, file: str) -> TenantConfig:
    """Parse a tenant's YAML; ``file`` is what errors call it. Raises `ConfigError`."""
    return parse_checked_tenant(data, file)[0]


def parse_checked_tenant(data: bytes, file: str) -> tuple[TenantConfig, tuple[Problem, ...]]:
    """Parse a tenant's YAML and return it with the warnings for its author. Raises `ConfigError`."""
    document = TENANT_UPGRADES.upgrade(_document(data, file))
    config = _validated(TenantConfig, document)
    findings = check_references(config, document)
    if findings.errors:
        raise InvalidConfigError(findings.errors)
    return config, findings.warnings


def stored_tenant(body: bytes, source: str) -> TenantConfig:
    """Read a configuration that this program, or an earlier one, has stored as canonical JSON. Raises `ConfigError`.

    References are not checked: they were when it was stored, and a stored version goes on to serve calls.
    """
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConfigSyntaxError(Problem(Place(source), "", f"not JSON: {error}")) from error
    return _validated(TenantConfig, TENANT_UPGRADES.upgrade(Document(source, value, {})))


def load_node_config(path: Path | None = None, environ: Mapping[str, str] | None = None) -> NodeConfig:
    """Read a node's file (none: the demo node) and apply the overrides. Raises `ConfigError`."""
    path = DEMO_NODE_FILE if path is None else path
    config = parse_node_config(_read(path), str(path), os.environ if environ is None else environ)
    folder = config.tenant_folder
    if folder is not None:
        folder = folder.model_copy(update={"path": path.parent.absolute() / folder.path.expanduser()})
    return config.model_copy(
        update={
            "tenants": tuple(path.parent.absolute() / each.expanduser() for each in config.tenants),
            "tenant_folder": folder,
        }
    )


def parse_node_config(data: bytes, file: str, environ: Mapping[str, str]) -> NodeConfig:
    """Parse a node's YAML and apply the overrides in ``environ``. Raises `ConfigError`."""
    document = _document(data, file)
    config = _validated(NodeConfig, document)
    tree = config.model_dump(mode="json")
    sources: dict[FieldPath, str] = {}
    for variable, fields in OVERRIDES:
        if text := environ.get(variable, "").strip():
            value: object = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
            for field in fields:
                sources[field] = variable
                _set(tree, field, value)
    if not sources:
        return config
    try:
        return NodeConfig.model_validate_json(orjson.dumps(tree), strict=True)
    except ValidationError as error:
        overridden = Document(file, tree, {})
        raise EnvironmentOverrideError(
            "\n".join(
                f"{_source(details['loc'], sources)}: {problem.text}"
                for details, problem in zip(
                    problem_details(error), problems_of(error, NodeConfig, overridden), strict=True
                )
            )
        ) from error


def tenant_files(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """List the files that ``NodeConfig.tenants`` names: a folder stands for its ``*.yaml``, by name."""
    files: list[Path] = []
    for path in paths:
        try:
            files.extend(sorted(path.glob("*.yaml")) if path.is_dir() else [path])
        except OSError as error:
            raise UnreadableConfigError(f"{path}: {error.strerror}") from error
    if len(files) > MAX_TENANT_FILES:
        raise OversizedConfigError(f"{len(files)} tenant files; at most {MAX_TENANT_FILES} are imported")
    return tuple(files)


def load_tenants(paths: tuple[Path, ...]) -> tuple[TenantConfig, ...]:
    """Read all that ``NodeConfig.tenants`` names; two files may claim neither one tenant nor one number, SIP address or site key."""
    owner: dict[str, Path] = {}
    configs: list[TenantConfig] = []
    for file in tenant_files(paths):
        config = load_tenant_config(file)
        keys = (site.key for site in config.site_keys)
        for claim in (config.tenant_id, *config.numbers, *config.sip_addresses, *keys):
            if claim in owner:
                raise ConfigError(f"{file}: {claim!r} is already used in {owner[claim]}")
            owner[claim] = file
        configs.append(config)
    return tuple(configs)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableConfigError(f"{path}: {error.strerror or error}") from error


def _document(data: bytes, file: str) -> Document:
    if len(data) > MAX_FILE_BYTES:
        raise OversizedConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableConfigError(f"{file}:{line}: not UTF-8 (byte {error.start})") from error
    return parse_document(text, file)


def _validated(model: type[ModelT], document: Document) -> ModelT:
    """Validate as JSON: strict there means no coercion, yet lists may be tuples and text may be a time."""
    try:
        return model.model_validate_json(orjson.dumps(document.value), strict=True)
    except orjson.JSONEncodeError as error:
        problem = Problem(Place(document.file), "", f"text that is not valid Unicode: {error}")
        raise InvalidConfigError((problem,)) from error
    except ValidationError as error:
        raise InvalidConfigError(problems_of(error, model, document)) from error


def _set(tree: dict[str, object], path: FieldPath, value: object) -> None:
    inner: object = tree
    for part in path[:-1]:
        assert isinstance(inner, dict)
        inner = inner[part]
    assert isinstance(inner, dict)
    inner[path[-1]] = value


def _source(location: tuple[str | int, ...], sources: Mapping[FieldPath, str]) -> str:
    return next((name for field, name in sources.items() if location[: len(field)] == field), "environment")
