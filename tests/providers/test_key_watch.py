"""What a refusal says besides its status, and what a process makes of it: in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.errors import FailureCause
from mediaserver.providers.asking import Chain, Failed, Link, Piece, ProviderCare
from mediaserver.providers.breaker import BreakerKey, Stage
from mediaserver.providers.failures import (
    RETRY_AFTER_MAX_S,
    AnswerRefused,
    RefusalCode,
    failure_of,
    key_outcome,
    refusal_code,
    retry_after_s,
)
from mediaserver.providers.hedge import Terms
from mediaserver.providers.key_watch import REPORTS_BURST, REPORTS_PER_S, KeyReport, KeyWatch
from mediaserver.workers.key_told import TOOK_MS_MAX, report_of, told
from mediaserver.workers.messages import KeyTold, WireError, decode, encode
from vault import KeyRef, Outcome
from vault.resolver import QUOTA_CODES

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = KeyRef("a", "own", 3)
SECRET = "sk-echoed-by-the-provider"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 1.5 ", 1.5),
        ("9999999999", RETRY_AFTER_MAX_S),
        ("Mon, 04 May 2026 12:00:30 GMT", 30.0),
        ("Mon, 04 May 2026 11:00:00 GMT", 0.0),
        ("Tue, 04 May 2027 12:00:00 GMT", RETRY_AFTER_MAX_S),
        ("Mon, 04 May 2026 12:00:30 -0000", 30.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("1e9", None),
        (SECRET, None),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_bounded(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOON) == seconds


@given(st.text())
def test_any_retry_after_is_a_bounded_time_or_none(header: str) -> None:
    seconds = retry_after_s(header, NOON)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_S


def test_the_codes_are_those_that_the_resolver_knows() -> None:
    assert {str(code) for code in RefusalCode} == QUOTA_CODES


@given(st.binary() | st.recursive(st.none() | st.text() | st.booleans(), st.lists).map(orjson.dumps))
def test_no_body_has_more_than_a_code_of_the_list(body: bytes) -> None:
    assert refusal_code(body) is None


@pytest.mark.parametrize("field", ["code", "type"])
def test_a_code_is_found_and_nothing_else_of_the_body(field: str) -> None:
    body = orjson.dumps({"error": {"message": SECRET, field: "insufficient_quota"}})
    assert refusal_code(body) is RefusalCode.INSUFFICIENT_QUOTA
    assert refusal_code(orjson.dumps({"error": {"code": SECRET}})) is None
    assert refusal_code(orjson.dumps({"error": SECRET})) is None


@pytest.mark.parametrize(
    ("status", "code", "cause", "outcome"),
    [
        (401, None, FailureCause.DENIED, Outcome.DENIED),
        (403, None, FailureCause.DENIED, Outcome.DENIED),
        (402, None, FailureCause.OUT_OF_QUOTA, Outcome.OUT_OF_QUOTA),
        (429, RefusalCode.INSUFFICIENT_QUOTA, FailureCause.OUT_OF_QUOTA, Outcome.OUT_OF_QUOTA),
        (429, None, FailureCause.RATE_LIMITED, Outcome.RATE_LIMITED),
        (400, None, FailureCause.REJECTED, None),
        (404, RefusalCode.QUOTA_EXCEEDED, FailureCause.REJECTED, None),
        (503, None, FailureCause.SERVER_ERROR, None),
    ],
)
def test_what_a_status_and_a_code_say_of_the_key(
    status: int, code: RefusalCode | None, cause: FailureCause, outcome: Outcome | None
) -> None:
    failure = failure_of("p", AnswerRefused(status, code, 7.5))
    assert (failure.cause, failure.retry_after_s) == (cause, 7.5)
    assert key_outcome(failure.cause) is outcome


# -- the watch -------------------------------------------------------------------------------------------


def report(
    outcome: Outcome, took_ms: int = 5, retry_after_ms: int | None = None, key: KeyRef = KEY
) -> KeyReport:
    return KeyReport(Stage.LLM, key, outcome, took_ms, retry_after_ms)


def test_a_refused_key_is_held_off_in_the_whole_process_and_told_by_its_call() -> None:
    process = KeyWatch()
    of_a: list[KeyReport] = []
    of_b: list[KeyReport] = []
    a, b = process.for_call(of_a.append), process.for_call(of_b.append)
    a.report(report(Outcome.RATE_LIMITED, retry_after_ms=4_000), 1_000)
    assert b.held_off(Stage.LLM, KEY, 4_999)
    assert not b.held_off(Stage.LLM, KEY, 5_000)
    assert not b.held_off(Stage.TTS, KEY, 1_001)
    assert not b.held_off(Stage.LLM, KeyRef("a", "own", 4), 1_001), "a version that is put anew"
    assert not b.held_off(Stage.LLM, None, 1_001)
    assert (len(of_a), of_b) == (1, [])


@given(st.lists(st.integers(0, 40), max_size=1_500))
def test_reports_are_bounded_and_what_is_over_is_counted(pauses_ms: list[int]) -> None:
    given, dropped = list[KeyReport](), list[int]()
    watch = KeyWatch().for_call(given.append, lambda: dropped.append(1))
    now_ms = 0
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        watch.report(report(Outcome.DENIED), now_ms)
    assert len(given) + len(dropped) == len(pauses_ms)
    assert len(dropped) == watch.dropped
    assert len(given) <= REPORTS_BURST + now_ms * REPORTS_PER_S // 1_000


reports = st.builds(
    KeyReport,
    st.sampled_from(list(Stage)),
    st.builds(
        KeyRef, st.none() | st.text(min_size=1, max_size=63), st.text(max_size=64), st.integers(1, 2**31)
    ),
    st.sampled_from(list(Outcome)),
    st.integers(0, TOOK_MS_MAX),
    st.none() | st.integers(0, 86_400_000),
)


@given(reports)
def test_a_report_crosses_the_socket_as_it_is(given: KeyReport) -> None:
    _, message = decode(memoryview(encode(7, told(given)))[4:])
    assert isinstance(message, KeyTold)
    assert report_of(message) == given


@pytest.mark.parametrize(
    "wrong",
    [
        KeyTold("llm", "a", "own", 1, "stolen", 5, -1),
        KeyTold("vision", "a", "own", 1, "denied", 5, -1),
        KeyTold("llm", "a", "own", 1, "denied", -5, -1),
        KeyTold("llm", "a", "own", 1, "denied", 5, 10**12),
        KeyTold("llm", "a", "own", 1, "denied", 10**12, -1),
    ],
)
def test_what_no_worker_says_is_no_report(wrong: KeyTold) -> None:
    with pytest.raises(WireError):
        report_of(wrong)


# -- a chain of a call -----------------------------------------------------------------------------------


async def test_a_running_call_skips_a_key_that_is_held_off_and_reports_success_once() -> None:
    asked: list[str] = []
    refuses = [True]

    async def own(_: str) -> AsyncGenerator[str, None]:
        asked.append("own")
        if refuses[0]:
            raise AnswerRefused(429, None, 60.0)
        yield "own"

    async def next_one(_: str) -> AsyncGenerator[str, None]:
        asked.append("next")
        yield "next"

    told_of: list[KeyReport] = []
    fresh = ProviderCare.fresh()
    care = ProviderCare(fresh.stats, fresh.breakers, fresh.keys.for_call(told_of.append))
    breaker = BreakerKey.of(Stage.LLM, "own", "http://x", "m", "k")
    other = KeyRef(None, "PLATFORM")
    links = [Link("own", own, breaker, key=KEY), Link("next", next_one, key=other)]
    chain = Chain(Stage.LLM, links, care, Terms(1_000, 1_000, 5_000, None))

    async def turn() -> list[str]:
        said = []
        async for each in chain.ask("question"):
            said.append(each.item if isinstance(each, Piece) else "failed")
            assert isinstance(each, Piece | Failed)
        return said

    assert await turn() == ["failed", "next"]
    assert await turn() == ["next"]
    assert await turn() == ["next"]
    assert asked == ["own", "next", "next", "next"]
    assert [(each.key, each.outcome) for each in told_of] == [
        (KEY, Outcome.RATE_LIMITED),
        (other, Outcome.SUCCEEDED),
    ]
    assert told_of[0].retry_after_ms == 60_000
    refuses[0] = False
    anew = Chain(
        Stage.LLM,
        [Link("own", own, breaker, key=KeyRef("a", "own", 4))],
        care,
        Terms(1_000, 1_000, 5_000, None),
    )
    assert [each.item async for each in anew.ask("q") if isinstance(each, Piece)] == ["own"]
    assert told_of[-1].outcome is Outcome.SUCCEEDED
