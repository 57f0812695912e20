"""YAML to plain values with the place of every field, within limits.

The scalars follow the YAML 1.2 core schema, narrowed: version 1.1, which PyYAML reads by default, turns ``17:30``
into 1050 and ``no`` into false, and both versions turn ``+15550100`` into a number without its plus. Here these stay
text.
Needs the libyaml parser that PyYAML's wheels contain: its parser does not recurse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import yaml
from yaml._yaml import CParser

from config.errors import ConfigComplexityError, ConfigSyntaxError, DuplicateKeyError, Place, Problem

MAX_DEPTH = 32
MAX_NODES = 50_000
"""Values in a document, each alias counted as all that it stands for."""

FieldPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_PLAIN: Final = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)")),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)")),
    ("int", re.compile(r"-?(?:0|[1-9][0-9]{0,17})")),
    ("float", re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")),
)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document: values that JSON can carry, and where they stand."""

    file: str
    value: object
    places: Mapping[FieldPath, Place]
    """The place of each value; of a mapping's entry, that of its key."""

    def place(self, path: FieldPath) -> Place:
        """Where ``path`` stands, or the nearest enclosing value that the document has."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return Place(self.file)


class _Mark(Protocol):
    line: int
    column: int


class _Parser(CParser):
    """libyaml's parser with the scalar rules of this module."""

    def descend_resolver(self, current_node: object, current_index: object) -> None:
        """Path resolvers are not used."""

    def ascend_resolver(self) -> None:
        """Path resolvers are not used."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool] | bool) -> str:
        """Choose the tag of a node that has none."""
        if kind is yaml.MappingNode:
            return f"{_TAG}map"
        if kind is yaml.SequenceNode:
            return f"{_TAG}seq"
        if isinstance(implicit, tuple) and implicit[0]:
            return _TAG + next((name for name, pattern in _PLAIN if pattern.fullmatch(value)), "str")
        return f"{_TAG}str"


def parse_document(text: str, file: str) -> Document:
    """Parse one YAML document.

    Raises:
        ConfigSyntaxError, ConfigComplexityError, DuplicateKeyError: with the place.
    """
    with _syntax_errors(file):
        _check_shape(text, file)
        node = _Parser(text).get_single_node()
    if node is None:
        raise ConfigSyntaxError(Problem(Place(file), "", "the file is empty"))
    tree = _Tree(file)
    return Document(file, tree.value(node, ()), tree.places)


@contextmanager
def _syntax_errors(file: str) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file) if mark is None else Place(file, mark.line + 1, mark.column + 1)
        text = " ".join(part for part in (error.problem, error.context) if part)
        raise ConfigSyntaxError(Problem(place, "", f"not valid YAML: {text}")) from error
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise ConfigSyntaxError(Problem(Place(file), "", f"not valid YAML: {text}")) from error


def _check_shape(text: str, file: str) -> None:
    """Refuse depth and number of nodes before anything recursive looks at the document."""
    parser = _Parser(text)
    depth = nodes = 0
    while parser.check_event():
        event = parser.get_event()
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            if depth > MAX_DEPTH:
                raise ConfigComplexityError(
                    Problem(_place(file, event.start_mark), "", f"nested more than {MAX_DEPTH} deep")
                )
            if nodes > MAX_NODES:
                raise ConfigComplexityError(Problem(Place(file), "", f"more than {MAX_NODES} values"))


def _place(file: str, mark: _Mark | None) -> Place:
    return Place(file) if mark is None else Place(file, mark.line + 1, mark.column + 1)


class _Tree:
    """Turns nodes into values, within a budget that aliases count against."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = MAX_NODES
        self._open: set[int] = set()
        self.places: dict[FieldPath, Place] = {}

    def value(self, node: yaml.Node, path: FieldPath) -> object:
        """Build the value of a node and of all below it."""
        place = _place(self._file, node.start_mark)
        self.places.setdefault(path, place)
        self._left -= 1
        if self._left < 0 or len(path) > MAX_DEPTH or id(node) in self._open:
            raise ConfigComplexityError(
                Problem(
                    place,
                    field_name(path),
                    f"aliases expand to more than {MAX_NODES} values or {MAX_DEPTH} levels",
                )
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))
        raise self._bad_tag(node, path)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            place = _place(self._file, key_node.start_mark)
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise ConfigSyntaxError(Problem(place, field_name(path), "a field's name must be text"))
            entry = (*path, key)
            if key in values:
                first = self.places[entry].line
                text = f"given twice; first on line {first}"
                raise DuplicateKeyError(Problem(place, field_name(entry), text))
            self.places[entry] = place
            values[key] = self.value(value_node, entry)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> object:
        kind = node.tag.removeprefix(_TAG)
        if kind == "str" and node.tag != kind:
            return str(node.value)
        pattern = dict(_PLAIN).get(kind)
        if node.tag == kind or pattern is None or not pattern.fullmatch(node.value):
            raise self._bad_tag(node, path)
        match kind:
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int":
                return int(node.value)
            case _:
                return float(node.value)

    def _bad_tag(self, node: yaml.Node, path: FieldPath) -> ConfigSyntaxError:
        text = f"the tag {node.tag!r} does not fit here; configurations need no tags"
        return ConfigSyntaxError(Problem(_place(self._file, node.start_mark), field_name(path), text))


def field_name(path: FieldPath) -> str:
    """Write a path as people write it: ``services[2].price``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
