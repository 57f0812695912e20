"""Schema errors in the words of the person who wrote the file."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.errors import Problem
from config.yaml_tree import Document, FieldPath, field_name

MAX_SHOWN_INPUT = 60
_NOTHING: Final = object()
KEY_MARK = "[key]"
"""What pydantic appends to the location of a mapping's key that is itself wrong."""


def problems_of(error: ValidationError, model: type[BaseModel], document: Document) -> tuple[Problem, ...]:
    """Each schema error with its place, its field and what is allowed."""
    return tuple(_problem(details, model, document) for details in problem_details(error))


def problem_details(error: ValidationError) -> list[ErrorDetails]:
    """List what is wrong, without the complaint that a list is too short once its wrong items are left out."""
    details = error.errors(include_url=False)
    return [each for each in details if each["type"] != "too_short" or not each["input"]] or details


def _problem(details: ErrorDetails, model: type[BaseModel], document: Document) -> Problem:
    path = _document_path(details["loc"], document.value, missing=details["type"] == "missing")
    return Problem(document.place(path), field_name(path), _text(details, model, path))


def _document_path(location: tuple[str | int, ...], value: object, *, missing: bool) -> FieldPath:
    """Drop from the location what the document does not have: the tag that chose a union's member.

    The last part stays where it is the field that is ``missing``.
    """
    path: list[str | int] = []
    for index, part in enumerate(location):
        if part == KEY_MARK:
            continue
        inner = _below(value, part)
        if inner is not _NOTHING:
            value = inner
        elif index < len(location) - 1 or not missing:
            continue
        path.append(part)
    return tuple(path)


def _below(value: object, part: str | int) -> object:
    """Step into a mapping or a list."""
    if isinstance(value, Mapping):
        return value.get(part, _NOTHING)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return _NOTHING


def _text(details: ErrorDetails, model: type[BaseModel], path: FieldPath) -> str:
    kind = details["type"]
    if kind == "missing":
        return "required, but missing"
    if kind == "extra_forbidden":
        return f"unknown field{_suggestion(str(path[-1]), fields_at(model, details['loc'][:-1]))}"
    text = details["msg"].removeprefix("Value error, ")
    context = details.get("ctx", {})
    given = details["input"]
    if kind in ("enum", "literal_error", "union_tag_invalid"):
        allowed = re.findall(r"'([^']+)'", str(context.get("expected_tags", context.get("expected", ""))))
        wrong = context.get("tag", given)
        return f"{wrong!r} is not allowed{_suggestion(str(wrong), allowed)}" if allowed else text
    if kind == "string_type" and isinstance(given, bool | int | float):
        return f"must be text: write {str(given).lower()!r} in quotes"
    if kind == "value_error" or _may_hold_secret(path):
        return text
    return f"{text}, not {_shortened(given)}"


def _may_hold_secret(path: FieldPath) -> bool:
    """Whether somebody may have pasted a key or a URL with a password here, which must not reach a log."""
    return any(word in str(part).lower() for part in path for word in ("key", "kek", "secret", "url"))


def _shortened(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= MAX_SHOWN_INPUT else f"{text[:MAX_SHOWN_INPUT]}…"


def _suggestion(wrong: str, allowed: Iterable[str]) -> str:
    names = sorted(allowed)
    close = difflib.get_close_matches(wrong.lower(), names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint}{';' if not close else ''} allowed: {', '.join(names)}" if names else hint


def fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> tuple[str, ...]:
    """Name the fields of the model at a pydantic error location below ``model``."""
    candidates: tuple[type[BaseModel], ...] = (model,)
    for part in location:
        annotations = [
            each.model_fields[part].annotation
            for each in candidates
            if isinstance(part, str) and part in each.model_fields
        ]
        if annotations:
            candidates = tuple(found for annotation in annotations for found in _models_in(annotation))
        elif isinstance(part, str) and len(candidates) > 1:
            candidates = tuple(each for each in candidates if _tag_of(each) == part) or candidates
    return tuple({name: None for each in candidates for name in each.model_fields})


def _models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Find the models that an annotation names, through containers and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _models_in(arguments[0])
    if origin in (Union, types.UnionType, tuple, list, dict):
        return tuple(found for argument in arguments for found in _models_in(argument))
    return ()


def _tag_of(model: type[BaseModel]) -> object:
    """Return the discriminating value of a union's member."""
    kind = model.model_fields.get("kind")
    return None if kind is None else kind.default
