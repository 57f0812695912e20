"""Every way of writing a number comes back to that number, and never to another tenant's."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from urllib.parse import quote

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from sipbridge.errors import UriError
from sipbridge.uri import SipUri
from tenancy.called import (
    MAX_NUMBER_CHARACTERS,
    MAX_URI_CHARACTERS,
    CalledText,
    Refusal,
    Unreadable,
    read_uri,
    read_user,
    sip_address,
)
from tenancy.numbers import MAX_CANDIDATES, Candidates, TrunkNotation, candidates, is_e164
from tenancy.routing import Ambiguous, Registration, Routed, Standing, Unknown, route

REGIONS: Final = tuple(sorted(phonenumbers.SUPPORTED_REGIONS))
GERMAN: Final = TrunkNotation.for_country("DE")
AMERICAN: Final = TrunkNotation.for_country("US")
PLAIN: Final = TrunkNotation(without_plus=True)
"""What the registry reads on a trunk of which nothing is said."""


def read(text: str, notation: TrunkNotation) -> Candidates | Unreadable:
    called = read_user(text)
    return candidates(called, notation) if isinstance(called, CalledText) else called


def read_as_uri(text: str, notation: TrunkNotation) -> Candidates | Unreadable:
    called = read_uri(text)
    return candidates(called, notation) if isinstance(called, CalledText) else called


def numbers(text: str, notation: TrunkNotation) -> tuple[str, ...]:
    found = read(text, notation)
    return found.numbers if isinstance(found, Candidates) else ()


def refusal(found: object) -> Refusal | None:
    return found.refusal if isinstance(found, Unreadable) else None


# -- the world's plans ---------------------------------------------------------------------------------


def examples(region: str) -> list[phonenumbers.PhoneNumber]:
    found = (phonenumbers.example_number_for_type(region, kind) for kind in PhoneNumberType.values())
    return [each for each in found if each is not None]


@pytest.mark.parametrize("region", REGIONS)
def test_every_notation_of_a_regions_numbers_comes_back_to_the_number(region: str) -> None:
    notation = TrunkNotation.for_country(region)
    checked = 0
    for example in examples(region):
        number = phonenumbers.format_number(example, PhoneNumberFormat.E164)
        if not is_e164(number):  # two short service numbers of Iran, which are no E.164 of a tenant's schema
            continue
        significant = phonenumbers.national_significant_number(example)
        national = phonenumbers.format_number(example, PhoneNumberFormat.NATIONAL)
        international = phonenumbers.format_number(example, PhoneNumberFormat.INTERNATIONAL)
        written = (
            number,
            re.sub(r"[\s/]", "", national),
            re.sub(r"[\s/]", "", international),
            notation.international_prefixes[0] + number[1:],
            notation.national_prefix + significant,
        )
        for text in written:
            assert number in numbers(text, notation), text
            for uri in (
                f"sip:{quote(text, safe='')}@192.0.2.1:5060;user=phone",
                f"SIPS:{text}@h",
                f"tel:{text}",
            ):
                assert read_as_uri(uri, notation) == read(text, notation)
        code = example.country_code
        local = f"tel:{written[1]};phone-context=+{code}"
        assert number in getattr(read_as_uri(local, notation), "numbers", ()), local
        bare = replace(notation, without_plus=True)
        assert numbers(number[1:], bare)[0] == number
        assert numbers(phonenumbers.format_number(example, PhoneNumberFormat.RFC3966)[4:], PLAIN) == (number,)
        checked += 1
    assert checked


def test_the_plans_prefixes_are_those_of_the_countries() -> None:
    assert (GERMAN.international_prefixes, GERMAN.national_prefix) == (("00",), "0")
    assert (AMERICAN.international_prefixes, AMERICAN.national_prefix) == (("011",), "1")
    assert AMERICAN.without_national_prefix
    assert not TrunkNotation.for_country("FR").without_national_prefix
    italian = TrunkNotation.for_country("IT")
    assert numbers("0612345678", italian) == ("+390612345678",)
    assert "+5491123456789" in numbers("0111523456789", TrunkNotation.for_country("AR"))
    assert "+5491123456789" in numbers("011 15-2345-6789".replace(" ", ""), TrunkNotation.for_country("AR"))


# -- one trunk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("called", ["+15550100", "15550100", "0015550100", "+1-555-0100", "+1(555)0100"])
def test_without_a_country_the_registrys_ways_of_writing_stay(called: str) -> None:
    assert numbers(called, PLAIN) == ("+15550100",)


@pytest.mark.parametrize(
    ("called", "notation", "wrong"),
    [
        ("", PLAIN, Refusal.EMPTY),
        ("-.()", PLAIN, Refusal.EMPTY),
        ("+", PLAIN, Refusal.NAME),
        ("++15550100", PLAIN, Refusal.NAME),
        ("+0015550100", PLAIN, Refusal.LENGTH),
        ("05550100", PLAIN, Refusal.NO_COUNTRY),
        ("15550100", TrunkNotation(), Refusal.NOTATION),
        ("30123456", replace(GERMAN, without_national_prefix=False), Refusal.NOTATION),
        ("555", PLAIN, Refusal.SHORT),
        ("17", TrunkNotation(), Refusal.SHORT),
        ("00 15550100", PLAIN, Refusal.NAME),
        ("front-desk", PLAIN, Refusal.NAME),
        ("1-800-FLOWERS", AMERICAN, Refusal.NAME),
        ("*67#", PLAIN, Refusal.NAME),
        ("+15550100*", PLAIN, Refusal.NAME),
        ("' OR 1=1 --", PLAIN, Refusal.NAME),
        ("+1555010\x000", PLAIN, Refusal.CHARACTERS),
        ("+1555\r\n0100", PLAIN, Refusal.CHARACTERS),
        ("\u0661\u0665\u0665\u0665\u0660\u0661\u0660\u0660", PLAIN, Refusal.CHARACTERS),
        ("+\uff11\uff15\uff15\uff15\uff10\uff11\uff10\uff10", PLAIN, Refusal.CHARACTERS),
        ("\ud800", PLAIN, Refusal.CHARACTERS),
        ("1" * (MAX_NUMBER_CHARACTERS + 1), PLAIN, Refusal.TOO_LONG),
        ("1" * 1_000_000, PLAIN, Refusal.TOO_LONG),
        ("+15550100;" + "x=" * MAX_URI_CHARACTERS, PLAIN, Refusal.TOO_LONG),
        ("1" * 20, PLAIN, Refusal.LENGTH),
        ("+1234567890123456", PLAIN, Refusal.LENGTH),
    ],
)  # fmt: skip
def test_what_is_no_number_here_is_refused_by_name(
    called: str, notation: TrunkNotation, wrong: Refusal
) -> None:
    found = read(called, notation)
    assert isinstance(found, Unreadable)
    assert found.refusal is wrong
    assert found.shown.isascii()
    assert found.shown.isprintable()
    assert len(found.shown) < 500


@pytest.mark.parametrize(
    ("uri", "wrong"),
    [
        ("", Refusal.EMPTY),
        ("mailto:a@b", Refusal.SCHEME),
        ("urn:service:sos", Refusal.SCHEME),
        ("+15550100", Refusal.SCHEME),
        ("sip:192.0.2.1", Refusal.EMPTY),
        ("sip:@192.0.2.1", Refusal.EMPTY),
        ("tel:", Refusal.EMPTY),
        ("sip:+1555%@h", Refusal.ESCAPE),
        ("sip:+1555%2@h", Refusal.ESCAPE),
        ("sip:+1555%zz0100@h", Refusal.ESCAPE),
        ("sip:+1555%000100@h", Refusal.CHARACTERS),
        ("sip:%D9%A1%D9%A5%D9%A5@h", Refusal.CHARACTERS),
        ("sip:%FF%FE@h", Refusal.CHARACTERS),
        ("sip:%252B15550100@h", Refusal.NAME),
        ("sip:" + "9" * 600 + "@h", Refusal.TOO_LONG),
    ],
)
def test_a_uri_that_names_no_number_is_refused_by_name(uri: str, wrong: Refusal) -> None:
    assert refusal(read_as_uri(uri, PLAIN)) is wrong


def test_what_does_not_belong_to_the_number_is_passed_over() -> None:
    for uri in (
        "sip:%2B15550100@192.0.2.1",
        "sip:+1-555-0100@[2001:db8::1]:5060;transport=tcp",
        "sip:+15550100:secret@h;user=phone?Subject=x",
        "sip:+15550100;ext=12;isub=34@h;user=phone",
        "tel:+1(555)0100;tgrp=a;trunk-context=b.example",
        "tel:+15550100;phone-context=elsewhere.example",
    ):
        assert read_as_uri(uri, TrunkNotation()) == Candidates(("+15550100",)), uri


def test_a_local_number_needs_a_context_that_the_trunk_has() -> None:
    trunk = replace(GERMAN, contexts=("pbx.example",), base_number="+493055500", extension_digits=2)
    assert read_as_uri("tel:42;phone-context=PBX.example", trunk) == Candidates(("+49305550042",))
    assert refusal(read_as_uri("tel:42;phone-context=other.example", trunk)) is Refusal.CONTEXT
    # RFC 3966 5.1.5: the context's digits are not to be put before the number.
    assert refusal(read_as_uri("tel:911;phone-context=+1", AMERICAN)) is Refusal.SHORT
    assert refusal(read_as_uri("tel:5550100;phone-context=+1-212", AMERICAN)) is Refusal.CONTEXT
    assert refusal(read_as_uri("tel:030123456;phone-context=+999", GERMAN)) is Refusal.CONTEXT
    assert refusal(read_as_uri("tel:030123456;phone-context=+", GERMAN)) is Refusal.CONTEXT
    assert refusal(read_as_uri("tel:030123456;phone-context=", GERMAN)) is Refusal.CONTEXT
    assert (
        refusal(read_as_uri("tel:030123456;phone-context=+49;phone-context=+43", GERMAN)) is Refusal.CONTEXT
    )
    # The country that is named counts, not the trunk's.
    assert "+4930123456" in getattr(read_as_uri("tel:030-123456;phone-context=+49", AMERICAN), "numbers", ())


def test_a_number_without_its_area_code_is_named_so() -> None:
    found = read("5550100", AMERICAN)
    assert isinstance(found, Candidates)
    assert found.doubt is Refusal.LOCAL
    assert route("t", found, {}) == Unknown(Refusal.LOCAL)


def test_the_countrys_own_international_prefix_counts_only_where_it_is_the_trunks() -> None:
    other = replace(GERMAN, international_prefixes=("000",))
    assert "+4930123456" in numbers("004930123456", GERMAN)
    assert "+4930123456" in numbers("0004930123456", other)
    assert "+4930123456" not in numbers("004930123456", other)
    # The library would take the country code off a number that is too long with it; the trunk leaves no plus out.
    assert numbers("14155550100", replace(AMERICAN, national_prefix="")) != ("+14155550100",)


def test_technical_prefixes_are_stripped_and_what_they_could_be_as_digits_stays_a_reading() -> None:
    marked = TrunkNotation(technical_prefixes=("77#", "9901"))
    assert numbers("77#+15550100", marked) == ("+15550100",)
    assert numbers("77#0015550100", marked) == ("+15550100",)
    assert refusal(read("77#", marked)) is Refusal.NAME
    digits = TrunkNotation(without_plus=True, technical_prefixes=("49",))
    assert numbers("493012345678", digits) == ("+3012345678", "+493012345678")


def test_an_extension_is_put_behind_the_base_number_and_nothing_else_is() -> None:
    trunk = TrunkNotation(base_number="+493055500", extension_digits=2)
    assert numbers("42", trunk) == ("+49305550042",)
    for other in ("4", "424"):
        assert refusal(read(other, trunk)) is Refusal.SHORT


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("country", {"country": "XX"}),
        ("country", {"country": "de"}),
        ("country", {"national_prefix": "0"}),
        ("international_prefixes", {"international_prefixes": ("+",)}),
        ("international_prefixes", {"international_prefixes": ("0", "00")}),
        ("technical_prefixes", {"technical_prefixes": ("1", "2", "3", "4")}),
        ("technical_prefixes", {"technical_prefixes": ("",)}),
        ("national_prefix", {"country": "DE", "national_prefix": "x"}),
        ("extension_digits", {"base_number": "+4930555", "extension_digits": 7}),
        ("base_number", {"base_number": "+4930555"}),
        ("base_number", {"extension_digits": 2}),
        ("base_number", {"base_number": "+49305555555555", "extension_digits": 4}),
        ("contexts", {"contexts": ("+49",)}),
    ],
)
def test_a_notation_that_cannot_be_meant_names_its_field(field: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        TrunkNotation(**arguments)  # type: ignore[arg-type]


# -- properties ----------------------------------------------------------------------------------------

E164S = st.from_regex(r"\A\+[1-9][0-9]{6,14}\Z")


@st.composite
def notations(draw: st.DrawFn) -> TrunkNotation:
    region = draw(
        st.sampled_from(("DE", "US", "GB", "IT", "AR", "BR", "RU", "MX", "FR", "AU", "KR", "LI", None))
    )
    plan = TrunkNotation() if region is None else TrunkNotation.for_country(region)
    base = draw(st.sampled_from((None, "+493055500", "+1555010")))
    return replace(
        plan,
        without_plus=draw(st.booleans()),
        without_national_prefix=region is not None and draw(st.booleans()),
        technical_prefixes=draw(st.sampled_from(((), ("9901",), ("49", "1"), ("7#",)))),
        base_number=base,
        extension_digits=0 if base is None else draw(st.integers(1, 4)),
    )


def ways_to_write(number: str, notation: TrunkNotation) -> list[str]:
    """What a trunk may send for a number by the letter of its notation."""
    written = [number, *(prefix + number[1:] for prefix in notation.international_prefixes)]
    if notation.without_plus:
        written.append(number[1:])
    if notation.country is not None:
        code = f"+{phonenumbers.country_code_for_region(notation.country)}"
        if number.startswith(code):
            significant = number.removeprefix(code)
            written.append(notation.national_prefix + significant)
            if notation.without_national_prefix:
                written.append(significant)
    base = notation.base_number
    if base is not None and number.startswith(base) and len(number) == len(base) + notation.extension_digits:
        written.append(number.removeprefix(base))
    return written + [prefix + text for prefix in notation.technical_prefixes for text in written]


@st.composite
def registered_numbers(draw: st.DrawFn, notation: TrunkNotation) -> tuple[str, ...]:
    """Numbers that are likely to be mistaken for one another: of few digits, and each other's notations."""
    code = "1" if notation.country is None else str(phonenumbers.country_code_for_region(notation.country))
    own = st.builds("+{}{}".format, st.just(code), st.text("0149", min_size=6, max_size=9))
    close = st.builds(
        "{}{}".format, st.just(notation.base_number or "+49"), st.text("0149", min_size=1, max_size=9)
    )
    chosen = draw(st.lists(st.one_of(E164S, own, close).filter(is_e164), min_size=1, max_size=4, unique=True))
    for number in tuple(chosen):
        for text in ways_to_write(number, notation):
            chosen += [f"+{digits}" for digits in (text.lstrip("+0"), text) if is_e164(f"+{digits}")]
    return tuple(dict.fromkeys(chosen))


