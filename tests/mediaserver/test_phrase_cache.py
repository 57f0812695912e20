"""The phrase cache: bounded in memory, durable on disk."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.phrase_cache import MAX_PHRASE_BYTES, PhraseCache, PhraseKey


def _key(text: str) -> PhraseKey:
    return PhraseKey("joe", 1.0, text)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400)), max_size=60))
def test_memory_stays_within_its_bound_and_the_newest_phrase_is_there(puts: list[tuple[int, int]]) -> None:
    cache = PhraseCache(Path("unused"), memory_bytes=1_000)
    for number, size in puts:
        cache.put(_key(str(number)), bytes(size))
        assert cache.get(_key(str(number))) == bytes(size)
    held = [cache.get(_key(str(number))) for number in range(10)]
    assert sum(len(pcm) for pcm in held if pcm is not None) <= 1_000


async def test_a_stored_phrase_survives_the_process(tmp_path: Path) -> None:
    await PhraseCache(tmp_path).store(_key("hello"), b"\x01\x02")
    later = PhraseCache(tmp_path)
    assert later.get(_key("hello")) is None
    assert await later.load(_key("hello"))
    assert later.get(_key("hello")) == b"\x01\x02"
    assert not await later.load(_key("never said"))
    assert {path.suffix for path in tmp_path.iterdir()} == {".pcm"}  # noqa: ASYNC240 - a test may block


async def test_a_torn_file_is_not_played(tmp_path: Path) -> None:
    (tmp_path / f"{_key('hello').digest}.pcm").write_bytes(b"\x01")
    assert not await PhraseCache(tmp_path).load(_key("hello"))


def test_voice_speed_and_text_each_make_another_phrase() -> None:
    keys = {
        PhraseKey("joe", 1.0, "a"),
        PhraseKey("joe", 1.1, "a"),
        PhraseKey("amy", 1.0, "a"),
        PhraseKey("joe", 1.0, "b"),
    }
    assert len({key.digest for key in keys}) == 4


def test_an_oversized_phrase_is_not_kept() -> None:
    cache = PhraseCache(Path("unused"))
    cache.put(_key("long"), bytes(MAX_PHRASE_BYTES + 2))
    assert cache.get(_key("long")) is None
