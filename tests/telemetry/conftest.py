"""Logs of a test's own, and the process's as they were afterwards."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from mediaserver.telemetry.logs import LogFormat, configure_logs
from mediaserver.telemetry.redaction import Redactor

LogsTo = Callable[[str, LogFormat], tuple[io.StringIO, Redactor]]


@pytest.fixture
def logs_to() -> LogsTo:
    """Send logs of a level, in a format, to a text."""

    def configured(level: str, log_format: LogFormat) -> tuple[io.StringIO, Redactor]:
        text = io.StringIO()
        return text, configure_logs(level, log_format, stream=text)

    return configured
