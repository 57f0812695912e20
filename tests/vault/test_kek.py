"""Where key-encryption keys come from, and what is refused there."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vault.conftest import kek, local, seeded
from vault import BadInput, KekUnusable, LocalKek, LocalKeyEncryption, kek_from_environment, kek_from_file
from vault.kek import KEK_IDS_MAX, kek_from_text
from vault.sealing import KeyMaterial, KeyPlace

KEY = bytes(range(1, 33))
HEX = KEY.hex()
BASE64 = base64.b64encode(KEY).decode()
PLACE = KeyPlace("a", 1)


def file(directory: Path, text: str = BASE64, mode: int = 0o600) -> Path:
    path = directory / "kek"
    path.write_text(text)
    path.chmod(mode)
    return path


@given(st.binary(min_size=32, max_size=32).filter(lambda key: len(set(key)) > 1))
def test_a_key_is_read_in_each_of_its_forms(key: bytes) -> None:
    forms = [
        key.hex(),
        key.hex().upper(),
        base64.b64encode(key).decode(),
        base64.b64encode(key).decode().rstrip("="),
        base64.urlsafe_b64encode(key).decode(),
        f"  {key.hex()}\n",
    ]
    assert {kek_from_text("k", form, "x").key.reveal() for form in forms} == {key}


@pytest.mark.parametrize(
    "text",
    ["", "x", HEX[:-1], HEX + "0", BASE64[:-2], BASE64 + "AAAA", "g" * 64, BASE64.replace("E", "!"), "password",
     "0" * 64, base64.b64encode(b"\xff" * 32).decode(), HEX.replace("0", "\u0660")],
)  # fmt: skip
def test_what_is_no_key_is_refused_and_not_told(text: str) -> None:
    with pytest.raises(KekUnusable, match=r"^the-place: ") as caught:
        kek_from_text("k", text, "the-place")
    assert len(text) < 9 or text not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_file(tmp_path: Path) -> None:
    assert kek_from_file("k", file(tmp_path)).key.reveal() == KEY
    assert kek_from_file("k", file(tmp_path, HEX + "\n", 0o400)).key.reveal() == KEY
    link = tmp_path / "link"
    link.symlink_to(file(tmp_path))
    assert kek_from_file("k", link).id == kek_from_text("k", HEX, "x").id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o601, 0o777])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KekUnusable, match=f"mode {mode:04o} lets others at it; it must be 0600 or 0400"):
        kek_from_file("k", file(tmp_path, mode=mode))


def test_what_is_no_file_of_a_key(tmp_path: Path) -> None:
    with pytest.raises(KekUnusable, match="No such file"):
        kek_from_file("k", tmp_path / "none")
    with pytest.raises(KekUnusable, match="not a regular file"):
        kek_from_file("k", tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KekUnusable, match="not a regular file"):
        kek_from_file("k", tmp_path / "pipe")
    with pytest.raises(KekUnusable, match="longer than 1024 bytes"):
        kek_from_file("k", file(tmp_path, HEX * 99))
    with pytest.raises(KekUnusable, match="not plain text"):
        kek_from_file("k", file(tmp_path, "ü" * 32))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path)
    os.chown(path, 12_345, -1)
    with pytest.raises(KekUnusable, match="owned by user 12345"):
        kek_from_file("k", path)


def test_a_variable() -> None:
    assert kek_from_environment("k", "VAULT_KEK", {"VAULT_KEK": HEX}).key.reveal() == KEY
    for environ in ({}, {"VAULT_KEK": "  "}):
        with pytest.raises(KekUnusable, match="VAULT_KEK is not set"):
            kek_from_environment("k", "VAULT_KEK", environ)


def test_an_id_tells_label_and_key_and_shows_nothing() -> None:
    one, other = kek_from_text("node", HEX, "x"), LocalKek("node", KeyMaterial(bytes(reversed(KEY))))
    assert one.id != other.id
    assert one.id.startswith("node:")
    assert len(one.id) == len("node:") + 8
    assert one.id.partition(":")[2] not in HEX
    assert repr(one) == f"LocalKek({one.id})"
    for label in ("", "a b", "-a", "x" * 41, "a:b"):
        with pytest.raises(BadInput, match="label"):
            LocalKek(label, KeyMaterial(KEY))


async def test_an_older_key_still_opens_and_the_current_one_wraps() -> None:
    key = KeyMaterial(KEY)
    wrapped = await local("old").wrap(key, PLACE)
    both = local("new", "old")
    assert (await both.unwrap(wrapped, PLACE)).reveal() == KEY
    again = await both.rewrap(wrapped, PLACE)
    assert again.kek_id == await both.current_id() == kek("new").id
    assert (await local("new").unwrap(again, PLACE)).reveal() == KEY
    with pytest.raises(BadInput, match=f"at most {KEK_IDS_MAX}"):
        LocalKeyEncryption(kek("k"), [kek(str(n)) for n in range(KEK_IDS_MAX)], seeded().randbytes)
