"""What the harness's callers say: spoken by a synthetic voice, with known ends and known pauses.

An utterance is one clause or several with pauses of 300 to 900 ms between them, as of somebody who thinks while speaking.
The pauses hold noise at -60 dBFS, like the line between utterances. `prepare` synthesises once and keeps µ-law files with a
manifest for the generator and an index for the simulated transcription.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson

from mediaserver.softphone.speech import synthesise
from perf.audio import FRAME, LINE_RATE_HZ, Samples, at_rate, encode

NOISE_PEAK = 57
"""Uniform noise of this height is at -60 dBFS."""
SPEECH_DBFS = -45.0
"""A millisecond and more of sound above this is speech: its end is where the utterance ends."""
END_WINDOW = LINE_RATE_HZ // 200
MANIFEST = "manifest.txt"
INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something to say: clauses, and the pauses between them."""

    name: str
    clauses: tuple[str, ...]
    pauses_ms: tuple[int, ...] = ()


SENTENCES = (
    Sentence("friday", ("Are you open on Friday?",)),
    Sentence("bread", ("Do you have fresh rye bread today?",)),
    Sentence("cake", ("Can I order a birthday cake for Saturday?",)),
    Sentence("where", ("Where exactly are you, and is there any parking?",)),
    Sentence("price", ("How much is a loaf?",)),
    Sentence("table", ("I would like to book a table for tonight.",)),
    Sentence("allergy", ("My daughter is allergic to nuts,", "do you have anything for her?"), (300,)),
    Sentence("collect", ("I ordered a cake yesterday,", "when can I collect it?"), (400,)),
    Sentence("meeting", ("We need sandwiches for a meeting,", "about twenty people."), (500,)),
    Sentence("holiday", ("Are you open on the holiday,", "I mean next Monday?"), (600,)),
    Sentence("deliver", ("Could you deliver to Station Road,", "number forty two?"), (700,)),
    Sentence("wedding", ("I am calling about a wedding cake,", "it should have three layers."), (900,)),
)
"""Half of them with a pause."""


@dataclass(frozen=True, slots=True)
class Clause:
    """Words and where they are in the utterance, in samples at 8 kHz."""

    text: str
    begins: int
    ends: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance as it goes out on the line."""

    name: str
    clauses: tuple[Clause, ...]
    codes: bytes
    """µ-law at 8 kHz, whole packets."""
    end: int
    """The sample after the last with speech."""

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(clause.text for clause in self.clauses)


def speech_end(samples: Samples) -> int:
    """The sample after the last 5 ms whose level is above `SPEECH_DBFS`."""
    whole = samples[: len(samples) // END_WINDOW * END_WINDOW].reshape(-1, END_WINDOW).astype(np.float64)
    level_dbfs = 20 * np.log10(np.sqrt(np.mean(whole**2, axis=1)) / 32_768 + 1e-9)
    loud = np.flatnonzero(level_dbfs > SPEECH_DBFS)
    if not len(loud):
        raise ValueError("there is no speech")
    return int(loud[-1] + 1) * END_WINDOW


def assemble(sentence: Sentence, spoken: list[Samples]) -> Spoken:
    """Put a sentence's clauses, each spoken, together with its pauses."""
    noise = np.random.default_rng(1)
    parts: list[Samples] = []
    clauses, at = [], 0
    for number, (text, samples) in enumerate(zip(sentence.clauses, spoken, strict=True)):
        if number:
            pause = sentence.pauses_ms[number - 1] * LINE_RATE_HZ // 1000
            parts.append(noise.integers(-NOISE_PEAK, NOISE_PEAK + 1, pause).astype(np.int16))
            at += pause
        speech = samples[: speech_end(samples)]
        parts.append(speech)
        clauses.append(Clause(text, at, at + len(speech)))
        at += len(speech)
    whole = np.concatenate([*parts, np.zeros(-at % FRAME, np.int16)])
    return Spoken(sentence.name, tuple(clauses), encode(whole), at)


async def _synthesise(sentences: tuple[Sentence, ...]) -> list[Spoken]:
    spoken = []
    for sentence in sentences:
        clauses = [at_rate(await synthesise(text), LINE_RATE_HZ) for text in sentence.clauses]
        spoken.append(assemble(sentence, clauses))
    return spoken


def write(spoken: list[Spoken], folder: Path) -> None:
    """Files for the generator, and what is said in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for utterance in spoken:
        (folder / f"{utterance.name}.ulaw").write_bytes(utterance.codes)
    index = [
        {
            "name": utterance.name,
            "end": utterance.end,
            "clauses": [[clause.text, clause.begins, clause.ends] for clause in utterance.clauses],
        }
        for utterance in spoken
    ]
    (folder / INDEX).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))
    # Last: a folder with a manifest is complete.
    lines = [f"{utterance.name}.ulaw {utterance.end}\n" for utterance in spoken]
    (folder / MANIFEST).write_text("".join(lines))


def read(folder: Path) -> list[Spoken]:
    """What `write` wrote."""
    return [
        Spoken(
            entry["name"],
            tuple(Clause(*clause) for clause in entry["clauses"]),
            (folder / f"{entry['name']}.ulaw").read_bytes(),
            entry["end"],
        )
        for entry in orjson.loads((folder / INDEX).read_bytes())
    ]


def prepare(root: Path) -> Path:
    """The folder with everything that callers say, made the first time that it is asked for."""
    digest = hashlib.sha256(repr((SENTENCES, SPEECH_DBFS)).encode()).hexdigest()[:12]
    folder = root / f"speech-{digest}"
    if not (folder / MANIFEST).exists():
        write(asyncio.run(_synthesise(SENTENCES)), folder)
    return folder


def inner_pauses_ms(utterance: Spoken) -> list[int]:
    """The pauses between the clauses."""
    return [
        (later.begins - earlier.ends) * 1000 // LINE_RATE_HZ for earlier, later in pairwise(utterance.clauses)
    ]
