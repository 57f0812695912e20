"""What must not be in a log: keys, tokens and credentials, by their form and by their value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

HIDDEN: Final = "[redacted]"
MIN_SECRET_CHARACTERS: Final = 8
"""Shorter values are words that would be hidden wherever they stand."""
MAX_SECRETS: Final = 100_000
MAX_SEARCHED: Final = 16_384
"""Characters of one text that are looked through; what comes after is cut off."""
PLAIN_VARIABLES: Final = frozenset({"OPENAI_BASE_URL", "OPENAI_MODEL"})
"""Read from the environment like keys, and none."""

FORMS: Final = (
    # Keys of OpenAI and of the many services that write theirs alike.
    re.compile(r"\b(?:sk|pk|rk|gsk|xai)-[A-Za-z0-9_-]{8,}"),
    # API tokens of the admin API (`admin.tokens`).
    re.compile(r"mst_[0-9a-z]{13}_[0-9A-Za-z]+"),
    # Credentials of HTTP (RFC 9110 11.4) and of SIP's digest (RFC 3261 22), whole lines.
    re.compile(r"(?i)(?<=authorization)[\"']?\s*[:=][^\r\n]*"),
    re.compile(r"(?i)(?<=bearer)\s+[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(?i)\bdigest\s+[a-z]+\s*=[^\r\n]*"),
    # Master keys of SDES (RFC 4568 9.2).
    re.compile(r"(?i)(?<=inline:)[A-Za-z0-9+/=|:]+"),
    # The softphone's sessions, whose token is part of the path.
    re.compile(r"(?<=/sessions/)[A-Za-z0-9_-]{8,}"),
    # JSON Web Tokens (RFC 7519), user and password in a URL, and values by their name.
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    re.compile(r"(?<=://)[^/\s@:]+:[^/\s@]+(?=@)"),
    re.compile(
        r"(?i)\b(?:api[_-]?key|access[_-]?key|(?:access|refresh|session|auth)?[_-]?token|password|passwd|secret)"
        r"[\"']?\s*[=:]\s*[\"']?[^\s\"'&,;})\]]+"
    ),
)


class Redactor:
    """Hides secrets in texts. A value that was registered is hidden wherever it stands."""

    def __init__(self) -> None:
        self._count = 0
        self._by_start: dict[str, dict[int, set[str]]] = {}
        """Secrets by their first `MIN_SECRET_CHARACTERS`, then by length, the longest first: one that begins with another
        must not leave its rest. A search costs the text's length, however many tenants' keys there are."""

    def register(self, secret: str | None) -> None:
        """Never let this value through from now on."""
        text = (secret or "").strip()
        if len(text) < MIN_SECRET_CHARACTERS or self._count >= MAX_SECRETS:
            return
        start = text[:MIN_SECRET_CHARACTERS]
        alike = self._by_start.get(start, {})
        if text in alike.get(len(text), ()):
            return
        self._count += 1
        if len(text) not in alike:
            lengths = sorted((*alike, len(text)), reverse=True)
            alike = self._by_start[start] = {length: alike.get(length, set()) for length in lengths}
        alike[len(text)].add(text)

    def watching(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """The environment, each of whose values is registered when it is read."""
        return _WatchedEnvironment(environ, self)

    def __call__(self, text: str) -> str:
        """The text without what must not be read."""
        # Half of a surrogate pair, as in a file's odd name, can be written nowhere.
        text = text[:MAX_SEARCHED].encode("utf-8", "replace").decode()
        if self._by_start:
            text = self._without_values(text)
        for form in FORMS:
            text = form.sub(f" {HIDDEN}" if form.pattern.startswith("(?i)(?<=") else HIDDEN, text)
        return text

    def _without_values(self, text: str) -> str:
        passed: list[str] = []
        kept_to = at = 0
        while at <= len(text) - MIN_SECRET_CHARACTERS:
            alike = self._by_start.get(text[at : at + MIN_SECRET_CHARACTERS])
            length = alike and next((each for each in alike if text[at : at + each] in alike[each]), None)
            if not length:
                at += 1
                continue
            passed += (text[kept_to:at], HIDDEN)
            kept_to = at = at + length
        return "".join((*passed, text[kept_to:]))


class _WatchedEnvironment(Mapping[str, str]):
    """Keys are read from it for every call, so that one which is set later is known as well."""

    def __init__(self, environ: Mapping[str, str], redactor: Redactor) -> None:
        self._environ = environ
        self._redactor = redactor

    def __getitem__(self, name: str) -> str:
        value = self._environ[name]
        if name not in PLAIN_VARIABLES:
            self._redactor.register(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)
