"""Hours, numbers and written text in the words of a voice; the fixed phrases and the prompt."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.tenant import TenantConfig
from mediaserver.receptionist import Phrases, first_message, system_prompt
from mediaserver.receptionist.hours import OpeningHours, hours_question
from mediaserver.receptionist.numbers import cardinal, find_digits, speak_digits, speak_number
from mediaserver.receptionist.slots import booking_reason, read_name, read_reason
from mediaserver.receptionist.speakable import shorten, speak_address, speak_time, speakable
from tests.receptionist.tenants import DENTAL, PLUMBER, TUESDAY_10_AM


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("555-0123", "5550123"),
        ("(212) 555-0123.", "2125550123"),
        ("five five five oh one two three", "5550123"),
        ("Five, five, five. Zero, one, two, three.", "5550123"),
        ("double five five 0123", "5550123"),
        ("triple five, oh one double two", "5550122"),
        ("5 5 5 0 1 2 3", "5550123"),
        ("five fifty-five, oh one twenty-three", "5550123"),
        ("my number is uh 212 um 555 and then 0123 thanks", "2125550123"),
        ("five to for five five five one", "5245551"),
        ("eight hundred five five five oh one two three", "8005550123"),
        ("five five five oh one two to", "5550122"),
        ("555 0123 for the office", "5550123"),
        ("I have two kids", "2"),
        ("nothing here", ""),
    ],
)
def test_digits_in_every_form(said: str, digits: str) -> None:
    assert find_digits(said).digits == digits


def test_a_plus_is_kept() -> None:
    assert find_digits("plus four nine, one seven zero, 1234567").number == "+491701234567"


@given(st.text("0123456789", min_size=7, max_size=15))
def test_a_spoken_number_is_heard_as_the_same_number(digits: str) -> None:
    assert find_digits(speak_number(digits)).digits == digits
    assert find_digits(speak_digits(digits)).digits == digits


@pytest.mark.parametrize(
    ("number", "spoken"),
    [
        ("5550123", "five five five, oh one two three"),
        ("+12125550123", "two one two, five five five, oh one two three"),
        ("+4930123456", "plus four nine three, oh one two, three four five six"),
    ],
)
def test_numbers_are_grouped(number: str, spoken: str) -> None:
    assert speak_number(number) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("$95", "ninety-five dollars"),
        ("$95 - $120", "ninety-five dollars to one hundred twenty dollars"),
        ("$1,250.50", "one thousand two hundred fifty dollars and fifty cents"),
        ("80 EUR", "eighty euros"),
        ("£1", "one pound"),
        ("Open 8:30am-5pm", "Open eight thirty a.m. to five p.m."),
        ("until 17:00", "until five p.m."),
        ("call 911 or 212-555-0199", "call nine one one or two one two, five five five, oh one nine nine"),
        ("$60/hour", "sixty dollars per hour"),
        ("room 12", "room 12"),
    ],
)
def test_text_becomes_speakable(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


@given(st.text(max_size=120))
def test_any_text_can_be_spoken(text: str) -> None:
    for spoken in (speakable(text), speak_address(text), shorten(text)):
        assert spoken == " ".join(spoken.split()) or spoken == shorten(text)


def test_addresses_and_sentences() -> None:
    assert speak_address("1420 Main St., Albany, NY 12207") == (
        "fourteen twenty Main Street, Albany, N Y one two two oh seven"
    )
    assert shorten("We like Dr. Who. " + "Word " * 40 + ".", 10) == "We like Dr. Who."
    assert [speak_time(time(*at)) for at in ((8, 0), (12, 0), (17, 5), (0, 0), (12, 30))] == [
        "eight a.m.",
        "noon",
        "five oh five p.m.",
        "midnight",
        "twelve thirty p.m.",
    ]
    assert [cardinal(value) for value in (0, 21, 110, 1_000, 999_999)] == [
        "zero",
        "twenty-one",
        "one hundred ten",
        "one thousand",
        "nine hundred ninety-nine thousand nine hundred ninety-nine",
    ]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("my name is anna miller", "Anna Miller"),
        ("Uh, it's Bob.", "Bob"),
        ("This is Maria Lopez and my number is 555", "Maria Lopez"),
        ("Sure, Ronald McDonald", "Ronald McDonald"),
        ("A-N-N-A", "Anna"),
        ("Will Smith", "Will Smith"),
        ("I'm not sure", ""),
        ("my bill was wrong", ""),
        ("what are your hours", ""),
        ("thanks", ""),
    ],
)
def test_names(said: str, name: str) -> None:
    assert read_name(said) == name


def test_reasons() -> None:
    assert read_reason("It's about a broken crown.") == "a broken crown"
    assert read_reason("Yes, please tell him that I'm late") == "I'm late"
    assert booking_reason("I'd like an appointment for a cleaning") == "an appointment for a cleaning"
    assert (
        booking_reason("I need to cancel my appointment on Friday.") == "cancelling an appointment on Friday"
    )
    assert booking_reason("I need an a point mint") == "an appointment"


def _hours(config: TenantConfig, asked: str, now: datetime) -> str:
    hours = OpeningHours.of(config)
    return hours.answer(hours_question(asked, hours.today(now)), now)


SATURDAY_UTC_FRIDAY_LOCAL = datetime(2026, 11, 28, 1, 30, tzinfo=UTC)
SATURDAY_NOON_BREAK = datetime(2026, 11, 28, 18, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("config", "asked", "now", "answer"),
    [
        (DENTAL, "are you open today", TUESDAY_10_AM, "Today we're open from eight a.m. to five p.m."),
        (DENTAL, "are you open now", TUESDAY_10_AM, "Yes, we're open now, until five p.m."),
        (DENTAL, "are you open tomorrow", SATURDAY_UTC_FRIDAY_LOCAL, "Tomorrow we're closed. We open again on Monday at eight a.m."),
        (DENTAL, "are you open now", SATURDAY_UTC_FRIDAY_LOCAL, "We're closed right now. We open on Monday at eight a.m."),
        (PLUMBER, "when do you close", SATURDAY_NOON_BREAK, "We're closed right now. We open today at one p.m."),
        (PLUMBER, "on weekends", TUESDAY_10_AM, "We're open Saturday from nine a.m. to noon and from one p.m. to three thirty p.m. We're closed on Sunday."),
        (PLUMBER, "monday and sunday", TUESDAY_10_AM, "We're open Monday from seven thirty a.m. to six p.m. We're closed on Sunday."),
    ],
)  # fmt: skip
def test_hours_in_the_tenants_time_zone(config: TenantConfig, asked: str, now: datetime, answer: str) -> None:
    assert _hours(config, asked, now) == answer


def _with_hours(hours: dict[str, list[dict[str, str]]]) -> TenantConfig:
    return TenantConfig.model_validate(DENTAL.model_dump(mode="json") | {"hours": hours})


def test_unusual_weeks() -> None:
    day = [{"opens": "00:00", "closes": "23:59"}]
    always = _with_hours(
        dict.fromkeys(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), day)
    )
    assert _hours(always, "what are your hours", TUESDAY_10_AM) == "We're open every day around the clock."
    assert _hours(always, "are you open now", TUESDAY_10_AM) == "Yes, we're open around the clock."
    assert "don't have any opening hours" in _hours(_with_hours({}), "are you open now", TUESDAY_10_AM)
    night = _with_hours(
        {
            "tuesday": [{"opens": "09:00", "closes": "23:59"}],
            "wednesday": [{"opens": "00:00", "closes": "02:00"}],
        }
    )
    assert _hours(night, "are you open now", TUESDAY_10_AM).endswith("until tomorrow at two a.m.")


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_open_and_next_opening_agree_with_the_week(now: datetime) -> None:
    for config in (DENTAL, PLUMBER):
        hours = OpeningHours.of(config)
        closes, opens = hours.open_until(now), hours.next_opening(now)
        assert opens is not None
        assert now < opens <= now + timedelta(days=8)
        if closes is not None:
            assert now < closes <= now + timedelta(hours=24)


def test_phrases_and_prompt() -> None:
    phrases = Phrases.of(DENTAL)
    assert phrases.one_moment == "Sorry, I'm having a little trouble. One moment please."
    assert set(phrases.all()) >= {phrases.failure, phrases.still_there, phrases.not_caught, phrases.goodbye}
    assert first_message(DENTAL) == DENTAL.greeting
    for own, other in ((DENTAL, PLUMBER), (PLUMBER, DENTAL)):
        prompt = system_prompt(own, TUESDAY_10_AM)
        facts = (own.business_name, own.address, own.human.name, *(faq.answer for faq in own.faq))
        assert all(fact in prompt for fact in facts)
        assert not any(
            fact in prompt for fact in (other.business_name, other.address, other.services[1].name)
        )
        assert len(prompt) < 8_000
    assert "Tuesday, 24 November 2026, ten a.m. local time; the business is open" in system_prompt(
        DENTAL, TUESDAY_10_AM
    )
