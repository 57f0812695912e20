"""What is wrong with a tenant's configuration although every field by itself is right.

Errors keep a configuration from being used: a variable that would be read out in braces, a person's number that calls the
receptionist back. Warnings are for its author, who may have meant it: two services with one keyword, a promise without a
number behind it. Each has its field, its reason and, for a file, its line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from config.errors import Problem
from config.tenant import Embedded, TenantConfig
from config.variables import VariableError, fill_in, texts_with_variables
from config.yaml_tree import Document, FieldPath, field_name

MAX_WARNINGS: Final = 50
_PROMISE: Final = re.compile(
    r"(?i)\b(?:transfer(?:s|red)?|forward(?:s|ed)?|put(?:ting)? (?:you|them|the caller) through|"
    r"connect(?:s|ing)? (?:you|them|the caller)|(?:call|dial|ring) (?:this|the following|our emergency) (?:number|line))\b"
)
"""English words that promise a person or a number. Other languages are not looked at."""

Fault = tuple[FieldPath, str]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    """At most `MAX_WARNINGS`."""


def check_references(config: TenantConfig, document: Document | None = None) -> Findings:
    """Look at a configuration that follows the schema; ``document`` is the file that it came from."""
    written = Document("configuration", None, {}) if document is None else document

    def problems(faults: Iterable[Fault]) -> tuple[Problem, ...]:
        return tuple(Problem(written.place(path), field_name(path), text) for path, text in faults)

    errors = problems(itertools.chain(_variables(config), _loops(config)))
    warnings = problems(
        itertools.islice(
            itertools.chain(
                _promises(config), _repeated(config), _overlapping_hours(config), _unused_providers(config)
            ),
            MAX_WARNINGS,
        )
    )
    return Findings(errors, warnings)


def _variables(config: TenantConfig) -> Iterator[Fault]:
    for path, text, limit in texts_with_variables(config):
        try:
            fill_in(text, config, limit)
        except VariableError as error:
            yield path, str(error)


def _loops(config: TenantConfig) -> Iterator[Fault]:
    """Find numbers for people that lead back to the receptionist."""
    people = [(("human", "number"), config.human.number)]
    if config.emergency is not None:
        people.append((("emergency", "number"), config.emergency.number))
    for path, number in people:
        if number is not None and number in config.numbers:
            yield path, f"{number} is one of the tenant's own numbers: the receptionist would call herself"


def _promises(config: TenantConfig) -> Iterator[Fault]:
    emergency = config.emergency
    if emergency is None or emergency.number is not None:
        return
    promise = _PROMISE.search(emergency.instructions)
    if promise is not None:
        yield (
            ("emergency", "instructions"),
            f"{promise[0]!r} promises a person or a number, and emergency.number is not set",
        )


def _repeated(config: TenantConfig) -> Iterator[Fault]:
    """Find names, questions and keywords of which a caller's words would reach only the first."""
    services = [
        (("services", index), service.name, service.keywords) for index, service in enumerate(config.services)
    ]
    yield from _twice(((*path, "name"), name) for path, name, _ in services)
    yield from _twice(_keywords(services))
    entries = [(("faq", index), entry.question, entry.keywords) for index, entry in enumerate(config.faq)]
    yield from _twice(((*path, "question"), question) for path, question, _ in entries)
    yield from _twice(_keywords(entries))


def _keywords(entries: Iterable[tuple[FieldPath, str, tuple[str, ...]]]) -> Iterator[tuple[FieldPath, str]]:
    for path, _, keywords in entries:
        for index, keyword in enumerate(keywords):
            yield (*path, "keywords", index), keyword


def _twice(texts: Iterable[tuple[FieldPath, str]]) -> Iterator[Fault]:
    first: dict[str, FieldPath] = {}
    for path, text in texts:
        before = first.setdefault(text.casefold(), path)
        if before is not path:
            yield path, f"{text[:60]!r} stands at {field_name(before)} already, which callers will reach"


def _overlapping_hours(config: TenantConfig) -> Iterator[Fault]:
    for day, intervals in config.hours.items():
        ordered = sorted(enumerate(intervals), key=lambda each: each[1].opens)
        for (_, one), (index, other) in itertools.pairwise(ordered):
            if other.opens < one.closes:
                yield (
                    ("hours", str(day), index),
                    f"{other.opens:%H:%M} to {other.closes:%H:%M} overlaps {one.opens:%H:%M} to {one.closes:%H:%M}",
                )


def _unused_providers(config: TenantConfig) -> Iterator[Fault]:
    chains = (("stt", config.providers.stt), ("llm", config.providers.llm), ("tts", config.providers.tts))
    for service, chain in chains:
        for index, step in enumerate(chain):
            path = ("providers", service, index)
            if step in chain[:index]:
                yield path, "the same provider stands earlier in the chain"
            elif (
                not isinstance(step, Embedded)
                and not config.providers.use_platform
                and step.key is None
                and step.api_key_env is None
                and step.base_url is None
            ):
                yield path, "never asked: it names no key, and use_platform is false"
