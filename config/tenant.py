"""A tenant's configuration: who the business is, how it sounds, and who serves it.

The schema is strict: an unknown field, a wrong type or a value out of range is an error that names the
field. A parsed :class:`TenantConfig` is immutable; a call pins the version that it began with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import time
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from config.site_keys import MAX_ORIGINS, KeyFault, SiteKey, normal_origin

TENANT_SCHEMA_VERSION: Final = 1

MAX_TEXT_CHARACTERS: Final = 2_000
MAX_INSTRUCTIONS_CHARACTERS: Final = 20_000
MAX_USD: Final = 100_000.0
"""Of a price."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARACTERS)]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
TENANT_ID_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
TenantId = Annotated[str, StringConstraints(pattern=TENANT_ID_PATTERN)]
"""Lower-case letters, digits and inner hyphens, 1 to 63: safe in a file name and a metric label."""
E164 = Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{6,14}$")]
"""A telephone number as ITU-T E.164 writes it: ``+``, country code, number; at most 15 digits."""
TRUNK_ID_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$"
TrunkId = Annotated[str, StringConstraints(pattern=TRUNK_ID_PATTERN)]
"""Lower-case letters, digits and inner hyphens, 1 to 32."""
IMPLIED_TRUNK: Final = "any"
"""The trunk of a node that lists none."""
WEB_TRUNK: Final = "web"
"""The trunk of calls to a number from a browser, where the node lists trunks."""
_SIP_USER: Final = "[A-Za-z0-9._~!*'&=+$,/-]"
SipAddress = Annotated[
    str,
    StringConstraints(
        pattern=rf"^sip:{_SIP_USER}*[A-Za-z]{_SIP_USER}*@(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]{{2,45}}\])$",
        max_length=320,
    ),
]
"""``sip:user@host``: a user part with a letter in it, which no number has; the host in lower case; nothing behind it."""


def _known_time_zone(name: str) -> str:
    """Check that the IANA time zone database has ``name``."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone such as 'Europe/Berlin'") from error
    return name


def _site_key(text: str) -> str:
    """Check a site key and its checksum."""
    key = SiteKey.parse(text)
    if isinstance(key, KeyFault):
        raise ValueError(f"not a site key as the server makes them: {key}")
    return text


def _origin(text: str) -> str:
    """Check and normalise a web page's origin."""
    origin = normal_origin(text)
    if origin is None:
        raise ValueError(f"{text[:60]!r} is not an origin such as 'https://www.example.com'")
    return origin