@given(st.data())
def test_a_registered_number_is_reached_or_ambiguous_and_never_another(data: st.DataObject) -> None:
    notation = data.draw(notations())
    registered = data.draw(registered_numbers(notation))
    table = {
        number: Registration(number, f"tenant-{index}", Standing.ACTIVE, frozenset({"trunk"}))
        for index, number in enumerate(registered)
    }
    number = data.draw(st.sampled_from(registered))
    for text in ways_to_write(number, notation):
        found = read(text, notation)
        assert isinstance(found, Candidates), text
        outcome = route("trunk", found, table)
        match outcome:
            case Routed():
                assert outcome == Routed(table[number].tenant_id, number), text
            case Ambiguous():
                assert number in outcome.keys, text
            case _:
                raise AssertionError((text, outcome))


@given(E164S, notations())
def test_a_number_with_its_plus_is_itself_on_every_trunk(number: str, notation: TrunkNotation) -> None:
    assert read(number, notation) == Candidates((number,))
    assert read_as_uri(f"sip:{quote(number)}@h", notation) == Candidates((number,))


@given(st.text(max_size=80) | st.text("+0123456789*#;=-", max_size=80), notations())
def test_anything_gives_bounded_numbers_or_a_named_refusal(text: str, notation: TrunkNotation) -> None:
    for found in (read(text, notation), read_as_uri(text, notation), read_as_uri(f"sip:{text}@h", notation)):
        if isinstance(found, Candidates):
            assert 1 <= len(found.numbers) <= MAX_CANDIDATES
            assert len(set(found.numbers)) == len(found.numbers)
            assert all(is_e164(number) for number in found.numbers)
            for number in found.numbers:
                assert read(number, notation) == Candidates((number,))
        else:
            assert found.shown.isascii()
            assert found.shown.isprintable()


