"""Taking a message: a state machine over `MessageForm`.

            usable answer        correction of another field       two misses
  NAME    -> next empty field    field replaced, same step        field left empty, next
  NUMBER  -> next empty field    field replaced, same step        field left empty, next
  REASON  -> next empty field    field replaced, same step        field left empty, next
  CONFIRM -> taken on yes        field replaced, read back again   taken as it stands

A field that the caller asks to change is emptied, so its step comes up again and then the read-back. The form
ends without a message when all three fields stay empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mediaserver.receptionist.numbers import MAX_DIGITS, MIN_DIGITS, find_digits, speak_digits, speak_number
from mediaserver.receptionist.slots import (
    booking_reason,
    marked_name,
    marked_reason,
    read_name,
    read_reason,
)
from mediaserver.receptionist.speakable import join_words
from mediaserver.receptionist.state import MessageForm, MessageTaken, Step
from mediaserver.receptionist.topics import Topic, is_topic
from mediaserver.receptionist.words import heard_text

MAX_MISSES = 2
"""Unusable answers to a step before the form goes on without it."""

_REFUSAL = re.compile(
    r"\b(rather not|do not want to|prefer not|skip|none of your|no name|anonymous|private|not (give|"
    r"giving|tell)|"
    r"do not have (one|a number|a phone|any)|no number|no phone|nothing( else)?$|no reason)\b"
)
_THIS_NUMBER = re.compile(
    r"\b(this (phone )?number|same number|calling from|number i am on|caller id|you (have|see) (it|my))\b"
)
_FIELD_NAMED = (
    (Step.NUMBER, re.compile(r"\b(number|digits?|phone)\b")),
    (Step.NAME, re.compile(r"\bname\b")),
    (Step.REASON, re.compile(r"\b(reason|message|about|subject)\b")),
)
_STATEMENT = re.compile(
    r"^(i|we|it|he|she|they|please|can|could|there|tell|is|are|do|does|how|what|when|where|why)\b",
    re.I,
)
_VERBS = frozenset(
    {"is", "isn't", "was", "are", "has", "came", "broke", "fell", "needs", "hurts", "won't", "stopped"}
)
_PURE_YES_NO = re.compile(
    r"^(yes|yeah|yep|no|nope|sure|ok|okay|please|right|correct)( (please|thanks|thank you))?$"
)


@dataclass(frozen=True, slots=True)
class FormTurn:
    """What a turn did to the form. ``form`` is None when the form is over."""

    form: MessageForm | None
    say: str
    taken: MessageTaken | None = None
    understood: bool = True


def begin(heard: str, *, booking: bool = False) -> FormTurn:
    """Start a form with whatever the opening words already told."""
    digits = find_digits(heard_text(heard))
    form = MessageForm(
        name=marked_name(heard, opening=True) or None,
        number=digits.number if _is_number(digits.digits) else None,
        reason=(booking_reason(heard) if booking else marked_reason(heard)) or None,
    )
    return _next(form)


def advance(form: MessageForm, heard: str, text: str) -> FormTurn:
    """Take the answer to the form's step; ``text`` is ``heard`` normalised."""
    corrected = _corrections(form, heard, text)
    if corrected != form:
        return _next(corrected)
    if form.step is Step.CONFIRM:
        return _confirm(form, text)
    if _REFUSAL.search(text) and form.step is not Step.REASON:
        return _next(_with(form, form.step, ""))
    return _READERS[form.step](form, heard, text)


def missed(form: MessageForm) -> FormTurn:
    """The answer could not be used: ask again, and after two tries go on without it."""
    if form.misses + 1 < MAX_MISSES:
        form = replace(form, misses=form.misses + 1)
        return FormTurn(form, prompt(form), understood=False)
    if form.step is Step.CONFIRM:
        return _taken(form)
    return _next(_with(form, form.step, ""))


def prompt(form: MessageForm) -> str:
    """The question of the form's step."""
    match form.step:
        case Step.NAME:
            return "What's your name, please?" if not form.misses else "Could you tell me just your name?"
        case Step.NUMBER if form.partial_digits:
            return f"I have {speak_digits(form.partial_digits)}. What's the rest of the number?"
        case Step.NUMBER:
            again = "Could you say your phone number digit by digit?"
            return again if form.misses else "What number can we call you back on?"
        case Step.REASON:
            return "What is it about?" if not form.misses else "In a few words, what is it about?"
        case Step.CONFIRM:
            return read_back(form)


def _is_statement(reason: str) -> bool:
    """Tell "my crown came off last night", which is repeated whole, from "my crown", which follows "about"."""
    words = reason.lower().split()
    if words[0] in ("a", "an") or words[0].endswith("ing"):
        return False
    return len(words) > 4 or not _VERBS.isdisjoint(words) or _STATEMENT.match(reason) is not None


def read_back(form: MessageForm) -> str:
    """The whole message, for the caller to confirm."""
    lead = "So that's" if form.name and form.number else "So I have"
    parts = [form.name or "no name"]
    parts.append(speak_number(form.number) if form.number else "no phone number")
    reason = form.reason or ""
    if reason and not _is_statement(reason):
        parts.append(f"about {reason}")
    sentence = f"{lead} {', '.join(parts)}."
    if reason and _is_statement(reason):
        sentence += f" And the message is: {reason}."
    return f"{sentence} Is that right?"


