"""Each check of the doctor with a real fault."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.node import (
    CapacityConfig,
    FileKek,
    HttpConfig,
    ModelsConfig,
    OperatorConfig,
    SipConfig,
    StoreConfig,
    TenantFolderConfig,
    VaultConfig,
)
from mediaserver.doctor import files, machine, read_only
from mediaserver.doctor.checks import Status, warning, worst
from mediaserver.doctor.command import examine
from tests.doctor.conftest import Patient
from tests.sim.vault import KEK, keep, vault_config

FILES = Path(__file__).parents[1] / "tenancy" / "files"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_node_that_ended_in_order_is_well_but_not_there(patient: Patient) -> None:
    await patient.fill("a", "b")
    found = await patient.examine()
    found.pop("clock"), found.pop("capacity"), found.pop("memory"), found.pop("disk")  # The machine's own.
    assert {name for name, each in found.items() if each.status is not Status.OK} == {"node"}
    assert found["tenants' files"].measured == "2 of 2 read, whole, schema 5"
    assert found["gate: nodes"].measured == "nothing was measured in the last 60 min"


async def test_a_configuration_that_cannot_be_read_is_the_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("sip: {port: ninety}\n")
    (found,) = await examine(path, {})
    assert (found.name, found.status) == ("configuration", Status.ERROR)
    assert "sip.port" in found.todo


async def test_tenants_files_that_cannot_be_read_are_found(patient: Patient) -> None:
    await patient.fill("a")
    (patient.directory / "t.yaml").write_text("tenant_id: 7\n")
    patient.set(tenants=(patient.directory / "t.yaml",))
    assert (await patient.examine())["configuration"].status is Status.ERROR
    patient.set(tenants=(), tenant_folder=TenantFolderConfig(path=patient.directory / "none"))
    assert "is no folder" in (await patient.examine())["configuration"].measured


# -- files -----------------------------------------------------------------------------------------------


async def test_a_folder_that_is_not_there_yet(patient: Patient) -> None:
    patient.data.parent.mkdir(exist_ok=True)
    found = await patient.examine()
    assert found["data folder"].status is Status.WARNING
    assert found["shared.db"].status is Status.WARNING
    assert not patient.data.exists(), "nothing is made"


async def test_a_damaged_shared_file(patient: Patient) -> None:
    await patient.fill("a")
    path = patient.data / "shared.db"
    damaged = bytearray(path.read_bytes())
    damaged[4096 + 8 : 3 * 4096] = b"\xff" * (2 * 4096 - 8)
    path.write_bytes(damaged)
    found = (await patient.examine())["shared.db"]
    assert found.status is Status.ERROR
    assert "tenant restore" in found.todo
    path.write_bytes(b"this is not a database" * 400)
    assert "damaged, or no database" in (await patient.examine())["shared.db"].measured


async def test_a_damaged_tenant_a_swapped_one_and_one_that_is_gone(patient: Patient) -> None:
    await patient.fill("a", "b", "c", "d")
    folder = patient.data / "tenants"
    (folder / "client-a.db").write_bytes(b"not a database" * 1_000)
    shutil.copy(folder / "client-d.db", folder / "client-b.db")
    (folder / "client-c.db").unlink()
    found = (await patient.examine())["tenants' files"]
    assert found.status is Status.ERROR
    assert found.figures["missing"] == ["c: client-c.db is not there"]
    damaged = found.figures["damaged"]
    assert isinstance(damaged, list)
    assert [each.partition(":")[0] for each in damaged] == ["a", "b"]
    assert "is d's, not b's" in damaged[1]


async def test_a_sample_is_read_or_every_file(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SAMPLE", 2)
    await patient.fill(*"abcd")
    assert (await patient.examine())["tenants' files"].figures["read"] == 2
    (patient.data / "tenants" / "client-d.db").write_bytes(b"x" * 5_000)
    found = (await patient.examine(every_tenant=True))["tenants' files"]
    assert (found.figures["read"], found.status) == (4, Status.ERROR)


async def test_older_schemas_are_told_and_left(patient: Patient) -> None:
    (patient.data / "tenants").mkdir(parents=True)
    shutil.copy(FILES / "shared.db", patient.data)
    for each in ("client-a.db", "client-b.db"):
        shutil.copy(FILES / each, patient.data / "tenants")
    found = await patient.examine()
    assert found["shared.db"].status is found["tenants' files"].status is Status.WARNING
    assert found["shared.db"].figures["schema"] == 1
    assert found["tenants' files"].figures["older_schema"] == 2


async def test_a_newer_schema_is_an_error(patient: Patient) -> None:
    await patient.fill("a")
    for path in (patient.data / "shared.db", patient.data / "tenants" / "client-a.db"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
            connection.commit()
    found = await patient.examine()
    assert "newer" in found["shared.db"].measured
    assert found["shared.db"].status is Status.ERROR


async def test_a_file_whose_writer_was_killed_is_read_with_what_it_wrote_last(patient: Patient) -> None:
    await patient.fill("a")
    path = patient.data / "shared.db"
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode = WAL')\n"
        "c.execute(\"INSERT INTO tenants (tenant_id, status) VALUES ('late', 'active')\")\n"
        "os._exit(9)\n"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(path))
    assert await killed.wait() == 9
    assert path.with_name("shared.db-wal").exists()
    shared = files.shared(patient.config, 0)
    assert shared.checks[0].status is Status.OK
    assert shared.tenants == ("a", "late")


async def test_a_file_that_another_program_holds(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_only, "BUSY_S", 0.05)
    await patient.fill("a")
    with (
        closing(sqlite3.connect(patient.data / "shared.db", isolation_level=None)) as shared,
        closing(sqlite3.connect(patient.data / "tenants" / "client-a.db", isolation_level=None)) as own,
    ):
        for each in (shared, own):
            each.execute("PRAGMA locking_mode = EXCLUSIVE")
            each.execute("BEGIN EXCLUSIVE")
            each.execute("CREATE TABLE held (x)")
        found = await asyncio.to_thread(files.shared, patient.config, 0)
        (tenants,) = await asyncio.to_thread(lambda: files.tenants(patient.config, ("a",), every=True))
    assert (found.checks[0].status, "locked" in found.checks[0].measured) == (Status.WARNING, True)
    assert (tenants.status, "1 are locked" in tenants.measured) == (Status.WARNING, True)


# -- the machine -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


async def test_a_full_disk(patient: Patient, small_disk: Path) -> None:
    patient.set(data_dir=small_disk)
    patient.data = small_disk
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 2**21)
    found = (await patient.examine())["disk"]
    assert found.status is Status.ERROR
    assert found.figures["free_bytes"] == 0


async def test_a_folder_that_cannot_be_written(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    await patient.fill("a")
    if os.geteuid() == 0:
        # Root may write everywhere: what access(2) says to others.
        may = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != patient.data and may(path, mode))
    else:
        patient.data.chmod(0o500)
    assert (await patient.examine())["data folder"].status is Status.ERROR


async def test_ports_of_somebody_else(patient: Patient) -> None:
    await patient.fill("a")
    with socket.socket() as other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        other.bind(("127.0.0.1", 0))
        other.listen()
        datagrams.bind(("0.0.0.0", 0))
        taken, sip = other.getsockname()[1], datagrams.getsockname()[1]
        patient.set(
            http=HttpConfig(host="127.0.0.1", port=taken, operator=OperatorConfig(port=0)),
            sip=SipConfig(host="127.0.0.1", port=sip, tcp=False),
        )
        found = await patient.examine()
    assert found["HTTP port"].status is found["SIP port"].status is Status.ERROR
    assert f"(process {os.getpid()})" in found["HTTP port"].measured
    assert found["operator port"].status is Status.OK
    assert (await patient.examine())["HTTP port"].status is Status.OK, "it is free by now"


async def test_a_port_on_another_address_is_in_nobodys_way(patient: Patient) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        other.listen()
        port = other.getsockname()[1]
        patient.set(http=HttpConfig(host="127.0.0.1", port=port, operator=OperatorConfig(port=0)))
        assert (await patient.examine())["HTTP port"].status is Status.OK
        patient.set(http=HttpConfig(host="0.0.0.0", port=port, operator=OperatorConfig(port=0)))
        assert (await patient.examine())["HTTP port"].status is Status.ERROR


async def test_too_few_descriptors_and_too_many_calls(patient: Patient) -> None:
    patient.set(store=StoreConfig(max_open_shards=10_000), capacity=CapacityConfig(slots=90_000))
    found = await patient.examine()
    assert found["file descriptors"].status is Status.WARNING
    assert found["file descriptors"].figures["needed"] == 256 + 30_000 + 360_000
    assert found["capacity"].status is Status.WARNING
    assert "every caller hears pauses" in found["capacity"].todo


async def test_a_limit_that_is_too_low(patient: Patient) -> None:
    await patient.fill("a")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (900, before[1]))
    try:
        found = (await patient.examine())["file descriptors"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (found.status, found.figures["limit"]) == (Status.WARNING, 900)


def test_memory_that_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.memory()
    available = found.figures["available_bytes"]
    assert isinstance(available, int)
    assert 0 < available <= int(str(found.figures["total_bytes"]))
    monkeypatch.setattr(machine, "MEMORY_ERROR_BYTES", 2**60)
    assert machine.memory().status is Status.ERROR


async def test_models_that_do_not_answer(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as model:
        model.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{model.getsockname()[1]}/v1"
        patient.set(models=ModelsConfig(url=url))
        assert (await patient.examine())["models"].status is Status.ERROR
        model.listen()
        assert (await patient.examine())["models"].status is Status.OK
    monkeypatch.setattr(machine, "MODEL_PACKAGES", ("faster_whisper", "no_such_package"))
    patient.set(models=ModelsConfig())
    assert "no_such_package" in (await patient.examine())["models"].measured


def test_a_clock_that_was_never_set_or_is_behind_what_was_written() -> None:
    assert machine.clock(1_000, None).status is Status.ERROR
    assert "60 s from now" in machine.clock(now_ms(), now_ms() + 60_000).measured
    assert machine._clock_state() in range(6), "Linux tells"


# -- the vault -------------------------------------------------------------------------------------------


async def test_a_vault_and_its_trail_are_looked_through(patient: Patient) -> None:
    await patient.fill("a")
    patient.set(vault=vault_config(patient.directory))
    assert "no key was put yet" in (await patient.examine())["vault"].measured
    await keep(patient.directory, "a", own="sk-secret")
    found = await patient.examine()
    assert found["vault"].status is Status.OK
    assert found["vault's audit trail"].measured == "sound, 3 entries"


async def test_a_key_encryption_key_that_is_gone_or_another(patient: Patient) -> None:
    await keep(patient.directory, "a", own="sk-secret")
    other = patient.directory / "other"
    other.touch(0o600)
    other.write_text(KEK[::-1])
    patient.set(vault=VaultConfig(kek=FileKek(source="file", label="test", path=other)))
    found = (await patient.examine())["vault"]
    assert found.status is Status.ERROR
    assert "missing" in found.measured
    other.unlink()
    found = (await patient.examine())["vault"]
    assert found.status is Status.ERROR
    assert "wrapped by test:" in found.measured, "which key is needed"


async def test_a_damaged_vault_and_no_room_for_its_copy(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(patient.directory, "a", own="sk-secret")
    patient.set(vault=vault_config(patient.directory))
    monkeypatch.setattr(tempfile, "tempdir", str(patient.directory / "nowhere"))
    assert "no copy can be made" in (await patient.examine())["vault"].measured
    monkeypatch.undo()
    (patient.data / "vault.db").write_bytes(b"not a vault" * 500)
    assert (await patient.examine())["vault"].status is Status.ERROR


async def test_an_audit_trail_that_somebody_wrote_into(patient: Patient) -> None:
    await keep(patient.directory, "a", own="sk-secret")
    patient.set(vault=vault_config(patient.directory))
    with closing(sqlite3.connect(patient.data / "vault.db")) as connection:
        connection.execute("DROP TRIGGER audit_stays")
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 2")
        connection.commit()
    found = (await patient.examine())["vault's audit trail"]
    assert found.status is Status.ERROR
    assert "not sound at entry 2" in found.measured


def test_what_is_said_is_bounded_and_one_line() -> None:
    said = warning("x", "a\nb" + "c" * 10_000, "todo")
    assert "\n" not in said.measured
    assert len(said.measured) == 400
    assert worst([said]) is Status.WARNING
    assert worst([]) is Status.OK
    with pytest.raises(ValueError, match="something to do"):
        warning("x", "y", "")
