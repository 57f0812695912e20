"""Documents of older schema versions, brought to this program's.

A step is a pure function from a document of version N to one of version N+1. Steps are never changed once released: stored
versions and tenants' files go through them for ever. A step gets its own copy, sets no version itself, and may assume no more than
that the document is a mapping: validation comes after the last step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from config.errors import NewerSchemaError, Problem, UpgradeError
from config.tenant import TENANT_SCHEMA_VERSION
from config.yaml_tree import Document

FIELD: Final = "schema_version"
Step = Callable[[dict[str, object]], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps of one kind of document, from version 1 on. Raises `ValueError` where a step is missing."""

    current: int
    steps: tuple[Step, ...] = ()
    """The first goes from version 1 to 2."""

    def __post_init__(self) -> None:
        if len(self.steps) != self.current - 1:
            raise ValueError(f"version {self.current} needs {self.current - 1} steps, not {len(self.steps)}")

    def upgrade(self, document: Document) -> Document:
        """Bring a document to the current version; one that is there already comes back as it is.

        A document without a version counts as one of the current version, and one whose version is no number of one as it
        is: validation names what is wrong.

        Raises:
            NewerSchemaError: it is of a later version than this program knows. UpgradeError: a step cannot read it.
        """
        value = document.value
        if not isinstance(value, Mapping):
            return document
        version = value.get(FIELD, self.current)
        if (
            not isinstance(version, int)
            or isinstance(version, bool)
            or version < 1
            or version == self.current
        ):
            return document
        place = document.place((FIELD,))
        if version > self.current:
            text = f"version {version} is newer than this program, which reads up to {self.current}; upgrade the program"
            raise NewerSchemaError((Problem(place, FIELD, text),))
        upgraded: dict[str, object] = copy.deepcopy(dict(value))
        for number, step in enumerate(self.steps[version - 1 :], version):
            try:
                upgraded = {**step(upgraded), FIELD: number + 1}
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                # The document is not what a version of this number is. It names itself in the error's cause alone.
                text = f"cannot be upgraded from version {number} to {number + 1}: {type(error).__name__}"
                raise UpgradeError((Problem(place, FIELD, text),)) from error
        return Document(document.file, upgraded, document.places)


TENANT_UPGRADES: Final = Chain(TENANT_SCHEMA_VERSION)
"""Version 1 is the first."""
