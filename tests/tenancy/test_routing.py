"""Whose call it is, what everybody else is told, and site keys."""

from __future__ import annotations

import string
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.site_keys import RANDOM_BYTES, KeyFault, OriginFault, SiteKey, normal_origin, origin_fault
from tenancy.called import Refusal, Unreadable
from tenancy.numbers import Candidates
from tenancy.routing import (
    Ambiguous,
    Answer,
    Home,
    MalformedKey,
    Moved,
    NotOnThisTrunk,
    NoTrunk,
    OriginRefused,
    Outcome,
    Refused,
    Registration,
    Routed,
    Standing,
    Suspended,
    Unknown,
    answer,
    route,
    route_site,
)

HOME = Home("sip:cell-2.example.com", "https://cell-2.example.com")
ONE, TWO, THREE = "+15550100", "+15550101", "+15550102"


def registered(
    number: str,
    tenant: str = "a",
    standing: Standing = Standing.ACTIVE,
    *trunks: str,
    home: Home | None = None,
) -> Registration:
    return Registration(number, tenant, standing, frozenset(trunks or ("t",)), home=home)


def routed(trunk: str, called: tuple[str, ...], *table: Registration) -> Outcome:
    return route(trunk, Candidates(called), {each.key: each for each in table})


def test_each_outcome() -> None:
    assert routed("t", (ONE,), registered(ONE)) == Routed("a", ONE)
    assert routed("t", (ONE, TWO), registered(TWO)) == Routed("a", TWO)
    assert routed("t", (ONE,), registered(TWO)) == Unknown()
    assert routed("t", (ONE,), registered(ONE, "a", Standing.SUSPENDED)) == Suspended("a")
    assert routed("t", (ONE,), registered(ONE, "a", Standing.MOVED, home=HOME)) == Moved("a", ONE, HOME)
    assert routed("t", (ONE,), registered(ONE, "a", Standing.MOVED)) == Moved("a", ONE, None)
    assert routed("t", (ONE, TWO), registered(ONE), registered(TWO, "b")) == Ambiguous((ONE, TWO))
    unreadable = Unreadable(Refusal.SHORT, "1")
    assert route("t", unreadable, {}) is unreadable


@pytest.mark.parametrize("standing", Standing)
def test_a_trunk_learns_nothing_of_tenants_that_are_not_its_own(standing: Standing) -> None:
    there = registered(ONE, "a", standing, "other", home=HOME)
    outcome = routed("t", (ONE,), there)
    assert outcome == NotOnThisTrunk("a", "t")
    nobody = answer(Unknown())
    told = answer(outcome)
    assert (told.sip_status, told.sip_reason, told.http_status, told.text, told.contact) == (
        nobody.sip_status, nobody.sip_reason, nobody.http_status, nobody.text, None,
    )  # fmt: skip
    assert told.code != nobody.code
    assert routed("t", (ONE,), Registration(ONE, "a", standing)) == NotOnThisTrunk("a", "t")


@given(
    st.lists(
        st.builds(
            Registration,
            st.sampled_from([ONE, TWO, THREE]),
            st.sampled_from(["a", "b"]),
            st.sampled_from(Standing),
            st.frozensets(st.sampled_from(["t", "u"])),
        ),
        unique_by=lambda each: each.key,
    ),
    st.lists(st.sampled_from([ONE, TWO, THREE]), min_size=1, unique=True),
)
def test_only_an_active_registration_on_the_trunk_takes_a_call_and_others_change_nothing(
    table: list[Registration], called: list[str]
) -> None:
    outcome = routed("t", tuple(called), *table)
    here = [each for each in table if "t" in each.trunks]
    if isinstance(outcome, Routed):
        (one,) = [each for each in here if each.key in called]
        assert one.standing is Standing.ACTIVE
        assert outcome == Routed(one.tenant_id, one.key)
    without = routed("t", tuple(called), *here)
    if not isinstance(outcome, NotOnThisTrunk):
        assert outcome == without
    else:
        assert without == Unknown()


ANSWERED: list[tuple[Refused, int, int]] = [
    *((Unreadable(refusal, "x"), sip, http) for refusal, sip, http in (
        (Refusal.EMPTY, 484, 404), (Refusal.TOO_LONG, 414, 400), (Refusal.ESCAPE, 400, 400),
        (Refusal.CHARACTERS, 400, 400), (Refusal.SCHEME, 416, 400), (Refusal.NAME, 404, 404),
        (Refusal.CONTEXT, 404, 404), (Refusal.SHORT, 484, 404), (Refusal.LOCAL, 484, 404),
        (Refusal.NO_COUNTRY, 404, 404), (Refusal.NOTATION, 404, 404), (Refusal.LENGTH, 404, 404),
    )),
    (Unknown(), 404, 404),
    (Unknown(Refusal.LOCAL), 484, 404),
    (Unknown(Refusal.LENGTH), 404, 404),
    (NoTrunk(), 403, 403),
    (NotOnThisTrunk("secret-tenant", "t"), 404, 404),
    (Ambiguous((ONE, TWO)), 485, 409),
    (Suspended("secret-tenant"), 480, 403),
    (Moved("secret-tenant", THREE, HOME), 302, 307),
    (Moved("secret-tenant", THREE, None), 410, 410),
    (MalformedKey(KeyFault.CHECKSUM), 400, 400),
    (OriginRefused("secret-tenant", OriginFault.NOT_LISTED), 403, 403),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "sip", "http"), ANSWERED, ids=lambda value: str(value)[:50])
