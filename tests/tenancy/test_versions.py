"""Drafts, activations and rollbacks: one version is active, and of two changes at once one wins."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tenancy.versions import (
    MAX_DRAFTS_A_DAY,
    MAX_OPEN_DRAFTS,
    MAX_VERSIONS,
    ONCE_ACTIVE,
    OPEN,
    Applied,
    ConfigVersion,
    Conflict,
    Declined,
    History,
    NoSuchVersion,
    NothingToChange,
    Origin,
    TooManyDrafts,
    TooManyVersions,
    VersionState,
    WrongState,
)

NOON: Final = datetime(2025, 3, 3, 12, tzinfo=UTC)
ADA: Final = Origin("ada", "new hours", NOON)
BO: Final = Origin("bo", "other hours", NOON + timedelta(minutes=1))


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def done(outcome: Applied | Declined) -> History:
    assert isinstance(outcome, Applied), outcome
    assert outcome.version in outcome.history.versions
    return outcome.history


def with_valid(history: History, content: str) -> History:
    history = done(history.draft(digest(content), 1, ADA))
    return done(history.validate(len(history.versions), ADA))


def test_a_life() -> None:
    history = with_valid(History(), "one")
    assert history.active is None
    history = done(history.activate(1, ADA, expected=None))
    history = done(with_valid(history, "two").activate(2, BO, expected=1))
    assert [each.state for each in history.versions] == [VersionState.SUPERSEDED, VersionState.ACTIVE]
    history = done(history.roll_back(1, ADA, expected=2))
    assert [each.state for each in history.versions] == [
        VersionState.SUPERSEDED, VersionState.ROLLED_BACK, VersionState.ACTIVE,
    ]  # fmt: skip
    assert history.active == ConfigVersion(3, digest("one"), 1, ADA, VersionState.ACTIVE, restores=1)
    again = done(history.roll_back(2, BO, expected=3))
    assert again.active is not None
    assert (again.active.version, again.active.content_hash) == (4, digest("two"))


def test_of_two_activations_at_once_one_wins() -> None:
    start = done(with_valid(History(), "one").activate(1, ADA, expected=None))
    start = with_valid(with_valid(start, "ada's"), "bo's")
    first = done(start.activate(2, ADA, expected=1))
    second = first.activate(3, BO, expected=1)
    assert second == Conflict(expected=1, found=2)
    assert "version 2 is active by now, not 1" in str(second)
    assert first.active is not None
    assert first.active.version == 2
    # The same version twice is a lost race too, and so is a rollback that was decided on older news.
    assert first.activate(2, BO, expected=1) == Conflict(1, 2)
    assert first.roll_back(1, BO, expected=1) == Conflict(1, 2)
    assert done(first.activate(3, BO, expected=2)).active == done(first.activate(3, BO, expected=2)).get(3)


def test_each_reason_to_decline() -> None:
    history = done(with_valid(History(), "one").activate(1, ADA, expected=None))
    draft = done(history.draft(digest("two"), 1, ADA))
    assert draft.activate(2, ADA, expected=1) == WrongState(2, VersionState.DRAFT, (VersionState.VALIDATED,))
    assert draft.activate(9, ADA, expected=1) == NoSuchVersion(9)
    assert draft.activate(0, ADA, expected=1) == NoSuchVersion(0)
    assert draft.activate(-1, ADA, expected=1) == NoSuchVersion(-1)
    assert draft.roll_back(2, ADA, expected=1) == WrongState(2, VersionState.DRAFT, ONCE_ACTIVE)
    assert draft.roll_back(1, ADA, expected=1) == NothingToChange(1)
    refused = done(draft.reject(2, BO))
    assert refused.validate(2, ADA) == WrongState(2, VersionState.REFUSED, (VersionState.DRAFT,))
    assert refused.activate(2, ADA, expected=1) == WrongState(
        2, VersionState.REFUSED, (VersionState.VALIDATED,)
    )
    assert history.reject(1, ADA) == WrongState(1, VersionState.ACTIVE, OPEN)
    same = with_valid(history, "one")
    assert same.activate(2, ADA, expected=1) == NothingToChange(1)
    for declined in (
        Conflict(1, None),
        NoSuchVersion(1),
        WrongState(1, VersionState.DRAFT, OPEN),
        NothingToChange(1),
        TooManyDrafts(),
        TooManyVersions(5),
        TooManyVersions(5, NOON),
    ):
        assert str(declined)
    assert len(get_args(Declined)) == 6


def test_drafts_are_bounded_and_rejecting_makes_room() -> None:
    history = History()
    for number in range(MAX_OPEN_DRAFTS):
        history = done(history.draft(digest(str(number)), 1, ADA))
    assert history.draft(digest("more"), 1, ADA) == TooManyDrafts()
    history = done(history.reject(7, ADA))
    assert done(history.draft(digest("more"), 1, ADA)).get(MAX_OPEN_DRAFTS + 1) is not None


def test_whoever_drafts_and_rejects_without_end_is_stopped_for_the_day() -> None:
    history = done(with_valid(History(), "one").activate(1, ADA, expected=None))
    for number in range(2, MAX_DRAFTS_A_DAY + 1):
        at = Origin("ada", "again", NOON + timedelta(seconds=number))
        history = done(done(history.draft(digest(str(number)), 1, at)).reject(number, at))
    evening = Origin("ada", "again", NOON + timedelta(hours=8))
    refused = history.draft(digest("more"), 1, evening)
    assert refused == TooManyVersions(MAX_DRAFTS_A_DAY, NOON + timedelta(days=1))
    assert (
        "200 versions were made within 24 hours, which is the most; the next one after 2025-03-04 12:00:00 UTC"
        in (str(refused))
    )
    # What the operator's file says is taken nevertheless, and so is a way back from it.
    published = done(history.publish(digest("file"), 1, evening))
    back = done(published.roll_back(1, evening, expected=MAX_DRAFTS_A_DAY + 1))
    # The oldest of the 200 latest is a second older than a day by then: one more may be, and no second.
    tomorrow = Origin("ada", "again", NOON + timedelta(days=1, seconds=2))
    more = done(back.draft(digest("more"), 1, tomorrow))
    assert isinstance(more.draft(digest("yet more"), 1, tomorrow), TooManyVersions)


def test_going_back_and_forth_without_end_is_stopped_for_the_day() -> None:
    history = done(with_valid(History(), "one").activate(1, ADA, expected=None))
    history = done(with_valid(history, "two").activate(2, ADA, expected=1))
    for number in range(2, MAX_DRAFTS_A_DAY + 2):
        history = done(history.roll_back(1 + number % 2, ADA, expected=number))
    now = history.active
    assert now is not None
    other = 1 if now.content_hash == digest("two") else 2
    assert history.roll_back(other, BO, expected=now.version) == TooManyVersions(
        MAX_DRAFTS_A_DAY, NOON + timedelta(days=1)
    )
    assert isinstance(history.draft(digest("three"), 1, BO), Applied)


def test_a_tenants_versions_are_bounded_in_all() -> None:
    first = done(with_valid(History(), "one").activate(1, ADA, expected=None)).versions
    old = tuple(
        ConfigVersion(number, digest("old"), 1, ADA, VersionState.REFUSED)
        for number in range(2, MAX_VERSIONS + 1)
    )
    history = History((*first, *old))
    later = Origin("ada", "again", NOON + timedelta(days=900))
    refused = history.draft(digest("more"), 1, later)
    assert refused == TooManyVersions(MAX_VERSIONS)
    published = done(history.publish(digest("file"), 1, later))
    assert isinstance(published.roll_back(1, later, expected=MAX_VERSIONS + 1), Applied)


@pytest.mark.parametrize(
    ("author", "reason", "at", "field"),
    [
        ("", "x", NOON, "author"),
        (" ", "x", NOON, "author"),
        ("a" * 201, "x", NOON, "author"),
        ("a", "", NOON, "reason"),
        ("a", "x" * 1_001, NOON, "reason"),
        ("a", "x", datetime(2025, 3, 3), "at"),  # noqa: DTZ001
        ("a", "x", datetime(2025, 3, 3, tzinfo=timezone(timedelta(hours=1))), "at"),
    ],
)
def test_nothing_is_changed_by_nobody_or_for_no_reason(
    author: str, reason: str, at: datetime, field: str
) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        Origin(author, reason, at)


def test_a_version_is_named_by_a_hash() -> None:
    with pytest.raises(ValueError, match="content_hash"):
        History().draft("abc", 1, ADA)


class Life(RuleBasedStateMachine):
    """Random operations by authors who may have seen an older history, against what the rules promise."""

    @initialize(contents=st.lists(st.sampled_from(["one", "two", "three"]), max_size=4))
    def begin(self, contents: list[str]) -> None:
        self.history = History()
        self.contents: list[str] = []
        self.seen: list[int | None] = [None]
        for content in contents:
            self.publish(content)

    def apply(self, outcome: Applied | Declined) -> bool:
        before = self.history
        if not isinstance(outcome, Applied):
            return False
        after = outcome.history
        # History only grows, and what a version is never changes.
        assert len(after.versions) - len(before.versions) in (0, 1)
        for old, new in zip(before.versions, after.versions, strict=False):
            assert (old.version, old.content_hash, old.created, old.restores) == (
                new.version, new.content_hash, new.created, new.restores,
            )  # fmt: skip
        self.history = after
        active = after.active
        self.seen.append(None if active is None else active.version)
        return True

    def expected_active(self, data: st.DataObject) -> int | None:
        return data.draw(st.sampled_from([self.seen[-1], *self.seen[-3:]]))

    def one_of(self, data: st.DataObject, states: tuple[VersionState, ...]) -> int:
        """Mostly a version to which the operation applies, else any number."""
        fitting = [each.version for each in self.history.versions if each.state in states]
        anyone = st.integers(0, len(self.history.versions) + 1)
        likely: bool = data.draw(st.booleans())
        return data.draw(st.sampled_from(fitting) if fitting and likely else anyone)

    @rule(content=st.sampled_from(["one", "two", "three", "four"]))
    def publish(self, content: str) -> None:
        self.draft(content)
        version = len(self.history.versions)
        self.apply(self.history.validate(version, ADA))
        self.apply(self.history.activate(version, ADA, expected=self.seen[-1]))

    @rule(content=st.sampled_from(["one", "two", "three"]))
    def draft(self, content: str) -> None:
        if self.apply(self.history.draft(digest(content), 1, ADA)):
            self.contents.append(content)

    @rule(data=st.data())
    def validate(self, data: st.DataObject) -> None:
        version = self.one_of(data, (VersionState.DRAFT,))
        found = self.history.get(version)
        done = self.apply(self.history.validate(version, ADA))
        assert done == (found is not None and found.state is VersionState.DRAFT)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        version = self.one_of(data, OPEN)
        found = self.history.get(version)
        done = self.apply(self.history.reject(version, ADA))
        assert done == (found is not None and found.state in OPEN)

    @rule(data=st.data())
    def activate(self, data: st.DataObject) -> None:
        version = self.one_of(data, (VersionState.VALIDATED,))
        before, expected = self.history.active, self.expected_active(data)
        target = self.history.get(version)
        if self.apply(self.history.activate(version, BO, expected=expected)):
            assert target is not None
            assert target.state is VersionState.VALIDATED
            assert expected == (None if before is None else before.version)
            assert self.history.active is not None
            assert self.history.active.version == version
            if before is not None:
                self.left(before.version, VersionState.SUPERSEDED)

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        version = self.one_of(data, ONCE_ACTIVE)
        before, expected = self.history.active, self.expected_active(data)
        if self.apply(self.history.roll_back(version, BO, expected=expected)):
            assert before is not None
            assert expected == before.version
            active = self.history.active
            assert active is not None
            self.contents.append(self.contents[version - 1])
            assert (active.version, active.restores) == (len(self.history.versions), version)
            assert active.content_hash == digest(self.contents[version - 1])
            self.left(before.version, VersionState.ROLLED_BACK)

    def left(self, version: int, state: VersionState) -> None:
        found = self.history.get(version)
        assert found is not None
        assert (found.state, found.changed) == (state, BO)

    @invariant()
    def numbers_are_places_and_one_is_active(self) -> None:
        versions = self.history.versions
        assert [each.version for each in versions] == list(range(1, len(versions) + 1))
        assert sum(each.state is VersionState.ACTIVE for each in versions) == (
            1 if any(each.state in ONCE_ACTIVE for each in versions) else 0
        )
        assert [each.content_hash for each in versions] == [digest(each) for each in self.contents]


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
