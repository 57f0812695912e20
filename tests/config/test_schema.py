"""The published JSON Schema is the program's: made anew it is the same, and what the program takes it takes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from config.loader import DEMO_NODE_FILE
from config.schema import (
    DIALECT,
    TENANT_SCHEMA_FILE,
    TENANT_SCHEMA_ID,
    main,
    tenant_schema,
    tenant_schema_text,
)
from config.tenant import TENANT_SCHEMA_VERSION, TenantConfig
from config.yaml_tree import parse_document

DEMO_FILES: Final = tuple(sorted(set(DEMO_NODE_FILE.parent.glob("*.yaml")) - {DEMO_NODE_FILE}))
SCHEMA: Final = orjson.loads(TENANT_SCHEMA_FILE.read_bytes())
VALIDATOR: Final = Draft202012Validator(SCHEMA)
PLUMBER: Final = parse_document((DEMO_NODE_FILE.parent / "rapid_plumbing.yaml").read_text(), "demo").value


def test_the_file_is_up_to_date() -> None:
    assert TENANT_SCHEMA_FILE.read_text() == tenant_schema_text(), (
        "python -m config.schema > config/tenant.schema.json"
    )


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert capsys.readouterr().out == tenant_schema_text()


def test_it_is_a_schema_of_its_dialect_and_names_itself() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == DIALECT
    assert SCHEMA["$id"] == TENANT_SCHEMA_ID
    assert TENANT_SCHEMA_ID.endswith(f":{TENANT_SCHEMA_VERSION}")
    assert SCHEMA["properties"]["schema_version"]["const"] == TENANT_SCHEMA_VERSION
    assert tenant_schema() == SCHEMA


@pytest.mark.parametrize("path", DEMO_FILES, ids=lambda path: path.stem)
def test_the_demo_files_follow_it(path: Path) -> None:
    assert list(VALIDATOR.iter_errors(parse_document(path.read_text(), path.name).value)) == []


def test_there_are_demo_files() -> None:
    assert len(DEMO_FILES) == 2


def test_what_an_editor_shows_comes_from_the_docstrings() -> None:
    assert SCHEMA["description"] == "Everything that one business decides about its receptionist."
    undescribed = [
        name
        for name, field in SCHEMA["properties"].items()
        if "description" not in field and "$ref" not in field
    ]
    assert undescribed == []
    for name, definition in SCHEMA["$defs"].items():
        assert definition.get("description"), name
        assert "discriminator" not in str(definition)


def edited(*path: str | int, value: object = None, delete: bool = False) -> object:
    tree: Any = copy.deepcopy(PLUMBER)
    inner = tree
    for part in path[:-1]:
        inner = inner[part]
    if delete:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (edited("greting", value="Hi"), ""),
        (edited("greeting", delete=True), ""),
        (edited("schema_version", value=2), "schema_version"),
        (edited("tenant_id", value="../etc"), "tenant_id"),
        (edited("numbers", 0, value="5550100"), "numbers/0"),
        (edited("numbers", value=[]), "numbers"),
        (edited("hours", "mondey", value=[]), "hours"),
        (edited("hours", "monday", 0, "opens", value="25:00"), "hours/monday/0/opens"),
        (edited("hours", "monday", 0, "opens", value=9), "hours/monday/0/opens"),
        (edited("voice", "speed", value=3), "voice/speed"),
        (edited("max_concurrent_calls", value="3"), "max_concurrent_calls"),
        (edited("instructions", value="x" * 20_001), "instructions"),
        (edited("providers", value={"llm": [{"model": "x"}]}), "providers/llm/0"),
        (edited("providers", value={"llm": [{"kind": "opena", "model": "x"}]}), "providers/llm/0"),
        (edited("emergency", "keywords", delete=True), "emergency"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_shown_where_it_is(document: object, where: str) -> None:
    places = {
        "/".join(str(part) for part in error.absolute_path) for error in VALIDATOR.iter_errors(document)
    }
    assert places == {where}
    with pytest.raises(ValidationError):
        TenantConfig.model_validate_json(orjson.dumps(document), strict=True)


def paths(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(inner for key, value in items for inner in paths(value, (*path, key)))]


PATHS: Final = paths(PLUMBER)[1:]
VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        1.5,
        -1,
        "",
        "x",
        "08:30",
        "+15550199",
        [],
        {},
        ["x"],
        {"kind": "embedded"},
        "x" * 2_001,
    ]
)


@settings(max_examples=200)
@given(st.sampled_from(PATHS), VALUES, st.booleans())
def test_what_the_program_takes_the_schema_takes(
    path: tuple[str | int, ...], value: object, delete: bool
) -> None:
    document = edited(*path, value=value, delete=delete)
    try:
        TenantConfig.model_validate_json(orjson.dumps(document), strict=True)
    except ValidationError:
        return
    assert list(VALIDATOR.iter_errors(document)) == []