def test_each_refusal_has_its_answer_which_names_nobody(outcome: Refused, sip: int, http: int) -> None:
    told = answer(outcome)
    assert isinstance(told, Answer)
    assert (told.sip_status, told.http_status) == (sip, http)
    assert "secret-tenant" not in str(told)
    assert ONE not in str(told)
    redirected = (f"sip:{THREE}@cell-2.example.com", "https://cell-2.example.com")
    assert (told.contact, told.location) == (redirected if sip == 302 else (None, None))


def test_a_home_is_a_root_that_fits_into_a_header() -> None:
    assert Home("sips:[2001:db8::1]:5061;transport=tcp", "http://h:8080/a").contact(ONE) == (
        f"sips:{ONE}@[2001:db8::1]:5061;transport=tcp"
    )
    for sip in ("", "tel:+1", "sip:", "sip:a@b", "sip:b\r\nX: y", "sip:b>;x", "sip:b?x=y"):
        with pytest.raises(ValueError, match=r"^sip_uri"):
            Home(sip, HOME.http_url)
    for http in ("", "https://", "https://a@b", "https://a/", "https://a?x", "https://a\nb", "ftp://a"):
        with pytest.raises(ValueError, match=r"^http_url"):
            Home(HOME.sip_uri, http)


def test_every_kind_of_refusal_is_in_the_table() -> None:
    assert {type(outcome) for outcome, _, _ in ANSWERED} == set(get_args(Refused))
    assert {each.refusal for each, _, _ in ANSWERED if isinstance(each, Unreadable)} == set(Refusal)


# -- site keys -----------------------------------------------------------------------------------------

RANDOM = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(RANDOM)
def test_a_key_is_read_as_it_was_made(random: bytes) -> None:
    key = SiteKey.from_random(random)
    assert SiteKey.parse(str(key)) == key
    assert len(key.text) == 37


@given(RANDOM, RANDOM)
def test_two_keys_differ(one: bytes, other: bytes) -> None:
    assert (SiteKey.from_random(one) == SiteKey.from_random(other)) == (one == other)


@given(RANDOM, st.integers(5, 36), st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=3, max_size=3))
def test_up_to_three_wrong_characters_in_a_row_are_named(random: bytes, at: int, wrong: str) -> None:
    text = SiteKey.from_random(random).text
    typed = (text[:at] + wrong + text[at + 3 :])[: len(text)]
    assert typed == text or SiteKey.parse(typed) is KeyFault.CHECKSUM
    swapped = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
    assert swapped == text or SiteKey.parse(swapped) is KeyFault.CHECKSUM


@given(st.text(max_size=60) | st.text(string.ascii_lowercase + "234567", max_size=40).map("site_".__add__))
def test_anything_else_is_refused_by_name(text: str) -> None:
    assert isinstance(SiteKey.parse(text), KeyFault)


def test_each_fault_of_a_key() -> None:
    text = SiteKey.from_random(bytes(range(RANDOM_BYTES))).text
    assert SiteKey.parse(text.upper()) is KeyFault.PREFIX
    assert SiteKey.parse(text[:-1]) is KeyFault.LENGTH
    assert SiteKey.parse(text[:-1] + "1") is KeyFault.CHARACTER
    assert SiteKey.parse(text[:-1] + "\u0131") is KeyFault.CHARACTER
    with pytest.raises(ValueError, match="16 bytes"):
        SiteKey.from_random(b"short")


ALLOWED = ("https://www.example.com", "http://localhost:3000", "https://[2001:db8::1]:8443")


@pytest.mark.parametrize(
    ("origin", "fault"),
    [
        ("https://www.example.com", None),
        ("https://WWW.example.com:443", None),
        ("http://localhost:3000", None),
        ("https://[2001:db8::1]:8443", None),
        (None, OriginFault.MISSING),
        ("", OriginFault.MISSING),
        ("null", OriginFault.OPAQUE),
        ("https://www.example.com/", OriginFault.MALFORMED),
        ("https://user@www.example.com", OriginFault.MALFORMED),
        ("https://www.example.com:99999", OriginFault.MALFORMED),
        ("https://www.example.com\n", OriginFault.MALFORMED),
        ("https://w\u0175w.example.com", OriginFault.MALFORMED),
        ("https://" + "a" * 400, OriginFault.MALFORMED),
        ("file://", OriginFault.MALFORMED),
        ("http://www.example.com", OriginFault.NOT_LISTED),
        ("https://www.example.com.evil.example", OriginFault.NOT_LISTED),
        ("https://example.com", OriginFault.NOT_LISTED),
        ("https://www.example.com:8443", OriginFault.NOT_LISTED),
        ("http://localhost", OriginFault.NOT_LISTED),
    ],
)
def test_only_a_listed_page_may_use_a_key(origin: str | None, fault: OriginFault | None) -> None:
    assert origin_fault(origin, ALLOWED) is fault
    assert origin_fault(origin, ()) is not None


@given(st.text(max_size=80))
def test_a_normal_origin_stays_as_it_is(text: str) -> None:
    found = normal_origin(text)
    assert found is None or normal_origin(found) == found


def test_a_browsers_call() -> None:
    key = SiteKey.from_random(bytes(RANDOM_BYTES))
    page = "https://www.example.com"
    found = Registration(key.text, "a", Standing.ACTIVE, origins=frozenset({page}))
    assert route_site(key, found, page) == Routed("a", key.text)
    assert route_site(key, None, page) == Unknown()
    assert route_site(KeyFault.CHECKSUM, found, page) == MalformedKey(KeyFault.CHECKSUM)
    assert route_site(key, found, None) == OriginRefused("a", OriginFault.MISSING)
    other = SiteKey.from_random(bytes([1]) * RANDOM_BYTES)
    assert route_site(other, found, page) == Unknown()
    gone = Registration(key.text, "a", Standing.MOVED, origins=frozenset({page}), home=HOME)
    assert route_site(key, gone, page) == Moved("a", key.text, HOME)
