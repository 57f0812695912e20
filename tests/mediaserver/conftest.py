"""Speech that the tests' callers say, synthesised once."""

from __future__ import annotations

import asyncio

import pytest

from mediaserver.softphone.speech import Utterance, synthesise


@pytest.fixture(scope="session")
def question() -> Utterance:
    """Free speech of about two seconds."""
    return asyncio.run(synthesise("What are your opening hours on Friday?"))
