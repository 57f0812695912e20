"""The log's lines: for machines and for people, bounded, and without what nobody should read."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from datetime import datetime

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from mediaserver.errors import StartupError
from mediaserver.telemetry.logs import MAX_LINE_BYTES, configure_logs
from mediaserver.telemetry.redaction import HIDDEN, MIN_SECRET_CHARACTERS, Redactor
from tests.telemetry.conftest import LogsTo

Says = Callable[..., None]


def _says_from(module: str) -> Says:
    """A function of that module which logs its arguments at a level."""
    scope: dict[str, Says] = {}
    exec("def say(to, level, *said):\n    to.log(level, *said)", {"__name__": module}, scope)
    return scope["say"]


ours = _says_from("mediaserver.test")
theirs = _says_from("pipecat.services.test")


def _lines(text: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in text.getvalue().split("\n")[:-1]]


def test_a_json_line_says_when_what_and_whose(logs_to: LogsTo) -> None:
    text, _ = logs_to("INFO", "json")
    ours(
        logger.bind(call="a84b4c76e66710", tenant="bakery", event="call_ended"),
        "INFO",
        "call ended: {}",
        "remote_bye",
    )
    ours(logger, "DEBUG", "too little")
    (line,) = _lines(text)
    time = datetime.fromisoformat(str(line.pop("time")))
    assert time.utcoffset() is not None
    assert abs((datetime.now(time.tzinfo) - time).total_seconds()) < 60
    assert line == {
        "level": "INFO",
        "message": "call ended: remote_bye",
        "call": "a84b4c76e66710",
        "tenant": "bakery",
        "event": "call_ended",
        "logger": "mediaserver.test",
    }
    assert text.getvalue().count("\n") == 1


def test_a_workers_lines_say_which_and_odd_characters_do_no_harm(logs_to: LogsTo) -> None:
    for log_format in ("json", "text"):
        text, redactor = logs_to("INFO", log_format)
        configure_logs("INFO", log_format, redactor=redactor, stream=text, worker="3")
        ours(logger.bind(tenant="x\udcff"), "INFO", "a file \udcff")
        if log_format == "json":
            (line,) = _lines(text)
            assert (line["worker"], line["tenant"], line["message"]) == ("3", "x?", "a file ?")
        else:
            assert " INFO [3 x?/-] a file ?" in text.getvalue()


def test_an_exception_is_its_type_and_its_places(logs_to: LogsTo) -> None:
    text, _ = logs_to("INFO", "json")

    def understand(words: str) -> None:
        try:
            int(words)
        except ValueError as error:
            raise KeyError(words) from error

    try:
        understand("my secret wish")
    except KeyError:
        ours(logger.opt(exception=True), "ERROR", "it failed")
    (line,) = _lines(text)
    assert line["exception"] == "KeyError"
    stack = line["stack"]
    assert isinstance(stack, list)
    assert [place.rpartition(" ")[2] for place in stack if "test_logs.py" in place] == [
        "understand",
        "test_an_exception_is_its_type_and_its_places",
        "understand",
    ] or any("understand" in place for place in stack)
    assert "ValueError, and because of it:" in stack
    assert "secret wish" not in text.getvalue()


def test_what_our_own_exceptions_and_the_systems_say_is_kept(logs_to: LogsTo) -> None:
    for log_format in ("json", "text"):
        text, _ = logs_to("INFO", log_format)
        for error in (
            StartupError("port 5060 is taken, token=abcdefgh"),
            OSError(98, "Address already in use"),
        ):
            ours(logger.opt(exception=error), "ERROR", "no start")
        assert "port 5060 is taken" in text.getvalue()
        assert "Address already in use" in text.getvalue()
        assert "abcdefgh" not in text.getvalue()


def test_a_text_line_is_one_line_whatever_is_in_it(logs_to: LogsTo) -> None:
    text, _ = logs_to("INFO", "text")
    ours(logger.bind(call="x\r\nINFO [fake]"), "INFO", "hello\n2026-01-01 ERROR [-/-] \x1b[31mforged")
    (line,) = text.getvalue().splitlines()
    assert "\\n2026-01-01 ERROR" in line
    assert "\x1b" not in line
    assert "[-/x??INFO [fake]]" in line


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=40),
    st.integers(1, 9_000),
    st.text(max_size=300),
    st.integers(0, 60),
    st.sampled_from(["json", "text"]),
)
def test_no_line_is_longer_than_its_bound(
    logs_to: LogsTo, piece: str, times: int, call: str, depth: int, log_format: str
) -> None:
    text, _ = logs_to("DEBUG", log_format)  # type: ignore[arg-type]

    def fail(left: int) -> None:
        if left:
            fail(left - 1)
        raise StartupError(piece * times)

    try:
        fail(depth)
    except StartupError:
        ours(logger.bind(call=call).opt(exception=True), "ERROR", "{}", piece * times)
    written = text.getvalue()
    assert written.endswith("\n")
    assert len(written.encode("utf-8", "replace")) <= MAX_LINE_BYTES
    if log_format == "json":
        assert len(_lines(text)) == 1


def test_of_libraries_only_warnings_and_only_their_place(logs_to: LogsTo) -> None:
    text, _ = logs_to("DEBUG", "json")
    theirs(logger, "DEBUG", "Generating TTS [what the receptionist says]")
    theirs(logger, "INFO", "Transcription: [what the caller says]")
    theirs(logger, "WARNING", "not speaking [what the receptionist says]")
    logging.getLogger("library").info("nothing")
    logging.getLogger("library").warning("reading %s failed", "what the caller says")
    try:
        raise ValueError("what the caller says")
    except ValueError:
        logging.getLogger("asyncio").exception(
            "Task exception was never retrieved\nfuture: <what the caller says>"
        )
    assert "what the" not in text.getvalue()
    warned, failed, task = _lines(text)
    assert str(warned["message"]).startswith("pipecat.services.test:")
    assert "41 characters" in str(warned["message"])
    assert failed["message"] == "library: reading %s failed"
    assert (task["message"], task["exception"]) == (
        "asyncio: Task exception was never retrieved",
        "ValueError",
    )


SECRETS = {
    "an OpenAI key": ("the key sk-proj-{} is wrong", "AbC1dEf2GhI3jKl4"),
    "a bearer token": ("Authorization was Bearer {} today", "eyJhbGciOi.J9-x_y"),
    "SIP credentials": (
        'Authorization: Digest username="bob", response="{}"',
        "6629fae49393a05397450978507c4ef1",
    ),
    "proxy credentials": (
        'proxy-authorization: Digest realm="x", nonce="{}"',
        "dcd98b7102dd2f0e8b11d0f600bfb0c0",
    ),
    "a bare digest": ('sent Digest username="bob", response="{}"', "6629fae49393a05397450978507c4ef1"),
    "an SDES key": (
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}|2^20",
        "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
    ),
    "a session's token": ("POST /sessions/{}/api/offer", "mYs3ss10nT0kenXYZ"),
    "a JSON web token": ("got {} from it", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N"),
    "a URL's password": ("https://bob:{}@example.com/v1", "hunter2hunter2"),
    "a query's token": ("GET /x?access_token={}&y=1", "abc123def456"),
    "a key by its name": ('{{"api_key": "{}"}}', "0123456789abcdef"),
}


@pytest.mark.parametrize(("template", "secret"), SECRETS.values(), ids=SECRETS)
def test_secrets_are_hidden_by_their_form(template: str, secret: str, logs_to: LogsTo) -> None:
    text, _ = logs_to("INFO", "json")
    ours(logger, "INFO", "{}", template.format(secret))
    ours(logger.opt(exception=StartupError(template.format(secret))), "ERROR", "no start")
    assert secret not in text.getvalue()
    assert text.getvalue().count(HIDDEN) == 2


@pytest.mark.parametrize(
    "harmless",
    [
        "call ended: remote_bye: the caller hung up",
        "answering 'sip:+15550100@192.0.2.1' for Test Bakery",
        "media threads run without real-time scheduling (RLIMIT_RTPRIO is 0)",
        "no text within 400 ms",
        "tenant:api.openai.com/gpt-4.1-mini: HTTP 429",
        "the first token came after 80 ms",
    ],
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    assert Redactor()(harmless) == harmless


@given(
    st.lists(st.text(min_size=MIN_SECRET_CHARACTERS, max_size=40), max_size=8),
    st.text(max_size=60),
    st.text(max_size=60),
)
def test_registered_values_are_hidden_wherever_they_stand(
    secrets: list[str], before: str, after: str
) -> None:
    redactor = Redactor()
    for secret in secrets:
        redactor.register(secret)
    for secret in secrets:
        kept = secret.strip()
        if len(kept) >= MIN_SECRET_CHARACTERS and kept not in HIDDEN:
            assert kept not in redactor(f"{before}{secret}{after}").replace(HIDDEN, "\0")


def test_what_is_read_from_the_environment_is_a_secret_from_then_on() -> None:
    redactor = Redactor()
    environ = redactor.watching(
        {"ACME": "a-key-of-acme", "SHORT": "abc", "OPENAI_MODEL": "gpt-4.1-mini", "B": "unread-value"}
    )
    for name in ("ACME", "SHORT", "OPENAI_MODEL", "MISSING"):
        environ.get(name)
    assert (
        redactor("a-key-of-acme abc gpt-4.1-mini unread-value") == f"{HIDDEN} abc gpt-4.1-mini unread-value"
    )
    assert len(environ) == 4
    assert set(environ) == {"ACME", "SHORT", "OPENAI_MODEL", "B"}
    assert os.environ.get("ACME") is None
