"""A trunk's notation: from what was called to the E.164 numbers that it can mean there. Sans-IO.

Rules:

- a number with its plus is itself, whatever the trunk;
- every other text has the readings that the trunk's notation gives it, and all of them: international prefix, national
  prefix, plus left out, national prefix left out, extension of a base number;
- a national number is read by its country's plan (`phonenumbers`) and literally, country code before digits, because a
  plan may rewrite it (Argentina's 15) or not know a new range;
- nothing is chosen here. Where more than one reading is registered on the trunk, routing calls that ambiguous, so a call
  for one registered number never reaches another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import phonenumbers
from phonenumbers import CountryCodeSource, NumberParseException, PhoneMetadata, PhoneNumberFormat

from tenancy.called import CalledText, Refusal, Unreadable, unreadable

MAX_CANDIDATES: Final = 16
"""Two texts (with and without a technical prefix), each with at most eight readings."""
MAX_PREFIXES: Final = 3
MAX_EXTENSION_DIGITS: Final = 6
DEFAULT_INTERNATIONAL_PREFIX: Final = "00"
"""ITU-T E.164's recommendation."""
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_PREFIX: Final = re.compile(r"[0-9*#]{1,10}")
_DIGITS: Final = re.compile(r"[0-9]{1,5}")
_DOMAIN: Final = re.compile(r"[a-z0-9.-]{1,255}")


