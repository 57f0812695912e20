"""The JSON Schema (draft 2020-12) of a tenant's file, for editors: completion, and errors while one types.

Made from the models, titles and descriptions from their docstrings. It says less than the program: what concerns several
fields, time zones and variables only the program checks. What the program accepts, the schema accepts.
``python -m config.schema`` prints it; ``tenant.schema.json`` beside this module is that.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import orjson

from config.tenant import TENANT_SCHEMA_VERSION, TenantConfig

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TENANT_SCHEMA_ID: Final = f"urn:ai-receptionist:tenant-config:{TENANT_SCHEMA_VERSION}"
TENANT_SCHEMA_FILE: Final = Path(__file__).parent / "tenant.schema.json"


def tenant_schema() -> dict[str, object]:
    """Build the schema."""
    schema: dict[str, object] = TenantConfig.model_json_schema()
    _tidied(schema, schema["$defs"])
    return {
        "$schema": DIALECT,
        "$id": TENANT_SCHEMA_ID,
        **schema,
        "title": "A tenant's configuration",
    }


def tenant_schema_text() -> str:
    """Write the schema as the file has it."""
    return orjson.dumps(tenant_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _tidied(node: object, definitions: object) -> None:
    """Make pydantic's schema say what the loader does, in the words of JSON Schema alone. Changes it in place."""
    if isinstance(node, list):
        for inner in node:
            _tidied(inner, definitions)
        return
    if not isinstance(node, dict):
        return
    # A keyword of OpenAPI's. What it means here: the loader chooses the member by this field, so it must be there.
    chosen_by = node.pop("discriminator", None)
    if chosen_by is not None and isinstance(definitions, dict):
        for reference in chosen_by["mapping"].values():
            member = definitions[reference.removeprefix("#/$defs/")]
            member["required"] = sorted({*member.get("required", ()), chosen_by["propertyName"]})
    if isinstance(node.get("description"), str):
        # Paragraphs stay, line breaks of the source do not.
        node["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", node["description"])
    for inner in node.values():
        _tidied(inner, definitions)


def main() -> None:
    """Print the schema."""
    sys.stdout.write(tenant_schema_text())


if __name__ == "__main__":
    main()
