"""Session tokens and the limit on asking for them, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.webrtc.sessions import (
    BURST,
    LIFE_MS,
    REFILL_MS,
    Session,
    SessionBook,
    SessionBookFull,
    SessionState,
    SourceLimit,
    source_of,
)


def _issue(book: SessionBook, token: str = "token", now_ms: int = 0) -> Session:
    return book.issue(token, "+15550100", "bakery", now_ms)


def test_a_token_buys_one_call_and_ends_with_it() -> None:
    book = SessionBook()
    session = _issue(book)
    assert book.find("token", 1) is session
    assert book.claim(session)
    assert not book.claim(session)
    book.begin(session, "pc")
    book.unclaim(session)
    assert not book.claim(session)
    assert book.find("token", 100 * LIFE_MS) is session  # the call may last
    book.close(session)
    book.close(session)
    assert book.find("token", 2) is None
    assert len(book) == 0


def test_a_refused_offer_leaves_the_token_good() -> None:
    book = SessionBook()
    session = _issue(book)
    assert book.claim(session)
    book.unclaim(session)
    assert book.claim(session)


def test_a_token_that_nobody_used_expires() -> None:
    book = SessionBook()
    _issue(book)
    assert book.find("token", LIFE_MS - 1) is not None
    assert book.find("token", LIFE_MS) is None
    assert len(book) == 0


def test_a_full_book_refuses_until_a_session_expires() -> None:
    book = SessionBook(max_sessions=2)
    _issue(book, "a", 0)
    _issue(book, "b", 1)
    with pytest.raises(SessionBookFull):
        _issue(book, "c", LIFE_MS - 1)
    _issue(book, "c", LIFE_MS)
    assert book.find("b", LIFE_MS) is not None


def test_a_token_is_in_no_log() -> None:
    assert "secret" not in repr(_issue(SessionBook(), "secret"))


def test_only_a_claimed_session_begins_a_call() -> None:
    book = SessionBook()
    with pytest.raises(ValueError, match="fresh"):
        book.begin(_issue(book), "pc")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["issue", "claim", "unclaim", "begin", "close", "find"]),
        st.integers(0, 9),
        st.integers(0, LIFE_MS),
    ),
    max_size=100,
)


@given(STEPS)
def test_whatever_happens_no_token_gets_two_calls_and_the_book_stays_bounded(
    steps: list[tuple[str, int, int]],
) -> None:
    book = SessionBook(max_sessions=4)
    sessions: list[Session] = []
    calls: list[int] = []
    now_ms = 0
    for kind, which, pause_ms in steps:
        now_ms += pause_ms
        if kind == "issue":
            try:
                sessions.append(_issue(book, f"token-{len(sessions)}", now_ms))
                calls.append(0)
            except SessionBookFull:
                assert len(book) == 4
            continue
        if which >= len(sessions):
            continue
        session = sessions[which]
        if kind == "claim":
            was = session.state
            assert book.claim(session) == (was is SessionState.FRESH)
        elif kind == "unclaim":
            book.unclaim(session)
        elif kind == "begin" and session.state is SessionState.CLAIMED:
            book.begin(session, "pc")
            calls[which] += 1
        elif kind == "close":
            book.close(session)
        elif kind == "find":
            found = book.find(session.token, now_ms)
            expired = session.state is SessionState.OVER
            assert found is (None if expired else session)
        assert len(book) <= 4
        assert max(calls) <= 1


def test_a_source_may_ask_often_at_once_and_then_now_and_again() -> None:
    limit = SourceLimit()
    assert [limit.wait_ms("192.0.2.1", 0) for _ in range(BURST)] == [0] * BURST
    assert limit.wait_ms("192.0.2.1", 0) == REFILL_MS
    assert limit.wait_ms("192.0.2.1", REFILL_MS - 1) == 1
    assert limit.wait_ms("192.0.2.2", 0) == 0
    assert limit.wait_ms("192.0.2.1", REFILL_MS) == 0
    assert limit.wait_ms("192.0.2.1", REFILL_MS) == REFILL_MS


@given(st.lists(st.integers(0, 2 * REFILL_MS), min_size=1, max_size=300))
def test_no_source_gets_more_than_burst_and_rate_and_waiting_as_told_is_enough(pauses: list[int]) -> None:
    limit = SourceLimit()
    now_ms = 0
    for granted, pause_ms in enumerate(pauses, 1):
        now_ms += pause_ms
        wait_ms = limit.wait_ms("source", now_ms)
        if wait_ms:
            now_ms += wait_ms
            assert limit.wait_ms("source", now_ms) == 0
        assert granted <= BURST + now_ms / REFILL_MS


@given(st.lists(st.ip_addresses(), max_size=50))
def test_the_table_of_sources_is_bounded(addresses: list[object]) -> None:
    limit = SourceLimit(max_sources=5)
    for address in addresses:
        limit.wait_ms(str(address), 0)
    assert len(limit._empty_ms) <= 5


def test_an_ipv6_customer_is_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert source_of("2001:db8:1:3::1") != source_of("2001:db8:1:2::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1") == "192.0.2.1"
    assert source_of("testclient") == "testclient"
