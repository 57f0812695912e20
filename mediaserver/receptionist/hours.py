"""Opening hours: the state at a moment in the tenant's time zone, and how a person would say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from config.tenant import OpeningInterval, TenantConfig, Weekday
from mediaserver.receptionist.speakable import as_sentence, join_words, speak_time

DAYS = tuple(Weekday)
LAST_MINUTE = time(23, 59)
"""The configuration cannot say 24:00, so this closing time stands for midnight."""


class Asked(StrEnum):
    """What about the hours a caller wants to know."""

    WEEK = "week"
    NOW = "now"
    CLOSING = "closing"
    DAYS = "days"


@dataclass(frozen=True, slots=True)
class HoursQuestion:
    """A question about opening hours; ``label`` is the caller's own word for the days."""

    asked: Asked
    days: tuple[Weekday, ...] = ()
    label: str = ""


def hours_question(text: str, today: Weekday) -> HoursQuestion:
    """Which hours a normalised utterance asks for."""
    named = tuple(day for day in DAYS if re.search(rf"\b{day}s?\b", text))
    if named:
        return HoursQuestion(Asked.DAYS, named)
    for pattern, asked, ahead, label in _QUESTIONS:
        if pattern.search(text):
            days = tuple(DAYS[(DAYS.index(today) + days_ahead) % 7] for days_ahead in ahead)
            return HoursQuestion(asked, DAYS[_NAMED_SPANS[label]] if label in _NAMED_SPANS else days, label)
    return HoursQuestion(Asked.WEEK)


