"""What differs between two configurations, field by field, as people compare them.

Entries of lists are the same where they have one name or question, so an entry that was put in first is one line and not
a change of all. Values that may be secret are never shown: those of fields whose name says so, and what looks like a key
or a password wherever it stands. Everything is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

MAX_CHANGES: Final = 500
MAX_SHOWN_CHARACTERS: Final = 160
MAX_LABEL_CHARACTERS: Final = 60
MAX_DEPTH: Final = 32
HIDDEN: Final = "(hidden)"
_IDENTITIES: Final = ("name", "question")
_ABSENT: Final = object()
_SECRET_WORDS: Final = frozenset({"key", "keys", "secret", "token", "password", "credential", "credentials"})
_SECRETS: Final = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai)-[A-Za-z0-9_-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"
    r"|(?<=://)[^/\s@]+(?=@)"
    r"|(?i:\b(?:api[_-]?key|token|password|secret)\s*[=:]\s*\S+)"
)
"""Keys of providers, JSON Web Tokens, user and password in a URL, values by their name."""


class ChangeKind(StrEnum):
    """What happened to a field."""

    ADDED = "+"
    REMOVED = "-"
    CHANGED = "~"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; the values are texts to show, shortened and without secrets."""

    kind: ChangeKind
    field: str
    """The path from the root, for example ``services["crown"].price`` or ``numbers``."""
    old: str | None
    new: str | None

    def __str__(self) -> str:
        match self.kind:
            case ChangeKind.ADDED:
                return f"+ {self.field}: {self.new}"
            case ChangeKind.REMOVED:
                return f"- {self.field}: {self.old}"
            case ChangeKind.CHANGED:
                return f"~ {self.field}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Differences:
    """The first `MAX_CHANGES` differences."""

    changes: tuple[Change, ...]
    cut_off: bool
    """There are more."""

    def lines(self) -> tuple[str, ...]:
        """One line each; the last says where more were left out."""
        more = (f"only the first {MAX_CHANGES} differences are shown",) if self.cut_off else ()
        return (*(str(change) for change in self.changes), *more)


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> Differences:
    """Compare two documents, such as ``model_dump(mode="json")`` gives."""
    found = tuple(islice(_compared("", "", old, new, 0), MAX_CHANGES + 1))
    return Differences(found[:MAX_CHANGES], len(found) > MAX_CHANGES)


def _compared(field: str, name: str, old: object, new: object, depth: int) -> Iterator[Change]:
    if old is not _ABSENT and new is not _ABSENT and _canonical(old) == _canonical(new):
        return
    if old is _ABSENT or new is _ABSENT:
        kind = ChangeKind.ADDED if old is _ABSENT else ChangeKind.REMOVED
        yield Change(kind, field, _shown(old, name), _shown(new, name))
    elif depth < MAX_DEPTH and not _is_secret(name) and isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            label = _shortened(_without_secrets(_plain(key)), MAX_LABEL_CHARACTERS)
            inner = f"{field}.{label}" if field else label
            yield from _compared(inner, str(key), old.get(key, _ABSENT), new.get(key, _ABSENT), depth + 1)
    elif depth < MAX_DEPTH and not _is_secret(name) and isinstance(old, list) and isinstance(new, list):
        yield from _compared_lists(field, name, old, new, depth)
    else:
        yield Change(ChangeKind.CHANGED, field, _shown(old, name), _shown(new, name))


def _compared_lists(
    field: str, name: str, old: list[object], new: list[object], depth: int
) -> Iterator[Change]:
    keyed_old, keyed_new = _keyed(old), _keyed(new)
    if keyed_old is not None and keyed_new is not None:
        for key in dict.fromkeys((*keyed_old, *keyed_new)):
            one, other = keyed_old.get(key, _ABSENT), keyed_new.get(key, _ABSENT)
            label = _shortened(_without_secrets(_json(key)), MAX_LABEL_CHARACTERS)
            yield from _compared(f"{field}[{label}]", name, one, other, depth + 1)
        kept_old = [key for key in keyed_old if key in keyed_new]
        kept_new = [key for key in keyed_new if key in keyed_old]
        if kept_old != kept_new:
            yield Change(ChangeKind.CHANGED, field, "(order)", "(another order)")
        return
    for index in range(max(len(old), len(new))):
        one = old[index] if index < len(old) else _ABSENT
        other = new[index] if index < len(new) else _ABSENT
        yield from _compared(f"{field}[{index}]", name, one, other, depth + 1)


def _keyed(items: list[object]) -> dict[str, object] | None:
    """Return entries by what they are called, and texts by themselves; None where that is not unique."""
    keyed: dict[str, object] = {}
    for item in items:
        key = item
        if isinstance(item, Mapping):
            key = next((item[each] for each in _IDENTITIES if each in item), None)
        if not isinstance(key, str) or key in keyed:
            return None
        keyed[key] = item
    return keyed


def _shown(value: object, name: str) -> str | None:
    if value is _ABSENT:
        return None
    if _is_secret(name) and value is not None:
        return HIDDEN
    text = _without_secrets(_json(_without_secret_fields(value, 0)))
    shown = _shortened(text, MAX_SHOWN_CHARACTERS)
    return shown if shown == text else f"{shown} ({len(text)} characters)"


def _without_secret_fields(value: object, depth: int) -> object:
    if depth > MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {
            str(key): HIDDEN
            if _is_secret(str(key)) and inner is not None
            else _without_secret_fields(inner, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_secret_fields(inner, depth + 1) for inner in value]
    return value


def _is_secret(name: str) -> bool:
    return not _SECRET_WORDS.isdisjoint(re.split(r"[_\W]+", name.lower()))


def _without_secrets(text: str) -> str:
    return _SECRETS.sub(HIDDEN, text)


def _canonical(value: object) -> str:
    """Tell apart what Python calls equal: 1, 1.0 and true."""
    return json.dumps(value, sort_keys=True, default=str)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _json(value: object) -> str:
    return _plain(json.dumps(value, ensure_ascii=False, default=str))


def _plain(text: object) -> str:
    """Write a text without what moves a terminal's cursor or turns its writing round."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in str(text))
