"""What the load's callers say, and the transcription that knows it."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr

from perf.audio import FRAME, LINE_RATE_HZ, Samples, decode
from perf.harness.live_recognition import RecognisingEar
from perf.harness.recognition import Recogniser, wav_in
from perf.harness.speech import SENTENCES, Sentence, assemble, inner_pauses_ms, read, speech_end, write


def babble(seed: int, seconds: float) -> Samples:
    """Noise with a loudness that goes up and down as speech does, and silence after it."""
    random = np.random.default_rng(seed)
    steps = int(seconds * 50)
    loudness = np.repeat(random.uniform(0.02, 0.3, steps), LINE_RATE_HZ // 50)
    sound = random.normal(0, 1, len(loudness)) * loudness * 32_768 / 3
    return np.concatenate([np.clip(sound, -32_768, 32_767), np.zeros(1_000)]).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spoken = []
    for seed, sentence in enumerate(SENTENCES):
        clauses = [
            babble(100 * seed + number, 0.3 + len(text) / 20) for number, text in enumerate(sentence.clauses)
        ]
        spoken.append(assemble(sentence, clauses))
    folder = tmp_path_factory.mktemp("speech")
    write(spoken, folder)
    return folder


def test_an_utterance_ends_where_its_last_sound_does() -> None:
    samples = np.zeros(8_000, np.int16)
    samples[1_000:2_010] = 3_000
    assert speech_end(samples) == 2_040
    with pytest.raises(ValueError, match="no speech"):
        speech_end(np.zeros(8_000, np.int16))


def test_pauses_are_as_long_as_they_are_written_and_faint() -> None:
    sentence = Sentence("x", ("one two", "three"), (450,))
    spoken = assemble(sentence, [babble(1, 1.0), babble(2, 0.5)])
    first, second = spoken.clauses
    assert inner_pauses_ms(spoken) == [450]
    assert spoken.end == second.ends
    assert len(spoken.codes) % FRAME == 0
    pause = decode(spoken.codes)[first.ends : second.begins].astype(float)
    level_dbfs = 20 * np.log10(np.sqrt(np.mean(pause**2)) / 32_768)
    assert -62 < level_dbfs < -58


def test_the_dialogues_have_pauses_of_300_to_900_ms_in_half_of_the_sentences(folder: Path) -> None:
    pauses = [inner_pauses_ms(spoken) for spoken in read(folder)]
    assert sum(bool(each) for each in pauses) * 2 == len(pauses)
    lengths = sorted(pause for each in pauses for pause in each)
    assert lengths[0] == 300
    assert lengths[-1] == 900


def test_the_generator_finds_every_file_whole(folder: Path) -> None:
    for line in (folder / "manifest.txt").read_text().splitlines():
        name, end = line.split()
        size = (folder / name).stat().st_size
        assert size - FRAME < int(end) <= size


def test_what_was_said_is_what_is_recognised(folder: Path) -> None:
    utterances = read(folder)
    recogniser = Recogniser(utterances)
    line = np.random.default_rng(5).integers(-57, 58, 3_000).astype(np.int16)
    for spoken in utterances:
        heard = np.concatenate([line, decode(spoken.codes), line])
        at_16k = soxr.resample(heard, LINE_RATE_HZ, 16_000).astype(np.int16)
        assert recogniser.transcribe(at_16k, 16_000) == spoken.text


def test_half_an_utterance_is_half_the_words(folder: Path) -> None:
    utterances = read(folder)
    recogniser = Recogniser(utterances)
    for spoken in utterances:
        if inner_pauses_ms(spoken):
            samples, (first, second) = decode(spoken.codes), spoken.clauses
            assert recogniser.transcribe(samples[: first.ends + 1_000], LINE_RATE_HZ) == first.text
            assert recogniser.transcribe(samples[second.begins - 1_000 :], LINE_RATE_HZ) == second.text


def test_noise_and_silence_are_no_words(folder: Path) -> None:
    recogniser = Recogniser(read(folder))
    assert recogniser.transcribe(np.zeros(16_000, np.int16), 8_000) == ""
    assert recogniser.transcribe(np.zeros(0, np.int16), 8_000) == ""
    assert recogniser.transcribe(np.full(16_000, 9_000, np.int16), 8_000) == ""


def test_a_wav_file_is_found_in_a_form() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes(np.arange(100, dtype="<i2").tobytes())
    body = b"--x\r\nContent-Disposition: form-data\r\n\r\n" + file.getvalue() + b"\r\n--x--\r\n"
    samples, rate_hz = wav_in(body)
    assert rate_hz == 16_000
    assert samples.tolist() == list(range(100))
    for wrong in (b"", b"RIFF", b"RIFF0000WAVE", body.replace(b"data", b"none"), body[:70]):
        with pytest.raises(ValueError, match="WAV"):
            wav_in(wrong)


def test_a_recogniser_that_listens_tells_each_word_once_at_every_pause(folder: Path) -> None:
    utterances = read(folder)
    now_s = 0.0
    ear = RecognisingEar(Recogniser(utterances), lambda: now_s)
    for spoken in utterances:
        # Between two utterances nothing is heard, and time passes.
        now_s += 1.0
        told = []
        at_16k = soxr.resample(decode(spoken.codes), LINE_RATE_HZ, 16_000).astype(np.int16)
        ends = [clause.ends * 2 + 500 for clause in spoken.clauses]
        begin = 0
        for end in (*ends[:-1], len(at_16k)):
            for at in range(begin, end, 3_200):
                piece = at_16k[at : min(end, at + 3_200)]
                now_s += len(piece) / 16_000
                ear.hear(piece.tobytes())
            begin = end
            told.append(ear.words())
        assert told == [clause.text for clause in spoken.clauses]
        assert ear.words() == ""


def test_words_before_a_gap_are_told_with_those_after_it(folder: Path) -> None:
    first, second = read(folder)[:2]
    now_s = 0.0
    ear = RecognisingEar(Recogniser(read(folder)), lambda: now_s)
    for spoken in (first, second):
        now_s += 10.0
        ear.hear(soxr.resample(decode(spoken.codes), LINE_RATE_HZ, 16_000).astype(np.int16).tobytes())
    assert ear.words() == f"{first.text} {second.text}"
