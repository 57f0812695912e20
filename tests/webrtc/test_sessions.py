"""Session tokens and the limit on asking for them, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.webrtc.sessions import (
    BURST,
    CANDIDATE_RATE,
    LIFE_MS,
    MAX_OFFERS,
    NETWORK_RATE,
    OFFERS_MS,
    REFILL_MS,
    Session,
    SessionBook,
    SessionBookFull,
    SessionState,
    SourceLimit,
    network_of,
    source_of,
)
from tenancy import CalledNumber, Trunks

CALLED = CalledNumber(Trunks().web, "+15550100")


def _issue(book: SessionBook, token: str = "token", now_ms: int = 0, host: str = "192.0.2.1") -> Session:
    return book.issue(token, CALLED, "bakery", host, now_ms)


def test_a_token_buys_one_call_and_ends_with_it() -> None:
    book = SessionBook()
    session = _issue(book)
    assert book.find("token", 1) is session
    assert book.claim(session)
    assert not book.claim(session)
    book.begin(session, "pc")
    book.unclaim(session)
    with pytest.raises(ValueError, match="in call"):
        book.begin(session, "another")
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


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 30_000)), max_size=60))
def test_candidates_come_no_faster_than_their_rate(requests: list[tuple[int, int]]) -> None:
    session = _issue(SessionBook())
    now_ms, taken = 0, 0
    for count, pause_ms in requests:
        now_ms += pause_ms
        wait_ms = session.candidates_wait_ms(count, now_ms)
        if wait_ms:
            now_ms += wait_ms
            assert session.candidates_wait_ms(count, now_ms) == 0, "the wait that was named is enough"
        taken += max(count, 1)
        assert taken <= CANDIDATE_RATE.burst + now_ms / CANDIDATE_RATE.refill_ms


def test_a_token_that_nobody_used_expires() -> None:
    book = SessionBook()
    _issue(book)
    assert book.find("token", LIFE_MS - 1) is not None
    assert book.find("token", LIFE_MS) is None
    assert len(book) == 0


def test_further_offers_of_a_call_are_answered_one_at_a_time() -> None:
    book = SessionBook()
    session = _issue(book)
    book.claim(session)
    book.begin(session, "pc")
    assert book.claim(session)
    assert not book.claim(session)
    book.unclaim(session)
    assert session.state is SessionState.IN_CALL
    assert book.claim(session)
    book.close(session)  # the call ends meanwhile
    book.unclaim(session)
    assert book.find("token", 1) is None


def test_a_session_makes_so_many_offers_a_minute() -> None:
    session = _issue(SessionBook())
    assert [session.offer_wait_ms(1_000 * second) for second in range(MAX_OFFERS)] == [0] * MAX_OFFERS
    assert session.offer_wait_ms(20_000) == OFFERS_MS - 20_000
    assert session.offer_wait_ms(OFFERS_MS - 1) == 1
    assert session.offer_wait_ms(OFFERS_MS) == 0
    assert session.offer_wait_ms(OFFERS_MS) == 1_000


def test_in_a_full_book_the_oldest_unused_session_of_the_busiest_network_gives_way() -> None:
    book = SessionBook(max_sessions=4)
    shop = _issue(book, "shop", 0, "203.0.113.1")
    flood = [_issue(book, f"flood-{n}", 1 + n, f"2001:db8:1:{n:x}::1") for n in range(3)]
    assert book.claim(flood[0])  # one of them is answering an offer: it stays
    late = _issue(book, "late", 9, "198.51.100.1")
    assert [session.state for session in flood] == [
        SessionState.CLAIMED,
        SessionState.OVER,
        SessionState.FRESH,
    ]
    assert book.find("flood-1", 10) is None
    assert book.find("shop", 10) is shop
    assert book.find("late", 10) is late
    assert len(book) == 4


def test_a_book_full_of_calls_refuses() -> None:
    book = SessionBook(max_sessions=2)
    for token in ("a", "b"):
        book.claim(_issue(book, token))
    with pytest.raises(SessionBookFull):
        _issue(book, "c")


def test_one_network_cannot_fill_the_book() -> None:
    limit, book = SourceLimit(), SessionBook()
    for number in range(20_000):
        now_ms = number * LIFE_MS // 20_000
        host = f"2001:db8:1:{number:x}::1"
        if not limit.wait_ms(host, now_ms):
            _issue(book, str(number), now_ms, host)
    assert len(book) == NETWORK_RATE.burst + LIFE_MS // NETWORK_RATE.refill_ms - 1
    assert len(book) < book.max_sessions / 10
    assert limit.wait_ms("2001:db8:2::1", LIFE_MS) == 0


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
                assert all(each.state is not SessionState.FRESH for each in book._sessions.values())
            continue
        if which >= len(sessions):
            continue
        session = sessions[which]
        if kind == "claim":
            was = session.state
            assert book.claim(session) == (was in (SessionState.FRESH, SessionState.IN_CALL))
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
        unused = [token for network in book._unused.values() for token in network]
        fresh = [token for token, each in book._sessions.items() if each.state is SessionState.FRESH]
        assert sorted(unused) == sorted(fresh)


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
    assert len(limit._sources) <= 5
    assert len(limit._networks) <= 5


def test_an_ipv6_customer_is_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert source_of("2001:db8:1:3::1") != source_of("2001:db8:1:2::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1") == "192.0.2.1/32"
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.9") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:3::1") == "2001:db8:1::/48"
    assert source_of("testclient") == "testclient"