@dataclass(frozen=True, slots=True)
class TrunkNotation:
    """How a trunk writes the numbers that it calls. Raises `ValueError`, which names the field.

    Without arguments: ``+15550100`` and ``0015550100``, in no country.
    """

    country: str | None = None
    """The ISO 3166 region whose national numbers the trunk writes."""
    international_prefixes: tuple[str, ...] = (DEFAULT_INTERNATIONAL_PREFIX,)
    """What stands before a country code in place of the plus; at most `MAX_PREFIXES`."""
    national_prefix: str = ""
    """The trunk code before an area code: 0 in most countries, 1 in North America; empty: none."""
    without_plus: bool = False
    """The trunk writes international numbers as bare digits."""
    without_national_prefix: bool = False
    """The trunk writes national numbers without the national prefix."""
    technical_prefixes: tuple[str, ...] = ()
    """What the carrier puts before numbers for routing, stripped where it stands; at most `MAX_PREFIXES`."""
    base_number: str | None = None
    """E.164 without the extension, for a trunk that sends extensions alone (direct dialling in)."""
    extension_digits: int = 0
    """How many digits such an extension has; 0: the trunk sends none."""
    contexts: tuple[str, ...] = ()
    """Domains in ``phone-context`` that mean this trunk's own notation (RFC 3966 5.1.5); lower case."""

    def __post_init__(self) -> None:
        if self.country is not None and self.country not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"country: {self.country!r} is not an ISO 3166 region such as 'DE'")
        if self.country is not None:
            # The library reads a plan when it is first asked for, which takes milliseconds: not in the first call.
            PhoneMetadata.metadata_for_region(self.country)
        _check_prefixes("international_prefixes", self.international_prefixes, _DIGITS)
        _check_prefixes("technical_prefixes", self.technical_prefixes, _PREFIX)
        if self.national_prefix and not _DIGITS.fullmatch(self.national_prefix):
            raise ValueError(f"national_prefix: digits, not {self.national_prefix!r}")
        if self.country is None and (self.national_prefix or self.without_national_prefix):
            raise ValueError("country: national numbers need one")
        self._check_extensions()
        if len(self.contexts) > MAX_PREFIXES or not all(_DOMAIN.fullmatch(each) for each in self.contexts):
            raise ValueError(f"contexts: at most {MAX_PREFIXES} domains in lower case, not {self.contexts!r}")

    def _check_extensions(self) -> None:
        if not 0 <= self.extension_digits <= MAX_EXTENSION_DIGITS:
            raise ValueError(f"extension_digits: 0 to {MAX_EXTENSION_DIGITS}, not {self.extension_digits}")
        if bool(self.extension_digits) != (self.base_number is not None):
            raise ValueError("base_number and extension_digits: both or neither")
        if self.base_number is not None and not is_e164(self.base_number + "0" * self.extension_digits):
            raise ValueError(
                f"base_number: {self.base_number!r} with {self.extension_digits} digits behind it is not E.164"
            )

    @classmethod
    def for_country(cls, country: str) -> TrunkNotation:
        """What the country's own numbering plan writes; the plus is not left out. Raises `ValueError`."""
        international, national, bare = _plan(country)
        return cls(
            country=country,
            international_prefixes=(international,),
            national_prefix=national,
            without_national_prefix=bare,
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """The numbers that a text can mean, the readings that say most first."""

    numbers: tuple[str, ...]
    """E.164, or one SIP address; each once; 1 to `MAX_CANDIDATES`."""
    doubt: Refusal | None = None
    """What the numbering plan holds against every reading. It counts only where none is registered."""


def candidates(called: CalledText, notation: TrunkNotation) -> Candidates | Unreadable:
    """All that a called text can mean on a trunk. Where it can mean nothing, `Unreadable` says why."""
    if called.context is not None:
        inner = _in_context(called.context, notation)
        if inner is None:
            return unreadable(Refusal.CONTEXT, f"{called.text};phone-context={called.context}")
        notation = inner
    readings = [each for text in _texts(called.text, notation) for each in _readings(text, notation)]
    numbers = tuple(dict.fromkeys(number for number, _ in readings if number is not None))
    assert len(numbers) <= MAX_CANDIDATES
    doubts = [doubt for _, doubt in readings if doubt is not None]
    if not numbers:
        return unreadable(doubts[0], called.text)
    return Candidates(numbers, doubts[0] if len(doubts) == len(readings) else None)


def _check_prefixes(name: str, prefixes: tuple[str, ...], pattern: re.Pattern[str]) -> None:
    if len(prefixes) > MAX_PREFIXES or not all(pattern.fullmatch(each) for each in prefixes):
        raise ValueError(f"{name}: at most {MAX_PREFIXES} prefixes of {pattern.pattern}, not {prefixes!r}")
    if any(one != other and one.startswith(other) for one in prefixes for other in prefixes):
        raise ValueError(f"{name}: one must not begin with another: {prefixes!r}")


def is_e164(text: str) -> bool:
    """Whether a text is a number as the registry keeps it: ``+``, 7 to 15 digits, the first not 0."""
    return _E164.fullmatch(text) is not None


Reading = tuple[str | None, Refusal | None]
"""A number, or none; and what speaks against it."""


def _texts(text: str, notation: TrunkNotation) -> Iterator[str]:
    """Yield the text without its technical prefix, and as it is where that could be a number too."""
    for prefix in notation.technical_prefixes:
        if text.startswith(prefix) and len(text) > len(prefix):
            yield text[len(prefix) :]
    yield text


def _readings(text: str, notation: TrunkNotation) -> Iterator[Reading]:
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        yield None, Refusal.NAME
    elif text.startswith("+"):
        yield _shaped(text)
    else:
        readings = (*_international(text, notation), *_national(text, notation))
        yield from readings or ((None, _not_understood(text, notation)),)


def _international(text: str, notation: TrunkNotation) -> Iterator[Reading]:
    if notation.base_number is not None and len(text) == notation.extension_digits:
        yield _shaped(notation.base_number + text)
    for prefix in notation.international_prefixes:
        if text.startswith(prefix):
            yield _shaped(f"+{text[len(prefix) :]}")
    if notation.without_plus and not text.startswith("0"):
        yield _shaped(f"+{text}")


def _national(text: str, notation: TrunkNotation) -> Iterator[Reading]:
    """Read a national number by its plan, and literally from its digits behind the national prefix."""
    prefix = notation.national_prefix
    if notation.country is None:
        return
    literal = [text[len(prefix) :]] if prefix and text.startswith(prefix) else []
    if notation.without_national_prefix or not prefix:
        literal.append(text)
    if literal:
        yield from _by_plan(text, notation.country)
    code = phonenumbers.country_code_for_region(notation.country)
    for significant in literal:
        number, refusal = _shaped(f"+{code}{significant}")
        yield number, refusal or _objection(code, significant)


def _shaped(number: str) -> Reading:
    if is_e164(number):
        return number, None
    return None, Refusal.SHORT if len(number) < 8 else Refusal.LENGTH


def _not_understood(text: str, notation: TrunkNotation) -> Refusal:
    if len(text) < 7:
        return Refusal.SHORT
    if notation.country is None and text.startswith("0"):
        return Refusal.NO_COUNTRY
    return Refusal.NOTATION


def _by_plan(text: str, country: str) -> Iterator[Reading]:
    try:
        number = phonenumbers.parse(text, country, keep_raw_input=True)
    except NumberParseException:
        return
    if number.country_code_source != CountryCodeSource.FROM_DEFAULT_COUNTRY:
        # The library read an international number, which is not this reading.
        return
    assert number.country_code is not None
    significant = phonenumbers.national_significant_number(number)
    objection = _objection(number.country_code, significant)
    if objection is None:
        yield _shaped(phonenumbers.format_number(number, PhoneNumberFormat.E164))


def _objection(code: int, significant: str) -> Refusal | None:
    """What the plan of a country code holds against the length of a national number."""
    zeros = len(significant) - len(significant.lstrip("0"))
    number = phonenumbers.PhoneNumber(
        country_code=code,
        national_number=int(significant or "0"),
        italian_leading_zero=zeros > 0,
        number_of_leading_zeros=zeros or None,
    )
    match phonenumbers.is_possible_number_with_reason(number):
        case phonenumbers.ValidationResult.IS_POSSIBLE:
            return None
        case phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY:
            return Refusal.LOCAL
        case phonenumbers.ValidationResult.TOO_SHORT:
            return Refusal.SHORT
        case _:
            return Refusal.LENGTH


def _in_context(context: str, notation: TrunkNotation) -> TrunkNotation | None:
    """The notation that a phone-context asks for; None: it is none of the trunk's.

    Digits of a global number are not to be put before a local one (RFC 3966 5.1.5: "911" in "+1" is not "+1911"). A country
    code names the country whose national numbers are meant; anything longer would be a guess.
    """
    if not context.startswith("+"):
        return notation if context in notation.contexts else None
    code = context[1:]
    if not (code.isdigit() and len(code) <= 3):
        return None
    own = notation.country
    if own is not None and str(phonenumbers.country_code_for_region(own)) == code:
        country = own
    else:
        country = phonenumbers.region_code_for_country_code(int(code))
    return TrunkNotation.for_country(country) if country in phonenumbers.SUPPORTED_REGIONS else None


@lru_cache(maxsize=300)
def _plan(country: str) -> tuple[str, str, bool]:
    """International prefix, national prefix, and whether the plan writes some national numbers without it."""
    metadata = (
        PhoneMetadata.metadata_for_region(country) if country in phonenumbers.SUPPORTED_REGIONS else None
    )
    if metadata is None:
        raise ValueError(f"country: {country!r} is not an ISO 3166 region such as 'DE'")
    international = metadata.preferred_international_prefix or metadata.international_prefix or ""
    if not _DIGITS.fullmatch(international):
        # Several, one for each carrier: none of them is the trunk's.
        international = DEFAULT_INTERNATIONAL_PREFIX
    national = metadata.national_prefix or ""
    if not _DIGITS.fullmatch(national):
        return international, "", True
    bare = any(
        not re.sub(r"[^0-9]", "", phonenumbers.format_number(example, PhoneNumberFormat.NATIONAL)).startswith(
            national
        )
        for kind in phonenumbers.PhoneNumberType.values()
        if (example := phonenumbers.example_number_for_type(country, kind)) is not None
    )
    return international, national, bare