def _next(form: MessageForm) -> FormTurn:
    """Go to the first field that has not been asked for, or to the read-back."""
    for step, value in ((Step.NAME, form.name), (Step.NUMBER, form.number), (Step.REASON, form.reason)):
        if value is None:
            moved = form.step is not step
            form = replace(form, step=step, misses=0 if moved else form.misses)
            return FormTurn(form, prompt(form))
    if not (form.name or form.number or form.reason):
        return FormTurn(None, "Then I'll leave it there. Is there anything else I can help with?")
    form = replace(form, step=Step.CONFIRM, misses=0, partial_digits="")
    return FormTurn(form, prompt(form))


def _with(form: MessageForm, step: Step, value: str | None) -> MessageForm:
    """The form with the field of ``step`` set."""
    match step:
        case Step.NAME:
            return replace(form, name=value)
        case Step.NUMBER:
            return replace(form, number=value, partial_digits="")
        case Step.REASON:
            return replace(form, reason=value)
        case Step.CONFIRM:
            return form


def _confirm(form: MessageForm, text: str) -> FormTurn:
    named = [step for step, pattern in _FIELD_NAMED if pattern.search(text)]
    denied = is_topic(Topic.NO, text) or re.search(r"\b(wrong|not right|incorrect|change|except|but)\b", text)
    if named and (denied or len(text.split()) <= 3):
        for step in named:
            form = _with(form, step, None)
        return _next(form)
    if denied:
        asked = replace(form, misses=form.misses + 1)
        if asked.misses > MAX_MISSES:
            return _next(MessageForm())
        return FormTurn(
            asked, f"What should I change: {join_words(['the name', 'the number', 'the reason'], 'or')}?"
        )
    if is_topic(Topic.YES, text) or re.search(r"\b(yes|yeah|correct|perfect|that is right|exactly)\b", text):
        return _taken(form)
    return FormTurn(form, prompt(form), understood=False)


def _taken(form: MessageForm) -> FormTurn:
    message = MessageTaken(form.name or "", form.number or "", form.reason or "")
    return FormTurn(None, "", message)


def _corrections(form: MessageForm, heard: str, text: str) -> MessageForm:
    """Fields that the caller put right although the form asked for something else."""
    name = marked_name(heard)
    digits = find_digits(heard_text(heard))
    reason = marked_reason(heard) if form.step is Step.CONFIRM else ""
    if form.name is not None and name and not reason:
        form = replace(form, name=name)
    says_number = "number" in text.split() or is_topic(Topic.NO, text) or form.step is Step.CONFIRM
    if form.number is not None and _is_number(digits.digits) and says_number:
        form = replace(form, number=digits.number)
    if reason and form.reason is not None:
        form = replace(form, reason=reason)
    return form


def _read_name(form: MessageForm, heard: str, _: str) -> FormTurn:
    name = read_name(heard)
    if not name:
        return FormTurn(form, prompt(form), understood=False)
    digits = find_digits(heard_text(heard))
    number = digits.number if form.number is None and _is_number(digits.digits) else form.number
    reason = (marked_reason(heard) or None) if form.reason is None else form.reason
    turn = _next(replace(form, name=name, number=number, reason=reason))
    if turn.form is not None and turn.form.step is not Step.CONFIRM:
        return replace(turn, say=f"Thank you, {name}. {turn.say}")
    return turn


def _read_number(form: MessageForm, heard: str, text: str) -> FormTurn:
    said = find_digits(heard_text(heard))
    digits = _joined(form.partial_digits, said.digits)
    if _is_number(digits):
        reason = (marked_reason(heard) or None) if form.reason is None else form.reason
        plus = "+" if said.plus else ""
        return _next(replace(form, number=plus + digits, partial_digits="", reason=reason))
    if said.digits and len(said.digits) >= 2 and len(digits) < MIN_DIGITS:
        form = replace(form, partial_digits=digits, misses=0 if not form.partial_digits else form.misses)
        return FormTurn(form, prompt(form))
    if said.digits:
        return FormTurn(replace(form, partial_digits=""), prompt(form), understood=False)
    if _THIS_NUMBER.search(text):
        form = replace(form, misses=min(form.misses + 1, MAX_MISSES))
        if form.misses < MAX_MISSES:
            return FormTurn(
                form, "I can't see the number you're calling from. Could you say it digit by digit?"
            )
    return FormTurn(form, prompt(form), understood=False)


def _read_reason(form: MessageForm, heard: str, text: str) -> FormTurn:
    if _REFUSAL.search(text) or (is_topic(Topic.NO, text) and len(text.split()) <= 2):
        return _next(replace(form, reason=""))
    reason = read_reason(heard)
    if not reason or _PURE_YES_NO.match(text):
        return FormTurn(form, prompt(form), understood=False)
    return _next(replace(form, reason=reason))


def _joined(partial: str, said: str) -> str:
    """A number said in two turns; a second attempt that begins with the first replaces it."""
    if not partial or said.startswith(partial) or len(said) >= 10 or len(partial) + len(said) > MAX_DIGITS:
        return said
    return partial + said


def _is_number(digits: str) -> bool:
    return MIN_DIGITS <= len(digits) <= MAX_DIGITS


_READERS: dict[Step, Callable[[MessageForm, str, str], FormTurn]] = {
    Step.NAME: _read_name,
    Step.NUMBER: _read_number,
    Step.REASON: _read_reason,
}