TimeZone = Annotated[str, AfterValidator(_known_time_zone)]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(?:/[^\s?#@]*)?$", max_length=2_000)]
"""An API root. No user or password in it: URLs reach logs."""
EnvironmentVariable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
_PASTED_KEY: Final = re.compile(r"(?:sk|pk|rk|gsk|xai)-.{8,}|.*[0-9a-f]{32}.*")


def _no_key_itself(name: str) -> str:
    """Refuse what looks like a key where its name belongs, without repeating it."""
    if _PASTED_KEY.fullmatch(name):
        raise ValueError(
            "this looks like a key; a configuration has its name, and `mediaserver keys put TENANT NAME` keeps the key"
        )
    return name


KeyName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"),
    AfterValidator(_no_key_itself),
]
"""The name of a key in the tenant's vault: lower-case letters and digits, with ``.``, ``_`` and ``-`` inside, 1 to 64."""
_CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?")


def _time_of_day(value: object) -> time:
    """Take ``HH:MM`` only: pydantic would read the number 9 as nine seconds past midnight."""
    if isinstance(value, time) and value.tzinfo is None:
        return value
    if isinstance(value, str) and _CLOCK.fullmatch(value.strip()):
        return time.fromisoformat(value.strip())
    raise ValueError(f"{value!r} is not a time of day as '08:30' (00:00 to 23:59, local)")


TimeOfDay = Annotated[
    time,
    BeforeValidator(_time_of_day),
    WithJsonSchema({"type": "string", "pattern": rf"^{_CLOCK.pattern}$", "examples": ["08:30"]}),
]


class StrictModel(BaseModel):
    """The base of every configuration model: frozen, nothing unknown, nothing coerced silently."""

    model_config = ConfigDict(
        frozen=True,
        # Written as JSON they would be null, which cannot be read again.
        allow_inf_nan=False,
        extra="forbid",
        str_strip_whitespace=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Weekday(StrEnum):
    """Days as the configuration spells them."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class OpeningInterval(StrictModel):
    """One stretch of opening time within a day, local to the tenant's time zone."""

    opens: TimeOfDay
    """24 hours, ``HH:MM``."""
    closes: TimeOfDay
    """Later on the same day; ``23:59`` stands for midnight."""

    @model_validator(mode="after")
    def _in_order(self) -> OpeningInterval:
        if self.opens >= self.closes:
            raise ValueError(f"opens {self.opens:%H:%M} must be before closes {self.closes:%H:%M}")
        return self


class Service(StrictModel):
    """Something that the business does and a caller may ask about."""

    name: ShortText
    """What callers call it."""
    description: Text
    """One or two sentences, as they are said."""
    price: ShortText | None = None
    """As it is said, for example ``from 180 dollars``."""
    keywords: tuple[ShortText, ...] = Field(default=(), max_length=50)
    """Words of a caller that mean this service."""


class FaqEntry(StrictModel):
    """A question that callers ask and its answer, word for word."""

    question: Text
    answer: Text
    """May have variables such as ``{address}``."""
    keywords: tuple[ShortText, ...] = Field(default=(), max_length=50)
    """Words of a caller that mean this question."""


class HumanContact(StrictModel):
    """The person that a caller is offered when the receptionist cannot help."""

    name: ShortText
    number: E164 | None = None
    """Told to callers who ask for it."""


class Emergency(StrictModel):
    """What counts as an emergency for this business and what the caller is told then."""

    keywords: tuple[ShortText, ...] = Field(min_length=1, max_length=50)
    """Words of a caller that mean an emergency."""
    instructions: Text
    """Said whole and first. May have variables such as ``{emergency_number}``."""
    number: E164 | None = None
    """Told after the instructions, unless they contain it."""


class Voice(StrictModel):
    """How the receptionist speaks."""

    name: ShortText = "joe"
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    """1.0 is the voice's own speed."""


class Keyed(StrictModel):
    """A provider that may need a key: in the tenant's vault, or in the node's environment."""

    key: KeyName | None = Field(default=None, exclude_if=lambda name: name is None)
    """The name of the key in the tenant's vault (``mediaserver keys put``). The key itself never stands in a configuration."""
    api_key_env: EnvironmentVariable | None = None
    """The environment variable of the node that holds the key, where it is not in the vault."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key is not None and self.api_key_env is not None:
            raise ValueError(
                "key and api_key_env name two keys for one provider; keep one: key for a key in the tenant's vault, "
                "api_key_env for a variable of the node's environment"
            )
        return self


class Price(StrictModel):
    """What a provider charges, in US dollars.

    What is left out is not charged for. A call that uses a provider without any price has a cost that nobody knows.
    """

    usd_per_million_input_tokens: float | None = Field(default=None, ge=0.0, le=MAX_USD)
    """Of a language model."""
    usd_per_million_cached_input_tokens: float | None = Field(default=None, ge=0.0, le=MAX_USD)
    """Those of the input that it had kept from before; unset: as the others."""
    usd_per_million_output_tokens: float | None = Field(default=None, ge=0.0, le=MAX_USD)
    usd_per_minute: float | None = Field(default=None, ge=0.0, le=MAX_USD)
    """Of audio that is transcribed or spoken."""
    usd_per_million_characters: float | None = Field(default=None, ge=0.0, le=MAX_USD)
    """Of text that is spoken."""


class Priced(StrictModel):
    """A provider that may say what it charges."""

    price: Price | None = Field(default=None, exclude_if=lambda price: price is None)
    """What it charges, for the cost of calls; unset: unknown."""


def check_prices(**chains: Sequence[object]) -> None:
    """See that each price says what its service is charged by. Raises `ValueError`, which names the field."""
    for service, chain in chains.items():
        for index, step in enumerate(chain):
            price = step.price if isinstance(step, Priced) else None
            if price is None:
                continue
            stated = {name for name, value in price if value is not None}
            needed, allowed, told = _CHARGED_BY[service]
            if not needed <= stated or not stated or not stated <= allowed:
                raise ValueError(f"{service}.{index}.price: {told}")


_CHARGED_BY: Final = MappingProxyType(
    {
        "stt": (
            frozenset({"usd_per_minute"}),
            frozenset({"usd_per_minute"}),
            "transcription is charged by usd_per_minute",
        ),
        "llm": (
            frozenset({"usd_per_million_input_tokens", "usd_per_million_output_tokens"}),
            frozenset(
                {
                    "usd_per_million_input_tokens",
                    "usd_per_million_cached_input_tokens",
                    "usd_per_million_output_tokens",
                }
            ),
            "a language model is charged by usd_per_million_input_tokens and usd_per_million_output_tokens (and"
            " usd_per_million_cached_input_tokens)",
        ),
        "tts": (
            frozenset[str](),
            frozenset({"usd_per_million_characters", "usd_per_minute"}),
            "speech is charged by usd_per_million_characters or usd_per_minute",
        ),
    }
)


class OpenAICompatible(Keyed, Priced):
    """A provider behind an OpenAI-compatible HTTP API."""

    kind: Literal["openai"] = "openai"
    base_url: HttpUrl | None = None
    """The API's root, for example ``https://api.openai.com/v1``; unset: OpenAI's, or with the platform's key the
    platform's."""
    model: ShortText
    """The provider's name of the model."""


class Deepgram(Keyed, Priced):
    """Live transcription by Deepgram, or by a server with the same interface: it listens while the caller speaks.

    Without a key: with a ``base_url`` none is sent, otherwise the platform's ``DEEPGRAM_API_KEY``.
    """

    kind: Literal["deepgram"] = "deepgram"
    base_url: HttpUrl | None = None
    """The API's root; unset: ``https://api.deepgram.com/v1``."""
    model: ShortText = "nova-3"


class Embedded(StrictModel):
    """The models of this machine: the model process for speech, the built-in receptionist for replies."""

    kind: Literal["embedded"] = "embedded"


Provider = Annotated[OpenAICompatible | Embedded, Field(discriminator="kind")]
Listener = Annotated[OpenAICompatible | Deepgram | Embedded, Field(discriminator="kind")]
"""Who can transcribe."""


class Providers(StrictModel):
    """Provider chains, best first. The next is used when one fails or exceeds its budget.

    After a tenant's own providers come the platform's, then the embedded ones, whether named here or not.
    """

    stt: tuple[Listener, ...] = Field(default=(Embedded(),), min_length=1, max_length=4)
    """Speech to text."""
    llm: tuple[Provider, ...] = Field(default=(Embedded(),), min_length=1, max_length=4)
    """Replies."""
    tts: tuple[Provider, ...] = Field(default=(Embedded(),), min_length=1, max_length=4)
    """Text to speech."""
    use_platform: bool = True
    """False: the platform's providers are not asked, for a business whose callers' words may not leave."""

    @model_validator(mode="after")
    def _charged_by_what_they_do(self) -> Providers:
        check_prices(stt=self.stt, llm=self.llm, tts=self.tts)
        return self


class TurnTaking(StrictModel):
    """When the caller is taken to have finished, in milliseconds."""

    speech_start_ms: int = Field(default=96, ge=32, le=1_000)
    """Speech needed before it counts as the caller speaking."""
    speech_stop_ms: int = Field(default=200, ge=64, le=2_000)
    """Silence after which the utterance goes to transcription."""
    pause_ms: int = Field(default=20, ge=0, le=500)
    """Silence within speech after which what was said so far is transcribed and the answer to it begun, unheard until the
    turn is over. 0: not before the end of the utterance. Less is faster, and costs more requests for nothing."""
    complete_wait_ms: int = Field(default=300, ge=50, le=5_000)
    """Silence, from the last speech, after which words that leave no doubt are answered ("When are you open?")."""
    end_of_turn_ms: int = Field(default=450, ge=100, le=5_000)
    """Silence after which the receptionist answers where the words leave doubt."""
    unfinished_wait_ms: int = Field(default=1_200, ge=100, le=10_000)
    """Silence after which words that ask for more ("my number is") are answered all the same."""
    speculation: bool = True
    """Begin the answer in the pause. False saves the requests of the answers that are thrown away."""
    turn_model: Literal["auto", "off"] = "auto"
    """Ask the turn model where the words leave doubt; it is left out when the machine has no time for it."""
    barge_in_ms: int = Field(default=700, ge=200, le=5_000)
    """Sound of the caller that stops the receptionist before any word of it is known; words that ask for something do at
    once."""
    barge_in_decision_ms: int = Field(default=500, ge=200, le=2_000)
    """How long she stays silent after a short sound for its words to come; without any she goes on."""
    vad_threshold: float = Field(default=0.5, ge=0.05, le=0.95)
    """How sure the detector must be that it hears speech; higher for callers with noise around them."""
    preroll_ms: int = Field(default=300, ge=0, le=1_000)
    """Audio from before the start of speech that goes to transcription with it: soft first sounds are in there."""
    silence_prompt_ms: int = Field(default=15_000, ge=1_000, le=120_000)
    """Silence of the caller after which the receptionist asks whether anybody is there, and after as much again hangs
    up."""
    max_call_s: int = Field(default=3_600, ge=60, le=3_600)
    """The longest that a call may take, in seconds; a goodbye is said some seconds before."""

    @model_validator(mode="after")
    def _stop_before_end(self) -> TurnTaking:
        if self.speech_stop_ms > self.end_of_turn_ms:
            raise ValueError(
                f"speech_stop_ms ({self.speech_stop_ms}) must not exceed "
                f"end_of_turn_ms ({self.end_of_turn_ms})"
            )
        return self


class WebSite(StrictModel):
    """A key that web pages name to reach this tenant, and the pages that may."""

    key: Annotated[str, AfterValidator(_site_key)]
    """``site_`` and 32 characters, as ``python -m config.site_keys`` makes one. It stands in the page and is no secret."""
    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(min_length=1, max_length=MAX_ORIGINS)
    """Scheme, host and port of the pages, for example ``https://www.example.com``; no other page may use the key."""


def _no_boolean(value: object) -> object:
    """Refuse ``true``, which Python takes for 1."""
    if isinstance(value, bool):
        raise ValueError("a version is a number")
    return value


class TenantConfig(StrictModel):
    """Everything that one business decides about its receptionist."""

    schema_version: Annotated[Literal[1], BeforeValidator(_no_boolean)] = TENANT_SCHEMA_VERSION
    """The version of this schema."""
    tenant_id: TenantId
    """Lower-case letters, digits and inner hyphens, 1 to 63. It never changes."""
    business_name: ShortText
    """As callers know it."""
    business_kind: ShortText
    """For example ``dental clinic``."""
    numbers: tuple[E164, ...] = Field(min_length=1, max_length=100)
    """The called numbers that reach this tenant."""
    sip_addresses: tuple[SipAddress, ...] = Field(default=(), max_length=100)
    """SIP URIs that are no numbers and reach this tenant, for example ``sip:front.desk@example.com``."""
    trunks: tuple[TrunkId, ...] = Field(default=(IMPLIED_TRUNK,), max_length=100)
    """The node's trunks on which its numbers and SIP addresses are reached, and on no others. ``any``: where the node lists
    no trunks. ``web``: from a browser, where it does."""
    site_keys: tuple[WebSite, ...] = Field(default=(), max_length=20)
    """Keys under which web pages reach this tenant; no trunk is needed for them."""
    time_zone: TimeZone
    """IANA time zone, for example ``Europe/Berlin``."""
    greeting: Text
    """What callers hear first. May have variables such as ``{business_name}``."""
    address: Text
    """As it is said."""
    directions: Text | None = None
    """How to get there, as it is said."""
    hours: dict[Weekday, Annotated[tuple[OpeningInterval, ...], Field(max_length=12)]]
    """Opening intervals per weekday; a day that is absent or empty is closed."""
    services: tuple[Service, ...] = Field(default=(), max_length=100)
    """What callers may ask about."""
    faq: tuple[FaqEntry, ...] = Field(default=(), max_length=200)
    """Questions that callers ask."""
    human: HumanContact
    emergency: Emergency | None = None
    """Absent: the receptionist refers people in danger to the emergency services."""
    voice: Voice = Voice()
    providers: Providers = Providers()
    instructions: Annotated[str, StringConstraints(max_length=MAX_INSTRUCTIONS_CHARACTERS)] = ""
    """Added to the system prompt where an LLM speaks. May have variables such as ``{human_name}``."""
    turn_taking: TurnTaking = TurnTaking()
    max_concurrent_calls: int = Field(default=10, ge=1, le=10_000)
    """Calls at a time; a further caller is told that the line is busy."""

    @field_validator("numbers", "sip_addresses", "trunks")
    @classmethod
    def _once(cls, each: tuple[str, ...]) -> tuple[str, ...]:
        for index, text in enumerate(each):
            if text in each[:index]:
                raise ValueError(f"each may stand there once; {text} stands there twice")
        return each

    @field_validator("site_keys")
    @classmethod
    def _keys_once(cls, sites: tuple[WebSite, ...]) -> tuple[WebSite, ...]:
        if len({site.key for site in sites}) != len(sites):
            raise ValueError("each key may stand there once")
        return sites
