"""Idempotency keys as a state machine: two nodes on one store, processes that die in between, time that passes.

What counts is how often a request is carried out: once, and only where whoever carried it out is gone may it be once more.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from admin import idempotency_keys
from admin.backings import FILE, SqliteFile
from admin.errors import KeyReused, StillRunning, Throttled
from admin.idempotency import (
    BODY_BYTES_MAX,
    FREED_AFTER_MS,
    KEPT_MS,
    KeyUse,
    decide,
    key_hash,
    owner_hash,
)
from admin.idempotency_keys import BELIEVED_MS, IdempotencyKeys
from admin.ports import KeptAnswer
from admin.principals import Principal, Role
from admin.sql_store import SqlStore
from tests.admin.conftest import Backing
from tests.admin.turned import Turned

T = TypeVar("T")
ADA = Principal("ada", Role.OPERATOR, None)
BO = Principal("bo", Role.TENANT, "acme")


@dataclass
class Use:
    """What the model knows of a key."""

    fingerprint: bytes
    node: int
    began_ms: int
    number: int
    answer: KeptAnswer | None = None
    node_lives: bool = True


class Requests(RuleBasedStateMachine):
    """Two nodes, two principals, two requests, one key: the fewer, the more often they meet."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / FILE
        self.stores = [self.wait(_open(path)) for _ in range(2)]
        self.nodes = [IdempotencyKeys(store, os.urandom) for store in self.stores]
        self.turned = Turned()
        self.numbers = itertools.count()
        self.uses: dict[tuple[Principal, str], Use] = {}
        self.carried_out: list[tuple[Principal, str, bytes, int]] = []

    def wait(self, work: Awaitable[T]) -> T:
        async def do() -> T:
            return await work

        return self.runner.run(do())

    def teardown(self) -> None:
        for store in self.stores:
            self.wait(store.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(
        node=st.integers(0, 1),
        who=st.sampled_from([ADA, ADA, BO]),
        fingerprint=st.sampled_from([b"f", b"f", b"g"]),
    )
    def begin(self, node: int, who: Principal, fingerprint: bytes) -> None:
        key = "k"
        expected = self.expected(node, who, key, fingerprint)
        try:
            found: object = self.wait(self.nodes[node].begin(who, key, fingerprint, self.turned.now))
        except (KeyReused, StillRunning) as error:
            found = type(error)
        assert found == expected
        if found is None:
            number = next(self.numbers)
            self.uses[who, key] = Use(fingerprint, node, self.turned.wall_ms, number)
            self.carried_out.append((who, key, fingerprint, self.turned.wall_ms))

    def expected(self, node: int, who: Principal, key: str, fingerprint: bytes) -> object:
        use = self.uses.get((who, key))
        if use is None:
            return None
        age_ms = self.turned.wall_ms - use.began_ms
        if use.answer is not None:
            gone = age_ms >= KEPT_MS
        else:
            believed = use.node_lives and use.node == node and age_ms < BELIEVED_MS
            gone = age_ms >= FREED_AFTER_MS and not believed
        if gone:
            return None
        if use.fingerprint != fingerprint:
            return KeyReused
        return StillRunning if use.answer is None else use.answer

    def running(self) -> list[tuple[Principal, str]]:
        return [
            each
            for each, use in self.uses.items()
            if use.answer is None and use.node_lives and self.turned.wall_ms - use.began_ms < BELIEVED_MS
        ]

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        who, key = data.draw(st.sampled_from(self.running()))
        use = self.uses[who, key]
        answer = KeptAnswer(201, (("location", f"/{use.number}"),), str(use.number).encode())
        self.wait(self.nodes[use.node].finish(who, key, answer, self.turned.now))
        use.answer = answer

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        who, key = data.draw(st.sampled_from(self.running()))
        use = self.uses.pop((who, key))
        self.wait(self.nodes[use.node].abandon(who, key))
        # Nothing was done.
        self.carried_out = [each for each in self.carried_out if each[:2] != (who, key)]

    @rule(node=st.integers(0, 1))
    def die(self, node: int) -> None:
        """The process dies between beginning and end; another one takes its place."""
        self.nodes[node] = IdempotencyKeys(self.stores[node], os.urandom)
        for use in self.uses.values():
            if use.node == node:
                use.node_lives = False

    @rule(
        by_ms=st.sampled_from(
            [1, 1_000, FREED_AFTER_MS - 1, FREED_AFTER_MS, BELIEVED_MS, KEPT_MS - 1, KEPT_MS]
        )
    )
    def pass_time(self, by_ms: int) -> None:
        self.turned.turn(by_ms)

    @invariant()
    def once_within_what_is_promised(self) -> None:
        """Never twice within a minute, and never with two requests for one key in that time."""
        by_key: dict[tuple[Principal, str], list[int]] = {}
        for who, key, _, at_ms in self.carried_out:
            by_key.setdefault((who, key), []).append(at_ms)
        for times in by_key.values():
            assert all(later - earlier >= FREED_AFTER_MS for earlier, later in itertools.pairwise(times))


async def _open(path: Path) -> SqlStore:
    return SqlStore(await SqliteFile.open(path))


def test_each_request_is_carried_out_once() -> None:
    run_state_machine_as_test(Requests, settings=settings(max_examples=40, stateful_step_count=25))


@given(
    st.none()
    | st.builds(
        KeyUse,
        fingerprint=st.sampled_from([b"f", b"g"]),
        claim=st.just(b"c"),
        began_ms=st.integers(0, 2 * KEPT_MS),
        answer=st.none() | st.just(KeptAnswer(200, (), b"")),
    ),
    st.integers(0, 4 * KEPT_MS),
    st.booleans(),
)
def test_an_answer_is_only_given_to_its_own_request(
    found: KeyUse | None, now_ms: int, runs_here: bool
) -> None:
    try:
        answer = decide(found, b"f", now_ms, runs_here=runs_here)
    except KeyReused:
        assert found is not None
        assert found.fingerprint == b"g"
    except StillRunning:
        assert found is not None
        assert (found.fingerprint, found.answer) == (b"f", None)
        assert runs_here or now_ms - found.began_ms < FREED_AFTER_MS
    else:
        if answer is not None:
            assert found is not None
            assert (found.fingerprint, found.answer) == (b"f", answer)
            assert now_ms - found.began_ms < KEPT_MS
        elif found is not None:
            # Carried out (once more): only what is forgotten, or was given up by somebody who is gone.
            forgotten = found.answer is not None and now_ms - found.began_ms >= KEPT_MS
            gone = found.answer is None and now_ms - found.began_ms >= FREED_AFTER_MS and not runs_here
            assert forgotten or gone


PRINCIPALS = st.builds(
    Principal,
    subject=st.text(min_size=1, max_size=6),
    role=st.just(Role.OPERATOR),
    tenant_id=st.none(),
    issuer=st.text(max_size=6),
)


@given(PRINCIPALS, st.text(max_size=6), PRINCIPALS, st.text(max_size=6))
def test_a_key_is_its_principal_s_own(one: Principal, key: str, other: Principal, other_key: str) -> None:
    same = (one.issuer, one.subject) == (other.issuer, other.subject)
    assert (owner_hash(one) == owner_hash(other)) == same
    assert (key_hash(one, key) == key_hash(other, other_key)) == (same and key == other_key)
    assert key_hash(one, key) != owner_hash(other)


async def test_repetitions_at_once_on_two_nodes_get_one_answer(backing: Backing, turned: Turned) -> None:
    stores = [await backing.open() for _ in range(2)]
    nodes = [IdempotencyKeys(store, os.urandom) for store in stores]
    done = 0

    async def request(node: IdempotencyKeys) -> KeptAnswer | type[Exception]:
        nonlocal done
        try:
            kept = await node.begin(ADA, "k", b"f", turned.now)
        except StillRunning:
            return StillRunning
        if kept is None:
            done += 1
            kept = KeptAnswer(200, (), b"done")
            await node.finish(ADA, "k", kept, turned.now)
        return kept

    try:
        first = await asyncio.gather(*(request(nodes[n % 2]) for n in range(12)))
        second = await asyncio.gather(*(request(nodes[n % 2]) for n in range(4)))
        assert done == 1
        assert set(first) <= {StillRunning, KeptAnswer(200, (), b"done")}
        assert set(second) == {KeptAnswer(200, (), b"done")}
    finally:
        for store in stores:
            await store.close()


async def test_bounds(file_store: SqlStore, turned: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_keys, "RUNNING_MAX", 3)
    keys = IdempotencyKeys(file_store, os.urandom)
    for number in range(3):
        assert await keys.begin(ADA, f"k{number}", b"f", turned.now) is None
    with pytest.raises(Throttled, match="under way"):
        await keys.begin(ADA, "k4", b"f", turned.now)
    with pytest.raises(ValueError, match="not kept"):
        await keys.finish(ADA, "k0", KeptAnswer(200, (), bytes(BODY_BYTES_MAX + 1)), turned.now)
    largest = KeptAnswer(200, (), bytes(BODY_BYTES_MAX))
    await keys.finish(ADA, "k0", largest, turned.now)
    assert await keys.begin(ADA, "k0", b"f", turned.now) == largest
    assert await keys.begin(ADA, "k4", b"f", turned.now) is None
    # Those that never end are not counted for ever.
    turned.turn(BELIEVED_MS)
    assert await keys.begin(ADA, "k5", b"f", turned.now) is None


async def test_who_comes_late_changes_nothing(backing: Backing, turned: Turned) -> None:
    stores = [await backing.open() for _ in range(2)]
    slow, quick = (IdempotencyKeys(store, os.urandom) for store in stores)
    try:
        assert await slow.begin(ADA, "k", b"f", turned.now) is None
        turned.turn(FREED_AFTER_MS)
        assert await quick.begin(ADA, "k", b"f", turned.now) is None
        await slow.finish(ADA, "k", KeptAnswer(200, (), b"slow"), turned.now)
        assert slow.late == 1
        await slow.abandon(ADA, "k")
        with pytest.raises(StillRunning):
            await slow.begin(ADA, "k", b"f", turned.now)
        await quick.finish(ADA, "k", KeptAnswer(200, (), b"quick"), turned.now)
        assert await slow.begin(ADA, "k", b"f", turned.now) == KeptAnswer(200, (), b"quick")
    finally:
        for store in stores:
            await store.close()
