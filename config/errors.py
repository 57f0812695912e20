"""What loading a configuration can raise.

ConfigError
├── UnreadableConfigError     the file is absent, not readable, or not UTF-8
├── OversizedConfigError      larger than the limit
├── ConfigSyntaxError         not YAML, more than one document, or a tag outside the core schema
├── ConfigComplexityError     nested too deeply, too many values, or aliases that expand without end
├── DuplicateKeyError         a mapping names one key twice
├── InvalidConfigError        YAML, but not this schema: every problem with file, line and field
│   ├── NewerSchemaError      of a later schema version than this program knows
│   └── UpgradeError          of an earlier one, and not what that version is
└── EnvironmentOverrideError  an environment variable that overrides a field holds a wrong value
"""

from __future__ import annotations

from dataclasses import dataclass


class ConfigError(Exception):
    """A configuration cannot be used; the text is for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file; lines and columns count from 1, as editors do."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [self.file, *(str(number) for number in (self.line, self.column) if number is not None)]
        return ":".join(parts)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, in which field, and what would be right."""

    place: Place
    field: str
    """The path from the root, for example ``services[2].price``; empty for the whole document."""
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.field}: {self.text}" if self.field else f"{self.place}: {self.text}"


class UnreadableConfigError(ConfigError):
    """The file is absent, not readable, or not UTF-8."""


class OversizedConfigError(ConfigError):
    """The file is larger than a configuration may be."""


class _OneProblemError(ConfigError):
    """An error that has exactly one place."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class ConfigSyntaxError(_OneProblemError):
    """The text is not one YAML document of the core schema."""


class ConfigComplexityError(_OneProblemError):
    """The document exceeds a structural limit."""


class DuplicateKeyError(_OneProblemError):
    """A mapping names one key twice, so one of the values would be lost."""


class InvalidConfigError(ConfigError):
    """The document does not follow the schema."""

    MAX_SHOWN = 20
    """Problems in the message; `problems` has all of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        shown = [str(problem) for problem in problems[: self.MAX_SHOWN]]
        if len(problems) > self.MAX_SHOWN:
            shown.append(f"and {len(problems) - self.MAX_SHOWN} more")
        super().__init__("\n".join(shown))
        self.problems = problems


class NewerSchemaError(InvalidConfigError):
    """The document is of a later schema version than this program knows."""


class UpgradeError(InvalidConfigError):
    """The document says that it is of an earlier schema version, and cannot be read as one."""


class EnvironmentOverrideError(ConfigError):
    """An environment variable that overrides a field holds a wrong value."""