USERS = st.text("+0123456789-.()*#", min_size=1, max_size=20)


@given(
    st.sampled_from(["sip:", "sips:", "SIP:"]),
    USERS,
    st.sampled_from(["", ";phone-context=+49", ";phone-context=pbx.example", ";ext=1", ";PHONE-CONTEXT=+1"]),
    st.sampled_from(["@192.0.2.1", "@h:5060;user=phone", "@[2001:db8::1];transport=tcp"]),
    st.booleans(),
)
def test_a_uri_means_the_same_whether_the_sip_stack_has_parsed_it_or_not(
    scheme: str, number: str, parameters: str, host: str, escape: bool
) -> None:
    user = quote(number, safe="") if escape else number.replace("#", "%23")
    uri = f"{scheme}{user}{parameters}{host}"
    assert read_user(SipUri.parse(uri).user or "") == read_uri(uri)


@given(st.from_regex(r"\A\+?[0-9][0-9.()-]{0,19}\Z"), st.sampled_from([None, "+49", "pbx.example"]))
def test_so_does_a_tel_uri(number: str, context: str | None) -> None:
    uri = f"tel:{number}" + ("" if context is None else f";phone-context={context}")
    try:
        parsed = SipUri.parse(uri)
    except UriError:  # the stack refuses it before anybody asks whose number it is
        assume(False)
    assert read_user(parsed.user or "", parsed.param("phone-context")) == read_uri(uri)


# -- addresses that are no numbers ---------------------------------------------------------------------


def test_a_sip_address_has_one_key() -> None:
    for uri in (
        "sip:front.desk@example.com",
        "SIPS:front.desk@EXAMPLE.com:5061;transport=tls",
        "sip:front%2Edesk:pw@example.com?x=y",
    ):
        assert sip_address(uri) == "sip:front.desk@example.com"
    assert sip_address("sip:Front@[2001:DB8::1]:5060") == "sip:Front@[2001:db8::1]"
    assert sip_address("sip:Front@[2001:DB8::1]") == "sip:Front@[2001:db8::1]"
    for wrong, why in (
        ("tel:+15550100", Refusal.SCHEME),
        ("sip:example.com", Refusal.EMPTY),
        ("sip:a%00b@h", Refusal.CHARACTERS),
        ("sip:a%40b@h", Refusal.CHARACTERS),
        ("sip:a@h h", Refusal.NAME),
        ("sip:a@", Refusal.NAME),
        ("sip:" + "a" * 600 + "@h", Refusal.TOO_LONG),
    ):
        found = sip_address(wrong)
        assert isinstance(found, Unreadable), wrong
        assert found.refusal is why, wrong
