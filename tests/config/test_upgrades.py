"""Older documents go through every step, newer ones are refused by name."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.canonical import canonical_json
from config.errors import ConfigError, ConfigSyntaxError, InvalidConfigError, NewerSchemaError, UpgradeError
from config.loader import DEMO_NODE_FILE, load_tenant_config, parse_tenant_config, stored_tenant
from config.tenant import TENANT_SCHEMA_VERSION
from config.upgrades import TENANT_UPGRADES, Chain
from config.yaml_tree import Document, parse_document

DENTIST_FILE = DEMO_NODE_FILE.parent / "bright_smile_dental.yaml"


def rename_phone(document: dict[str, object]) -> dict[str, object]:
    """Version 1 had ``phone``, one text; version 2 has ``numbers``, a list."""
    return {
        **{name: value for name, value in document.items() if name != "phone"},
        "numbers": [document["phone"]],
    }


def nest_greeting(document: dict[str, Any]) -> dict[str, object]:
    """Version 3 has a greeting per language. It changes its argument, as a careless step would."""
    document["greeting"] = {"en": document["greeting"].strip()}
    return document


CHAIN = Chain(3, (rename_phone, nest_greeting))


def document(text: str) -> Document:
    return parse_document(text, "shop.yaml")


def test_an_old_document_goes_through_every_step_in_order() -> None:
    old = document("schema_version: 1\nphone: +15550100\ngreeting: ' Hi '\n")
    before = copy.deepcopy(old.value)
    new = CHAIN.upgrade(old)
    assert new.value == {"schema_version": 3, "numbers": ["+15550100"], "greeting": {"en": "Hi"}}
    assert old.value == before
    # What is wrong afterwards is still shown where the author wrote it, or in the nearest place there is.
    assert new.place(("greeting", "en")).line == 3
    assert new.place(("numbers", 0)).line == 1


def test_a_document_in_the_middle_takes_the_rest() -> None:
    new = CHAIN.upgrade(document("schema_version: 2\nnumbers: [+15550100]\ngreeting: Hi\n"))
    assert new.value == {"schema_version": 3, "numbers": ["+15550100"], "greeting": {"en": "Hi"}}


@pytest.mark.parametrize(
    "text",
    ["schema_version: 3\na: 1\n", "a: 1\n", "- 1\n", "schema_version: x\n", "schema_version: true\n", "schema_version: 0\n", "schema_version: -1\n", "schema_version: 1.0\n", "schema_version: null\n"],
)  # fmt: skip
def test_what_needs_no_step_or_is_validations_concern_stays_as_it_is(text: str) -> None:
    old = document(text)
    assert CHAIN.upgrade(old) is old


def test_a_newer_document_is_refused_with_its_line_and_both_versions() -> None:
    with pytest.raises(NewerSchemaError) as caught:
        CHAIN.upgrade(document("a: 1\nschema_version: 4\n"))
    assert str(caught.value).startswith(
        "shop.yaml:2:1: schema_version: version 4 is newer than this program, which reads up to 3"
    )


def test_a_document_that_is_not_what_it_says_is_refused_and_nothing_of_it_is_shown() -> None:
    with pytest.raises(UpgradeError, match="cannot be upgraded from version 1 to 2: KeyError") as caught:
        CHAIN.upgrade(document("schema_version: 1\nsecret_name: x\n"))
    assert "secret_name" not in str(caught.value)
    with pytest.raises(UpgradeError, match="from version 2 to 3: AttributeError"):
        CHAIN.upgrade(document("schema_version: 2\ngreeting: [1]\n"))


def test_a_chain_has_a_step_for_every_version() -> None:
    assert TENANT_UPGRADES.current == TENANT_SCHEMA_VERSION
    for current, steps in ((2, ()), (1, (rename_phone,)), (0, ())):
        with pytest.raises(ValueError, match="steps"):
            Chain(current, steps)


@given(
    st.integers(-3, 6),
    st.dictionaries(st.sampled_from(["phone", "greeting", "numbers"]), st.none() | st.text(max_size=5)),
)
def test_any_document_is_of_the_current_version_or_refused_and_upgrading_again_changes_nothing(
    version: int, fields: dict[str, object]
) -> None:
    given = Document("shop.yaml", {"schema_version": version, **fields}, {})
    try:
        once = CHAIN.upgrade(given)
    except InvalidConfigError as error:
        assert version > 3 or isinstance(error, UpgradeError)
    else:
        assert CHAIN.upgrade(once) is once
        assert isinstance(once.value, dict)
        assert once.value["schema_version"] == (version if version < 1 else 3)


# -- where documents come in ---------------------------------------------------------------------------


def test_a_tenant_file_of_a_later_version_is_refused_by_name() -> None:
    text = DENTIST_FILE.read_text().replace(
        "schema_version: 1", f"schema_version: {TENANT_SCHEMA_VERSION + 1}"
    )
    with pytest.raises(NewerSchemaError, match=r"file\.yaml:1:1: schema_version"):
        parse_tenant_config(text.encode(), "file.yaml")


def test_a_stored_version_is_read_back() -> None:
    config = load_tenant_config(DENTIST_FILE)
    assert stored_tenant(canonical_json(config), "store") == config


def test_a_stored_version_that_cannot_be_read_is_a_config_error_that_names_its_source() -> None:
    config = load_tenant_config(DENTIST_FILE)
    tree = config.model_dump(mode="json")
    for body, kind in (
        (b"{", ConfigSyntaxError),
        (b"\xff", ConfigSyntaxError),
        (b"[]", InvalidConfigError),
        (orjson.dumps({**tree, "schema_version": 9}), NewerSchemaError),
        (orjson.dumps({**tree, "greeting": 1}), InvalidConfigError),
    ):
        with pytest.raises(kind, match="store") as caught:
            stored_tenant(body, "store")
        assert isinstance(caught.value, ConfigError)
