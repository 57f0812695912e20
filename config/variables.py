"""Variables in a tenant's texts: ``{business_name}`` stands for the business's name.

The syntax is strict: braces around one of `VARIABLES` and nothing else; ``{{`` and ``}}`` write a brace. They may stand in the
greeting, the instructions, the answers to questions and the emergency's instructions. Values come from the same configuration,
so that a text cannot go stale beside a number that changed, and never from a call: what a caller says is no variable.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from config.tenant import MAX_INSTRUCTIONS_CHARACTERS, MAX_TEXT_CHARACTERS, TenantConfig
from config.yaml_tree import FieldPath

VARIABLES: Final[Mapping[str, Callable[[TenantConfig], str | None]]] = MappingProxyType(
    {
        "address": lambda config: config.address,
        "business_kind": lambda config: config.business_kind,
        "business_name": lambda config: config.business_name,
        "directions": lambda config: config.directions,
        "emergency_number": lambda config: None if config.emergency is None else config.emergency.number,
        "human_name": lambda config: config.human.name,
        "human_number": lambda config: config.human.number,
        "number": lambda config: config.numbers[0],
    }
)
"""The names, and where their values stand. None: the configuration has no such value."""
_SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "directions": "directions",
        "emergency_number": "emergency.number",
        "human_number": "human.number",
    }
)
"""The fields of those that may have no value."""


class VariableError(ValueError):
    """A text's variables cannot be filled in; the text says why and what is allowed."""


def texts_with_variables(config: TenantConfig) -> Iterator[tuple[FieldPath, str, int]]:
    """Yield each text that may have variables: its path, itself, and how long it may be with their values."""
    yield ("greeting",), config.greeting, MAX_TEXT_CHARACTERS
    yield ("instructions",), config.instructions, MAX_INSTRUCTIONS_CHARACTERS
    for index, entry in enumerate(config.faq):
        yield ("faq", index, "answer"), entry.answer, MAX_TEXT_CHARACTERS
    if config.emergency is not None:
        yield ("emergency", "instructions"), config.emergency.instructions, MAX_TEXT_CHARACTERS


def fill_in(text: str, config: TenantConfig, limit: int) -> str:
    """A text with its variables' values, at most ``limit`` characters. Raises `VariableError`."""
    parts: list[str] = []
    length = 0
    for part in _parts(text, config):
        parts.append(part)
        length += len(part)
        if length > limit:
            raise VariableError(f"longer than {limit} characters once its variables are filled in")
    return "".join(parts)


def filled_in(config: TenantConfig) -> TenantConfig:
    """The configuration as a call has it: no variable is left in its texts. Raises `VariableError`."""
    texts = {path: fill_in(text, config, limit) for path, text, limit in texts_with_variables(config)}
    faq = tuple(
        entry.model_copy(update={"answer": texts["faq", index, "answer"]})
        for index, entry in enumerate(config.faq)
    )
    emergency = config.emergency
    if emergency is not None:
        emergency = emergency.model_copy(update={"instructions": texts["emergency", "instructions"]})
    return config.model_copy(
        update={
            "greeting": texts["greeting",],
            "instructions": texts["instructions",],
            "faq": faq,
            "emergency": emergency,
        }
    )


def _parts(text: str, config: TenantConfig) -> Iterator[str]:
    if "{" not in text and "}" not in text:
        yield text
        return
    try:
        for literal, name, form, conversion in string.Formatter().parse(text):
            yield literal
            if name is not None:
                yield _value(name, form, conversion, config)
    except VariableError:
        raise
    except ValueError as error:
        raise VariableError(
            "a brace without its other one; write {{ or }} for a brace that is none of a variable"
        ) from error


def _value(name: str, form: str | None, conversion: str | None, config: TenantConfig) -> str:
    if form or conversion or name not in VARIABLES:
        written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        shown = written if len(written) <= 40 else f"{written[:40]}..."
        raise VariableError(
            f"{'{' + shown + '}'!r} is no variable; allowed: {', '.join('{' + each + '}' for each in VARIABLES)}"
            " ({{ and }} write a brace)"
        )
    value = VARIABLES[name](config)
    if value is None:
        raise VariableError(f"{{{name}}} has no value here: {_SOURCES[name]} is not set")
    return value
