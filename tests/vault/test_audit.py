"""The chain of hashes: whatever is done to it, the first bad entry is named."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vault.conftest import ADA, NOON, Clock, local, put, vault_over
from tests.vault.test_store import tamper
from vault import AuditBroken, SqliteStore, Vault, facade
from vault.audit import Action, Appended, Chain, Deed, Entry, Finding, Head, Verifier
from vault.records import SecretStore
from vault.sealing import KeyMaterial

CHAIN = Chain(KeyMaterial(bytes(range(32))))
OTHER = Chain(KeyMaterial(bytes(32)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
DEEDS = st.lists(
    st.builds(
        Deed, TEXTS, TEXTS, st.sampled_from(Action), TEXTS, TEXTS | st.none(), st.integers(1, 9) | st.none()
    ),
    min_size=1,
    max_size=8,
)


def trail(deeds: list[Deed], chain: Chain = CHAIN) -> Appended:
    """Appended one by one, as a vault does."""
    entries: tuple[Entry, ...] = ()
    head: Head | None = None
    for deed in deeds:
        appended = chain.append(head, [deed])
        entries, head = (*entries, *appended.entries), appended.head
    assert head is not None
    return Appended(entries, head)


def verify(entries: tuple[Entry, ...], head: Head | None, anchor: Head | None = None) -> Finding | None:
    verifier = Verifier(CHAIN, anchor)
    for entry in entries:
        finding = verifier.take(entry)
        if finding is not None:
            return finding
    return verifier.end(head)


def anew(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """What somebody without the key can do: number and hash everything again."""
    previous, made = bytes(32), []
    for sequence, entry in enumerate(entries, 1):
        numbered = replace(entry, sequence=sequence)
        previous = numbered.expected_hash(previous)
        made.append(replace(numbered, hash=previous))
    return tuple(made)


@given(DEEDS)
def test_what_was_appended_verifies_and_at_once_is_as_one_by_one(deeds: list[Deed]) -> None:
    made = trail(deeds)
    assert verify(made.entries, made.head) is None
    assert CHAIN.append(None, deeds) == made
    for until in range(1, len(deeds)):
        assert verify(made.entries, made.head, CHAIN.append(None, deeds[:until]).head) is None


def test_the_hash_is_what_the_documentation_says() -> None:
    (entry,) = CHAIN.append(None, [Deed("t", "ä", Action.PUT, "a", None, 2)]).entries
    text = '{"action":"put","actor":"ä","at":"t","kek_id":null,"name":null,"sequence":1,"tenant_id":"a","version":2}'
    assert entry.hash == hashlib.sha256(bytes(32) + text.encode()).digest()


@given(DEEDS, st.data())
def test_a_changed_entry_is_named(deeds: list[Deed], data: st.DataObject) -> None:
    made = trail(deeds)
    at = data.draw(st.integers(0, len(deeds) - 1))
    field = data.draw(
        st.sampled_from(["at", "actor", "action", "tenant_id", "name", "version", "kek_id", "hash"])
    )
    forged: dict[str, Any] = {"version": 99, "hash": bytes(32)}
    changed = replace(made.entries[at], **{field: forged.get(field, "forged, longer than any above")})
    finding = verify((*made.entries[:at], changed, *made.entries[at + 1 :]), made.head)
    assert finding is not None
    assert finding.sequence == at + 1


@given(DEEDS, st.data())
def test_a_missing_entry_is_named(deeds: list[Deed], data: st.DataObject) -> None:
    made = trail(deeds)
    at = data.draw(st.integers(0, len(deeds) - 1))
    finding = verify((*made.entries[:at], *made.entries[at + 1 :]), made.head)
    assert finding is not None
    assert finding.sequence == at + 1
    assert "missing" in finding.reason


@given(DEEDS, st.data())
def test_entries_that_change_places_or_come_twice_are_named(deeds: list[Deed], data: st.DataObject) -> None:
    made = trail(deeds)
    at = data.draw(st.integers(0, len(deeds) - 1))
    twice = (*made.entries[: at + 1], *made.entries[at:])
    finding = verify(twice, made.head)
    assert finding is not None
    assert finding.sequence == at + 2
    if at:
        moved = (*made.entries[: at - 1], made.entries[at], made.entries[at - 1], *made.entries[at + 1 :])
        finding = verify(moved, made.head)
        assert finding is not None
        assert finding.sequence == at


@given(DEEDS, st.data())
def test_a_trail_that_is_computed_anew_does_not_lead_to_the_head(
    deeds: list[Deed], data: st.DataObject
) -> None:
    made = trail(deeds)
    at = data.draw(st.integers(0, len(deeds) - 1))
    forged = replace(made.entries[at], actor="somebody else, with a long name")
    assert verify(anew((*made.entries[:at], forged, *made.entries[at + 1 :])), made.head) is not None
    shorter = anew((*made.entries[:at], *made.entries[at + 1 :]))
    assert verify(shorter, made.head) is not None
    # A head of their own does not help: they have no key.
    if shorter:
        head = OTHER.append(None, deeds[: len(shorter)]).head
        for mac in (head.mac, made.head.mac, b"", bytes(32)):
            finding = verify(shorter, Head(len(shorter), shorter[-1].hash, mac))
            assert finding is not None
            assert "not made by this vault" in finding.reason


@given(DEEDS)
def test_a_head_that_is_missing_or_of_elsewhere_is_named(deeds: list[Deed]) -> None:
    made = trail(deeds)
    missing = verify(made.entries, None)
    assert missing is not None
    assert missing.reason == "the head is missing"
    assert verify((), None) is None
    with pytest.raises(AuditBroken, match="was not made by this vault"):
        OTHER.append(made.head, deeds)
    longer = CHAIN.append(made.head, deeds)
    finding = verify(made.entries + longer.entries, made.head)
    assert finding is not None
    assert finding.sequence == len(deeds) + 1


@given(DEEDS, DEEDS)
def test_a_head_that_was_kept_elsewhere_finds_what_was_put_back(
    before: list[Deed], after: list[Deed]
) -> None:
    old = trail(before)
    new = CHAIN.append(old.head, after)
    assert verify(old.entries, old.head) is None, "without it, an earlier state as a whole is a good one"
    finding = verify(old.entries, old.head, new.head)
    assert finding is not None
    assert finding.sequence == len(before) + 1
    other = trail([replace(deed, actor="other, and longer than any") for deed in (*before, *after)])
    finding = verify(other.entries, other.head, old.head)
    assert finding is not None
    assert finding.sequence == len(before)


# -- through a vault -----------------------------------------------------------------------------------


async def test_what_was_done_stands_in_the_trail(store: SecretStore) -> None:
    vault = vault_over(store)
    assert await vault.verify_audit() is None
    await put(vault, "a", "openai", "one")
    await put(vault, "a", "openai", "two")
    await vault.revoke("a", "openai", actor="bo", at=NOON)
    await vault.revoke("a", "openai", actor="bo", at=NOON)
    await vault.rotate_data_key("a", actor="cy", at=NOON)
    entries = await vault.audit()
    assert [(e.actor, e.action, e.tenant_id, e.name, e.version) for e in entries] == [
        (ADA, "data-key-added", "_vault", None, 1),
        (ADA, "data-key-added", "a", None, 1),
        (ADA, "put", "a", "openai", 1),
        (ADA, "put", "a", "openai", 2),
        ("bo", "revoke", "a", "openai", 2),
        ("cy", "data-key-added", "a", None, 2),
        ("cy", "data-key-retired", "a", None, 1),
    ]
    assert {e.at for e in entries} == {"2025-03-03T12:00:00.000000+00:00"}
    assert await vault.verify_audit() is None
    assert [e.sequence for e in await vault.audit(after=5, limit=1)] == [6]
    moved = vault_over(store, local("k2", "k1"), clock=Clock())
    await moved.rotate_kek(actor="cy", at=NOON)
    assert await moved.verify_audit() is None, "the trail outlives the key-encryption key"


async def test_a_trail_of_many_pages_is_verified_while_it_grows(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "PAGE_MAX", 3)
    vault = vault_over(store)
    await put(vault, "a", "k", "x")

    async def grows() -> None:
        for number in range(20):
            await put(vault_over(store, seed=50), "a", f"n{number}", "x")

    growing = asyncio.create_task(grows())
    verified = 0
    while not growing.done():
        assert await vault.verify_audit() is None
        verified += 1
        await asyncio.sleep(0)
    await growing
    assert verified >= 1
    assert await vault.verify_audit() is None
    head = await vault.audit_head()
    assert head is not None
    assert head.sequence == 23


async def opened(path: Path) -> tuple[SqliteStore, Vault]:
    store = await SqliteStore.open(path)
    vault = vault_over(store)
    for number in range(3):
        await put(vault, "a", f"n{number}", "x")
    return store, vault


@pytest.mark.parametrize(
    ("statements", "sequence", "reason"),
    [
        (["UPDATE audit SET actor = 'eve' WHERE sequence = 2"], 2, "not what was entered"),
        (["UPDATE audit SET name = 'n9' WHERE sequence = 4"], 4, "not what was entered"),
        (["DELETE FROM audit WHERE sequence = 3"], 3, "missing"),
        (["DELETE FROM audit WHERE sequence = 5"], 5, "missing at the end"),
        (["DELETE FROM audit WHERE sequence >= 2"], 2, "missing at the end"),
        (["DELETE FROM audit"], 1, "missing at the end"),
        (["DELETE FROM audit_head"], 1, "the head is missing"),
        (["DELETE FROM audit WHERE sequence = 5", "UPDATE audit_head SET sequence = 4"], 4, "not made by this vault"),
        (["INSERT INTO audit SELECT 6, at, actor, action, tenant_id, name, version, kek_id, hash FROM audit "
          "WHERE sequence = 5"], 6, "comes after the head"),
        (["DELETE FROM data_keys WHERE tenant_id = '_vault'"], 1, "root key is missing"),
    ],
)  # fmt: skip
async def test_the_first_bad_entry_of_a_file_is_named(
    tmp_path: Path, statements: list[str], sequence: int, reason: str
) -> None:
    path = tmp_path / "vault.db"
    store, vault = await opened(path)
    assert await vault.verify_audit() is None
    tamper(path, *statements)
    finding = await vault.verify_audit()
    assert finding is not None
    assert finding.sequence == sequence
    assert reason in finding.reason
    await store.aclose()


async def test_a_file_that_is_put_back_is_found_with_a_head_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    store, vault = await opened(path)
    await store.aclose()
    backup = path.read_bytes()
    store = await SqliteStore.open(path)
    vault = vault_over(store)
    await put(vault, "a", "n0", "y")
    anchor = await vault.audit_head()
    assert await vault.verify_audit(anchor) is None
    await store.aclose()
    path.write_bytes(backup)
    store = await SqliteStore.open(path)
    vault = vault_over(store)
    assert await vault.verify_audit() is None
    finding = await vault.verify_audit(anchor)
    assert finding is not None
    assert finding.sequence == 6
    await store.aclose()
    empty = await SqliteStore.open(tmp_path / "new.db")
    finding = await vault_over(empty).verify_audit(anchor)
    assert finding is not None
    await empty.aclose()
