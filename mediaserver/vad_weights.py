"""Where the voice activity detector's weights come from."""

from __future__ import annotations

import importlib.resources

from mediaserver.errors import StartupError


def silero_weights() -> bytes:
    """The Silero VAD model file that Pipecat bundles (byte-identical to that of silero-vad 6.2.3)."""
    try:
        return (importlib.resources.files("pipecat.audio.vad") / "data" / "silero_vad.onnx").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise StartupError("Pipecat's silero_vad.onnx is missing: reinstall pipecat-ai") from error
