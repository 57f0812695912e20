"""The simulated transcription: which part of which known utterance a recording holds, by its loudness over time.

A recording that was cut off in the middle is transcribed up to there, noise is transcribed to nothing, so that a server
that takes a pause for the end of a turn gets half the words, as it would from a real recogniser.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perf.audio import LINE_RATE_HZ, decode
from perf.harness.speech import Spoken

Envelope = npt.NDArray[np.float64]

STEP_MS = 20
FLOOR_DBFS = -45.0
ALIKE = 0.6
"""Correlation from which a recording is taken to be (part of) an utterance."""
SHORTEST = 5
"""Steps of sound below which nothing is recognised."""
EDGE = 5
"""Steps on both sides of a recording that it is taken to hold as well."""
COVERED = 0.5
"""A word counts when this much of its time is in the recording."""


def envelope(samples: npt.NDArray[np.int16], rate_hz: int) -> Envelope:
    """Loudness above the floor, in dB, of each 20 ms."""
    step = rate_hz * STEP_MS // 1000
    whole = samples[: len(samples) // step * step].reshape(-1, step).astype(np.float64)
    level_dbfs = 20 * np.log10(np.sqrt(np.mean(whole**2, axis=1)) / 32_768 + 1e-9)
    return np.asarray(np.maximum(level_dbfs - FLOOR_DBFS, 0.0), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Known:
    loudness: Envelope
    words: tuple[tuple[str, float, float], ...]
    """Each with its begin and end, in steps; words of a clause by their number of letters."""


class Recogniser:
    """Knows the utterances; tells which words a recording holds."""

    def __init__(self, utterances: Sequence[Spoken]) -> None:
        self._known = [_known(utterance) for utterance in utterances]

    def transcribe(self, samples: npt.NDArray[np.int16], rate_hz: int) -> str:
        """The words, or nothing."""
        heard = envelope(samples, rate_hz)
        sounding = np.flatnonzero(heard > 0)
        if len(sounding) < SHORTEST:
            return ""
        heard = heard[sounding[0] : sounding[-1] + 1]
        best, offset, known = max(
            ((*_best_place(heard, known.loudness), known) for known in self._known),
            key=lambda found: found[0],
        )
        if best < ALIKE:
            return ""
        # A faint last sound is below the floor.
        begins, ends = offset - EDGE, offset + len(heard) + EDGE
        return " ".join(
            word
            for word, first, last in known.words
            if min(ends, last) - max(begins, first) >= COVERED * (last - first)
        )


def _known(utterance: Spoken) -> _Known:
    words: list[tuple[str, float, float]] = []
    step = LINE_RATE_HZ * STEP_MS / 1000
    for clause in utterance.clauses:
        texts = clause.text.split()
        letters = sum(map(len, texts))
        at = clause.begins / step
        for text in texts:
            lasts = (clause.ends - clause.begins) / step * len(text) / letters
            words.append((text, at, at + lasts))
            at += lasts
    return _Known(envelope(decode(utterance.codes), LINE_RATE_HZ), tuple(words))


def _best_place(heard: Envelope, loudness: Envelope) -> tuple[float, int]:
    """Where in an utterance a recording fits best: correlation (1: the same but for its level) and step."""
    span = len(heard)
    # What hangs over at the ends is compared with silence.
    slack = min(10, span // 4)
    padded = np.concatenate([np.zeros(slack), loudness, np.zeros(max(slack, span - len(loudness)))])
    windows = np.lib.stride_tricks.sliding_window_view(padded, span)
    centred = heard - heard.mean()
    products = windows @ centred
    spreads = windows.std(axis=1) * heard.std() * span
    likeness = np.divide(products, spreads, out=np.zeros_like(products), where=spreads > 0)
    place = int(np.argmax(likeness))
    return float(likeness[place]), place - slack


def wav_in(body: bytes) -> tuple[npt.NDArray[np.int16], int]:
    """The samples and the rate of the 16-bit mono WAV file in a multipart body.

    Raises:
        ValueError: There is none.
    """
    at = body.find(b"RIFF")
    if at < 0 or body[at + 8 : at + 12] != b"WAVE":
        raise ValueError("no WAV file")
    rate_hz, cursor = 0, at + 12
    while cursor + 8 <= len(body):
        name, size = body[cursor : cursor + 4], struct.unpack_from("<I", body, cursor + 4)[0]
        cursor += 8
        if name == b"fmt " and cursor + 16 <= len(body):
            form, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body, cursor)
            if (form, channels, bits) != (1, 1, 16):
                raise ValueError("not 16-bit mono PCM")
        elif name == b"data" and rate_hz:
            data = body[cursor : cursor + size]
            return np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2"), rate_hz
        cursor += size + size % 2
    raise ValueError("no data in the WAV file")
