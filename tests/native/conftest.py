"""An engine on the loopback interface, and a caller's voice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.resources import files

import numpy as np
import pytest
import soxr

from mediaserver._native import MediaEngine
from tests.native.rtp_peer import Events, Peer, Samples, open_peer


@pytest.fixture(scope="session")
def weights() -> bytes:
    return files("pipecat.audio.vad.data").joinpath("silero_vad.onnx").read_bytes()


@pytest.fixture(scope="session")
def speech() -> Samples:
    """A spoken sentence at 8 kHz, half scale, trimmed to its first and last loud sample."""
    hibari = pytest.importorskip("hibari")
    parts = hibari.Hibari().stream("I would like to book a table for two.", seed=1)
    spoken = np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])
    spoken = soxr.resample(spoken, hibari.SAMPLE_RATE, 8000)
    spoken = spoken / np.max(np.abs(spoken)) / 2
    loud = np.flatnonzero(np.abs(spoken) > 0.02)
    return np.asarray(spoken[loud[0] : loud[-1] + 1] * 32767, dtype=np.int16)


@pytest.fixture
async def engine(weights: bytes) -> AsyncIterator[MediaEngine]:
    engine = MediaEngine("127.0.0.1", port_count=2, vad_model=weights, max_streams=16)
    yield engine
    engine.close()


@pytest.fixture
async def events(engine: MediaEngine) -> AsyncIterator[Events]:
    events = Events(engine)
    yield events
    events.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = await open_peer()
    yield peer
    await peer.close()
