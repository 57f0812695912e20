"""What differs, in lines that people read, without a secret in them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.diff import HIDDEN, MAX_CHANGES, ChangeKind, differences
from config.loader import DEMO_NODE_FILE, load_tenant_config

DENTIST = load_tenant_config(DEMO_NODE_FILE.parent / "bright_smile_dental.yaml").model_dump(mode="json")


def changed(*path: str | int, value: object) -> dict[str, object]:
    copied: dict[str, object] = copy.deepcopy(DENTIST)
    inner: Any = copied
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return copied


def lines(old: dict[str, object], new: dict[str, object]) -> tuple[str, ...]:
    return differences(old, new).lines()


def test_nothing_differs() -> None:
    assert lines(DENTIST, copy.deepcopy(DENTIST)) == ()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("greeting",), "Hi.", '~ greeting: "Thank you for calling Bright Smile Dental. How can I help you today?" -> "Hi."'),
        (("max_concurrent_calls",), 12, "~ max_concurrent_calls: 10 -> 12"),
        (("human", "number"), None, '~ human.number: "+15550110" -> null'),
        (("services", 3, "price"), "free", '~ services["crown"].price: "from 1,100 dollars" -> "free"'),
        (("hours", "monday", 0, "opens"), "09:00:00", '~ hours.monday[0].opens: "08:00:00" -> "09:00:00"'),
        (("voice", "speed"), 1, "~ voice.speed: 1.0 -> 1"),
        (("providers", "use_platform"), 1, "~ providers.use_platform: true -> 1"),
    ],
)  # fmt: skip
def test_a_field_that_changed(path: tuple[str | int, ...], value: object, expected: str) -> None:
    assert lines(DENTIST, changed(*path, value=value)) == (expected,)


def test_an_entry_put_in_first_is_one_line_and_order_another() -> None:
    new: Any = copy.deepcopy(DENTIST)
    new["services"].insert(0, {"name": "x-ray", "description": "Quick.", "price": None, "keywords": []})
    (line,) = lines(DENTIST, new)
    assert line.startswith('+ services["x-ray"]: {"name": "x-ray"')
    turned: Any = copy.deepcopy(DENTIST)
    turned["services"].reverse()
    assert lines(DENTIST, turned) == ("~ services: (order) -> (another order)",)
    numbers = changed("numbers", value=["+15550102", "+15550100"])
    assert lines(DENTIST, numbers) == ('+ numbers["+15550102"]: "+15550102"',)
    assert lines(numbers, DENTIST) == ('- numbers["+15550102"]: "+15550102"',)


SECRET = "sk-" + "a1B2" * 8


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": SECRET},
        {"api_key_env": "SOME_NAME"},
        {"inner": {"password": "hunter2-hunter2"}},
        {"list": [{"token": {"deep": "hunter2-hunter2"}}]},
        {"instructions": f"Our key is {SECRET}, keep it."},
        {"base_url": "https://me:hunter2-hunter2@host/v1"},
        {"instructions": "password: hunter2-hunter2"},
        {"list": [SECRET, "b"]},
        {"list": [{"name": SECRET, "value": 1}]},
        {"secret": [1, 2]},
        {SECRET: 1},
    ],
)
def test_no_secret_is_shown(value: dict[str, object]) -> None:
    pairs: tuple[tuple[dict[str, object], dict[str, object]], ...] = (
        ({}, value),
        (value, {}),
        ({"a": {}}, {"a": value}),
        (value, dict.fromkeys(value, "x")),
    )
    for old, new in pairs:
        text = "\n".join(lines(old, new))
        assert text
        assert "hunter2" not in text
        assert SECRET not in text
        assert SECRET[:12] not in text
        assert "SOME_NAME" not in text
        assert HIDDEN in text
    assert lines({"a": {"api_key": "one-one-one"}}, {"a": {"api_key": "two-two-two"}}) == (
        f"~ a.api_key: {HIDDEN} -> {HIDDEN}",
    )


def test_keywords_are_no_keys() -> None:
    new = changed("services", 3, "keywords", value=["crown", "crowns"])
    assert lines(DENTIST, new) == ('- services["crown"].keywords["cap"]: "cap"',)


def test_what_is_long_or_moves_the_cursor_is_shown_short_and_plain() -> None:
    (line,) = lines({"a": "x" * 50_000}, {"a": "\x1b[2J\u202egnp.exe\r\n"})
    assert line.isprintable()
    assert "... (50002 characters)" in line
    assert len(line) < 300
    (line,) = lines({}, {"a\x1b[2J\n": 1})
    assert line.isprintable()


def test_many_differences_are_cut_off_and_said_so() -> None:
    found = differences({}, {str(number): number for number in range(MAX_CHANGES + 1)})
    assert found.cut_off
    assert len(found.changes) == MAX_CHANGES
    assert found.lines()[-1] == "only the first 500 differences are shown"
    assert not differences({}, {str(number): number for number in range(MAX_CHANGES)}).cut_off


def test_depth_is_bounded() -> None:
    deep: dict[str, object] = {}
    other: dict[str, object] = {"x": 1}
    for _ in range(200):
        deep, other = {"a": deep}, {"a": other}
    (change,) = differences(deep, other).changes
    assert change.field.count("a") <= 33


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "question", "b", "c"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "name", "numbers"]), VALUES, max_size=3)


@given(DOCUMENTS, DOCUMENTS)
def test_there_is_a_difference_exactly_where_documents_differ_and_it_can_be_turned_round(
    old: dict[str, object], new: dict[str, object]
) -> None:
    there, back = differences(old, new).changes, differences(new, old).changes
    assert (there == ()) == (json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True))
    turned = {ChangeKind.ADDED: ChangeKind.REMOVED, ChangeKind.REMOVED: ChangeKind.ADDED}
    order = "(another order)"
    assert sorted(
        (each.kind, each.field, str(each.old), str(each.new)) for each in there if each.new != order
    ) == sorted(
        (turned.get(each.kind, each.kind), each.field, str(each.new), str(each.old))
        for each in back
        if each.new != order
    )
    assert all(line.isprintable() for line in differences(old, new).lines())
