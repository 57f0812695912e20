"""What the receptionist can say about one tenant, topic by topic. Every fact in it is configured."""

from __future__ import annotations

import re
from datetime import datetime

from config.tenant import FaqEntry, Service, TenantConfig
from mediaserver.receptionist.hours import Asked, HoursQuestion, OpeningHours, hours_question
from mediaserver.receptionist.numbers import cardinal, speak_number
from mediaserver.receptionist.speakable import (
    MAX_WORDS,
    as_sentence,
    join_words,
    shorten,
    speak_address,
    speakable,
)

MAX_TENANT_WORDS = 60
"""A tenant's own answer may be longer than ours, up to here, in whole sentences."""
MAX_LISTED = 6
_HOLIDAY = re.compile(
    r"\b(holidays?|christmas|easter|thanksgiving|new years?|memorial day|labor day|fourth of july)\b"
)
_FREE = re.compile(r"^(free|no charge|no cost|included|complimentary|gratis)\b", re.IGNORECASE)
_PRICE_VERB = re.compile(r"^(varies|depends)\b", re.IGNORECASE)
_PRICE_PHRASE = re.compile(
    r"^([\d$€£]|(from|about|around|between|starting|up|only|on|by|upon|under|per)\b)", re.IGNORECASE
)


class Answers:
    """Answers in the words of a voice, for one tenant."""

    def __init__(self, config: TenantConfig) -> None:
        self._config = config
        self._hours = OpeningHours.of(config)
        self.business = speakable(config.business_name)
        self.person = speakable(config.human.name)

    def hours(self, text: str, now: datetime) -> str:
        """Opening hours as asked for."""
        question = hours_question(text, self._hours.today(now))
        answer = self._hours.answer(question, now)
        if _HOLIDAY.search(text):
            return f"I don't have holiday hours. {self._hours.answer(HoursQuestion(Asked.WEEK), now)}"
        return answer

    def address(self) -> str:
        """Where the business is."""
        return f"We're at {speak_address(self._config.address)}."

    def directions(self) -> str:
        """How to get there."""
        if self._config.directions:
            return shorten(speakable(self._config.directions), MAX_TENANT_WORDS)
        return f"I don't have directions, but we're at {speak_address(self._config.address)}."

    def services(self) -> str:
        """What the business does, by name."""
        names = [speakable(service.name) for service in self._config.services]
        if not names:
            return "I don't have a list of services here."
        if len(names) > MAX_LISTED:
            rest = cardinal(len(names) - MAX_LISTED + 1)
            listed = ", ".join(names[: MAX_LISTED - 1])
            return f"We offer {listed}, and {rest} more. Which one are you interested in?"
        return f"We offer {join_words(names)}."

    def service(self, service: Service) -> str:
        """One service: what it is, and its price where there is one."""
        price = self._price(service)
        room = MAX_WORDS - len(price.split())
        described = shorten(speakable(service.description), max(room, 12))
        name = speakable(service.name)
        lead = "" if name.lower() in described.lower() else f"{as_sentence(_capital(name))} "
        return f"{lead}{_capital(described)} {price}".strip()

    def price(self, service: Service | None) -> str:
        """The price of a service, or which prices there are; empty when the configuration has none."""
        if service is not None:
            price = self._price(service)
            return f"For {speakable(service.name)}, {price[0].lower()}{price[1:]}" if price else ""
        priced = [speakable(service.name) for service in self._config.services if service.price]
        if not priced:
            return ""
        return f"That depends on the service. I have prices for {join_words(priced[:MAX_LISTED])}. Which one?"

    def faq(self, entry: FaqEntry) -> str:
        """The tenant's own answer."""
        return shorten(speakable(entry.answer), MAX_TENANT_WORDS)

    def emergency(self) -> str:
        """The tenant's instructions, whole, then the number unless they contain it."""
        emergency = self._config.emergency
        if emergency is None:
            return (
                "If anyone is in danger, please hang up and call the emergency services. "
                f"Otherwise I can take an urgent message for {self.person}. Shall I?"
            )
        said = as_sentence(speakable(emergency.instructions))
        number = speak_number(emergency.number) if emergency.number else ""
        if not number or number in said:
            return said
        return f"{said} The emergency number is {number}."

    def person_number(self) -> str:
        """The direct number of the configured person, if the tenant gives it out."""
        number = self._config.human.number
        return f"The number for {self.person} is {speak_number(number)}." if number else ""

    def identity(self) -> str:
        """Honest about being a machine."""
        return (
            f"I'm the automated receptionist of {self.business}, not a person. "
            "I can answer questions or take a message."
        )

    def capabilities(self) -> str:
        """What callers may ask."""
        return (
            "I can tell you our opening hours, address and services, answer common questions, "
            f"or take a message for {self.person}."
        )

    def _price(self, service: Service) -> str:
        if service.price is None:
            return ""
        price = speakable(service.price).rstrip(".")
        if _FREE.match(price):
            return "It's free of charge."
        price = price[0].lower() + price[1:]
        if _PRICE_VERB.match(price):
            return f"The price {price}."
        if _PRICE_PHRASE.match(service.price):
            return f"The price is {price}."
        return f"The price is as follows: {price}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