_NAMED_SPANS = {"weekend": slice(5, 7), "weekdays": slice(0, 5)}
_QUESTIONS: tuple[tuple[re.Pattern[str], Asked, tuple[int, ...], str], ...] = tuple(
    (re.compile(pattern), asked, ahead, label)
    for pattern, asked, ahead, label in (
        (r"\bday after tomorrow\b", Asked.DAYS, (2,), ""),
        (r"\btomorrow\b", Asked.DAYS, (1,), "tomorrow"),
        (r"\bweek ?ends?\b", Asked.DAYS, (), "weekend"),
        (r"\bweek ?days?\b|\bduring the week\b", Asked.DAYS, (), "weekdays"),
        (
            r"\b(close|closing|shut|how late|until when|till when)\b|open (until|till|to)\b",
            Asked.CLOSING,
            (),
            "",
        ),
        (r"\btoday\b|\btonight\b|\bthis (morning|afternoon|evening)\b", Asked.DAYS, (0,), "today"),
        (r"\b(now|currently|at the moment|still open|already open|open yet)\b", Asked.NOW, (), ""),
        (
            r"\bare you (guys )?(open|closed)\b(?! (on|at|to|for|during|in|every|all)\b)",
            Asked.NOW,
            (),
            "",
        ),
    )
)
"""What is asked, on which days counted from today, and the caller's word for them; the first that occurs."""


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """The hours of one tenant."""

    week: tuple[tuple[OpeningInterval, ...], ...]
    zone: ZoneInfo

    @classmethod
    def of(cls, config: TenantConfig) -> OpeningHours:
        """Sorted, and merged where one interval ends as the next begins."""
        return cls(tuple(_merged(config.hours.get(day, ())) for day in DAYS), ZoneInfo(config.time_zone))

    def today(self, now: datetime) -> Weekday:
        """The weekday where the tenant is."""
        return DAYS[now.astimezone(self.zone).weekday()]

    def answer(self, question: HoursQuestion, now: datetime) -> str:
        """The reply to a question about hours."""
        if not any(self.week):
            return "I don't have any opening hours for us, I'm afraid."
        match question.asked:
            case Asked.WEEK:
                return self.week_sentence()
            case Asked.NOW:
                return self.now_sentence(now)
            case Asked.CLOSING:
                return self._closing_sentence(now)
            case Asked.DAYS:
                return self._days_sentence(question, now)

    def week_sentence(self) -> str:
        """The whole week, days of equal hours together."""
        groups: dict[tuple[OpeningInterval, ...], list[int]] = {}
        for index, intervals in enumerate(self.week):
            groups.setdefault(intervals, []).append(index)
        closed = groups.pop((), [])
        if not groups:
            return "We're closed all week."
        spoken = [f"{_spell_days(days)} {_spell_intervals(intervals)}" for intervals, days in groups.items()]
        listed = ", and ".join(filter(None, (", ".join(spoken[:-1]), spoken[-1])))
        sentence = as_sentence(f"We're open {listed}")
        return as_sentence(f"{sentence} We're closed on {_spell_days(closed)}") if closed else sentence

    def open_until(self, now: datetime) -> datetime | None:
        """When the present opening ends, local time; None when closed now. At most a week ahead."""
        local = now.astimezone(self.zone)
        day = local.date()
        for interval in self.week[local.weekday()]:
            if interval.opens <= local.time().replace(tzinfo=None) < interval.closes or (
                interval.closes >= LAST_MINUTE and local.time() >= interval.opens
            ):
                closes = interval.closes
                for _ in range(7):
                    following = self.week[(day.weekday() + 1) % 7]
                    if closes < LAST_MINUTE or not following or following[0].opens != time(0, 0):
                        break
                    day += timedelta(days=1)
                    closes = following[0].closes
                return datetime.combine(day, closes, self.zone)
        return None

    def next_opening(self, now: datetime) -> datetime | None:
        """The next time that the doors open, local time; None when they never do."""
        local = now.astimezone(self.zone)
        for ahead in range(8):
            day = local.date() + timedelta(days=ahead)
            for interval in self.week[day.weekday()]:
                if ahead or interval.opens > local.time():
                    return datetime.combine(day, interval.opens, self.zone)
        return None

    def now_sentence(self, now: datetime) -> str:
        """Open or closed at this moment, and until when."""
        closes = self.open_until(now)
        if closes is None:
            return f"We're closed right now. {self._opens_sentence(now)}"
        days = (closes.date() - now.astimezone(self.zone).date()).days
        if days >= 6:
            return "Yes, we're open around the clock."
        if days and closes.time() < LAST_MINUTE:
            day = "tomorrow" if days == 1 else f"{DAYS[closes.weekday()].capitalize()}"
            return as_sentence(f"Yes, we're open now, until {day} at {speak_time(closes.time())}")
        return as_sentence(f"Yes, we're open now, until {speak_time(closes.time())}")

    def _opens_sentence(self, now: datetime) -> str:
        opens = self.next_opening(now)
        if opens is None:
            return ""
        days = (opens.date() - now.astimezone(self.zone).date()).days
        day = (
            "today" if days == 0 else "tomorrow" if days == 1 else f"on {DAYS[opens.weekday()].capitalize()}"
        )
        return as_sentence(f"We open {day} at {speak_time(opens.time())}")

    def _closing_sentence(self, now: datetime) -> str:
        closes = self.open_until(now)
        if closes is None:
            return self.now_sentence(now)
        if closes.date() != now.astimezone(self.zone).date():
            return self.now_sentence(now).removeprefix("Yes, ").replace("we're", "We're", 1)
        later = [each for each in self.week[closes.weekday()] if each.opens > closes.time()]
        if later:
            # The end of the morning is not when the day ends.
            today = _spell_intervals(tuple(later))
            return as_sentence(f"We close at {speak_time(closes.time())}, and we're open again today {today}")
        return as_sentence(f"We close today at {speak_time(closes.time())}")

    def _days_sentence(self, question: HoursQuestion, now: datetime) -> str:
        if len(question.days) == 1:
            return self._day_sentence(question.days[0], question.label, now)
        indices = [DAYS.index(day) for day in question.days]
        if not any(self.week[index] for index in indices):
            day = "on weekends" if question.label == "weekend" else f"on {_spell_days(indices)}"
            opens = self._opens_sentence(now) if self.open_until(now) is None else ""
            return f"We're closed {day}. {opens}".rstrip()
        part = OpeningHours(
            tuple(hours if index in indices else () for index, hours in enumerate(self.week)), self.zone
        )
        sentence = part.week_sentence().split(" We're closed on ")[0]
        closed = [index for index in indices if not self.week[index]]
        return as_sentence(f"{sentence} We're closed on {_spell_days(closed)}") if closed else sentence

    def _day_sentence(self, day: Weekday, label: str, now: datetime) -> str:
        intervals = self.week[DAYS.index(day)]
        when = label.capitalize() if label in ("today", "tomorrow") else f"On {day.capitalize()}"
        if not intervals:
            return f"{when} we're closed. {self._after(day, label, now)}".rstrip()
        return as_sentence(f"{when} we're open {_spell_intervals(intervals)}")

    def _after(self, day: Weekday, label: str, now: datetime) -> str:
        """What to add to "closed": the next opening after that day."""
        if label not in ("today", "tomorrow"):
            return ""
        local = now.astimezone(self.zone)
        ahead = (DAYS.index(day) - local.weekday()) % 7
        end = datetime.combine(local.date() + timedelta(days=ahead), LAST_MINUTE, self.zone)
        opens = self.next_opening(end)
        if opens is None:
            return ""
        return as_sentence(
            f"We open again on {DAYS[opens.weekday()].capitalize()} at {speak_time(opens.time())}"
        )


def _merged(intervals: tuple[OpeningInterval, ...]) -> tuple[OpeningInterval, ...]:
    merged: list[OpeningInterval] = []
    for interval in sorted(intervals, key=lambda each: each.opens):
        if merged and interval.opens <= merged[-1].closes:
            closes = max(merged[-1].closes, interval.closes)
            merged[-1] = OpeningInterval(opens=merged[-1].opens, closes=closes)
        else:
            merged.append(interval)
    return tuple(merged)


def _spell_intervals(intervals: tuple[OpeningInterval, ...]) -> str:
    if len(intervals) == 1 and intervals[0].opens == time(0, 0) and intervals[0].closes >= LAST_MINUTE:
        return "around the clock"
    return join_words([f"from {speak_time(each.opens)} to {speak_time(each.closes)}" for each in intervals])


def _spell_days(indices: list[int]) -> str:
    if len(indices) == 7:
        return "every day"
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    spoken: list[str] = []
    for run in runs:
        names = [DAYS[index].capitalize() for index in run]
        spoken.extend([f"{names[0]} to {names[-1]}"] if len(run) > 2 else names)
    return join_words(spoken)
