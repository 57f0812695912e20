"""The chain of hashes: whatever is done to a trail is found, and named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from admin.audit import EMPTY, TEXT_CHARACTERS_MAX, Head, Verifier, chained, normal, time_text
from admin.ports import Deed, Entry
from admin.tokens import ApiToken
from tests.admin.conftest import deed

TEXT = st.text(max_size=30)
DEEDS = st.builds(
    Deed,
    at=st.datetimes(
        min_value=datetime(2000, 1, 1),  # noqa: DTZ001
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    principal=TEXT,
    credential=TEXT,
    source=TEXT,
    action=TEXT,
    tenant_id=st.none() | TEXT,
    target=st.none() | TEXT,
    status=st.integers(100, 599),
    request_id=TEXT,
    detail=TEXT,
)


def trail(deeds: list[Deed]) -> tuple[list[Entry], Head]:
    entries, head = [], EMPTY
    for each in deeds:
        entry = chained(head, normal(each))
        entries.append(entry)
        head = Head(entry.sequence, entry.hash)
    return entries, head


def finding(entries: list[Entry], head: Head, anchor: Head = EMPTY) -> str | None:
    verifier = Verifier(anchor)
    for entry in entries:
        if (found := verifier.take(entry)) is not None:
            return found
    return verifier.end(head)


@given(st.lists(DEEDS, max_size=8))
def test_a_trail_is_sound(deeds: list[Deed]) -> None:
    entries, head = trail(deeds)
    assert finding(entries, head) is None
    for each in entries:
        assert finding(entries, head, Head(each.sequence, each.hash)) is None


def test_the_form_is_what_is_documented() -> None:
    (entry,), _ = trail([deed()])
    fields = {
        "action": "config.activate",
        "at": "2027-01-15T08:00:00.000000+00:00",
        "credential": "0123456789abc",
        "detail": "",
        "principal": "ada",
        "request_id": "r0",
        "sequence": 1,
        "source": "192.0.2.1",
        "status": 200,
        "target": "3",
        "tenant_id": "a",
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert entry.hash == hashlib.sha256(bytes(32) + text.encode()).digest()


@given(st.lists(DEEDS, min_size=1, max_size=6), st.data())
def test_a_change_of_any_field_is_found(deeds: list[Deed], data: st.DataObject) -> None:
    entries, head = trail(deeds)
    at = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from([each.name for each in dataclasses.fields(Deed)]))
    other = getattr(normal(data.draw(DEEDS)), field)
    assume(other != getattr(entries[at].deed, field))
    changed = dataclasses.replace(entries[at].deed, **{field: other})
    entries[at] = dataclasses.replace(entries[at], deed=changed)
    assert finding(entries, head) == f"entry {at + 1} is not what was entered"


@given(st.lists(DEEDS, min_size=1, max_size=6), st.data())
def test_a_changed_hash_is_found(deeds: list[Deed], data: st.DataObject) -> None:
    entries, head = trail(deeds)
    at = data.draw(st.integers(0, len(entries) - 1))
    bit = data.draw(st.integers(0, 255))
    number = int.from_bytes(entries[at].hash, "big") ^ 1 << bit
    entries[at] = dataclasses.replace(entries[at], hash=number.to_bytes(32, "big"))
    assert finding(entries, head) == f"entry {at + 1} is not what was entered"


@given(st.lists(DEEDS, min_size=1, max_size=6), st.data())
def test_an_entry_that_was_taken_out_is_found(deeds: list[Deed], data: st.DataObject) -> None:
    entries, head = trail(deeds)
    at = data.draw(st.integers(0, len(entries) - 1))
    del entries[at]
    # The last one, too: the head says that it was there.
    assert f"{at + 1}" in str(finding(entries, head))
    # And whoever closes the gap by counting anew is found by the hashes.
    counted = [dataclasses.replace(each, sequence=number) for number, each in enumerate(entries, 1)]
    assert finding(counted, dataclasses.replace(head, sequence=len(counted))) is not None


@given(st.lists(DEEDS, min_size=1, max_size=6), DEEDS, st.data())
def test_an_entry_that_was_put_in_is_found(deeds: list[Deed], new: Deed, data: st.DataObject) -> None:
    entries, head = trail(deeds)
    at = data.draw(st.integers(0, len(entries)))
    before = Head(at, entries[at - 1].hash) if at else EMPTY
    entries.insert(at, chained(before, normal(new)))
    assert finding(entries, head) is not None
    counted = [dataclasses.replace(each, sequence=number) for number, each in enumerate(entries, 1)]
    assert finding(counted, dataclasses.replace(head, sequence=len(counted))) is not None


@given(st.lists(DEEDS, min_size=2, max_size=6), st.data())
def test_entries_in_another_order_are_found(deeds: list[Deed], data: st.DataObject) -> None:
    entries, head = trail(deeds)
    order = data.draw(st.permutations(range(len(entries))))
    assume(order != sorted(order))
    assert finding([entries[each] for each in order], head) is not None
    moved = [dataclasses.replace(entries[each], sequence=number) for number, each in enumerate(order, 1)]
    assert finding(moved, head) is not None


@given(st.lists(DEEDS, min_size=1, max_size=6), DEEDS, st.data())
def test_what_is_computed_anew_is_found_by_a_head_that_was_kept(
    deeds: list[Deed], other: Deed, data: st.DataObject
) -> None:
    entries, head = trail(deeds)
    at = data.draw(st.integers(0, len(deeds) - 1))
    assume(normal(other) != entries[at].deed)
    forged, forged_head = trail([*deeds[:at], other, *deeds[at + 1 :]])
    assert finding(forged, forged_head) is None, "as the docstring says, the chain alone does not show it"
    assert finding(forged, forged_head, head) is not None
    shorter, shorter_head = trail(deeds[:at])
    assert finding(shorter, shorter_head, head) is not None


def test_heads_that_do_not_fit_are_named() -> None:
    entries, head = trail([deed(1), deed(2)])
    assert finding(entries, EMPTY) == "entry 1 comes after the head"
    assert finding(entries, Head(3, head.hash)) == "entries 3 to 3 are missing at the end"
    assert finding(entries, Head(2, bytes(32))) == "the entries do not lead to the head"
    assert finding([], head) == "entries 1 to 2 are missing at the end"


@given(DEEDS)
def test_what_is_kept_is_within_bounds_and_stays_the_same(given_deed: Deed) -> None:
    kept = normal(given_deed)
    assert normal(kept) == kept
    for field in dataclasses.fields(Deed):
        value = getattr(kept, field.name)
        if isinstance(value, str):
            assert len(value) <= TEXT_CHARACTERS_MAX
            assert "\0" not in value
            value.encode()


def test_odd_texts_are_made_writable() -> None:
    kept = normal(deed(target="a\ud800b\0c", detail="x" * 10_000, source=""))
    assert (kept.target, len(kept.detail)) == ("a?b?c", TEXT_CHARACTERS_MAX)


def test_times_are_kept_in_utc_and_need_a_zone() -> None:
    there = datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert time_text(normal(deed(at=there)).at) == "2026-12-31T23:00:00.000000+00:00"
    with pytest.raises(ValueError, match="zone"):
        normal(deed(at=datetime(2027, 1, 1)))  # noqa: DTZ001


def test_a_token_that_gets_into_a_deed_is_not_kept() -> None:
    token = ApiToken.from_random(bytes(range(32)))
    kept = normal(
        deed(target=token.reveal(), request_id=f"id {token.reveal()[:-3]}", detail="eyJhbGciOiJIUzI1.e30.x")
    )
    assert kept.target == f"mst_{token.public_id}_…"
    assert token.reveal()[20:30] not in str(kept)
    assert "HIUz" not in kept.detail
