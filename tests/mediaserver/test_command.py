"""``mediaserver call`` as a person runs it: its own server, the embedded models, nothing simulated."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import wave
from pathlib import Path


def _call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mediaserver", "call", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )


def _free_port() -> int:
    """A port that is free for UDP and TCP, and that nobody is given who asks for any.

    The server of the call opens its media on any free ports, and before SIP: a port from the system's range for those may
    be gone by then.
    """
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(lowest_ephemeral - 1, 1024, -1):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("0.0.0.0", port))
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")


def test_a_call_without_a_server_starts_one_on_the_port_that_was_called(tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    result = _call(
        f"sip:+15550100@127.0.0.1:{_free_port()}",
        *(
            "--start-server",
            "--json",
            "--record",
            str(recording),
            "--say",
            "What are your opening hours on Friday?",
        ),
        MEDIASERVER_HTTP_PORT="0",
        MEDIASERVER_MEDIA_FIRST_PORT="0",
        MEDIASERVER_DATA_DIR=str(tmp_path / "node"),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["success"]
    # Her words as a recogniser hears them: names are spelt differently from run to run ("Small Abental").
    assert report["greeting"].lower().startswith("thank you for calling bright")
    (exchange,) = report["exchanges"]
    assert "Friday" in exchange["heard"]
    assert report["packets_lost"] == 0
    with wave.open(str(recording)) as audio:
        assert (audio.getnchannels(), audio.getframerate()) == (2, 8000)
        assert audio.getnframes() > 5 * 8000


def test_a_call_over_webrtc_is_the_same_conversation(tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    result = _call(
        *(
            "--webrtc",
            f"http://127.0.0.1:{_free_port()}",
            "--number",
            "+15550101",
            "--start-server",
            "--json",
        ),
        *("--record", str(recording), "--say", "What are your opening hours on Friday?"),
        MEDIASERVER_SIP_PORT="0",
        MEDIASERVER_MEDIA_FIRST_PORT="0",
        MEDIASERVER_DATA_DIR=str(tmp_path / "node"),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["success"]
    # The voice says each sentence a little differently, and the softphone's recogniser spells a name as it hears it.
    assert "plumbing" in report["greeting"].lower()
    assert "bright" not in report["greeting"].lower()
    (exchange,) = report["exchanges"]
    assert "Friday" in exchange["heard"]
    assert report["packets_lost"] == 0
    with wave.open(str(recording)) as audio:
        assert (audio.getnchannels(), audio.getframerate()) == (2, 16_000)
        assert audio.getnframes() > 5 * 16_000


def test_no_server_is_started_for_a_call_to_another_machine() -> None:
    result = _call("sip:+15550100@192.0.2.1", "--start-server", "--say", "Hello")
    assert result.returncode == 2
    assert "192.0.2.1 is not" in result.stderr
    assert "Traceback" not in result.stderr
