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

import psycopg
import pytest

from config.node import (
    CapacityConfig,
    FileKek,
    HttpConfig,
    ModelsConfig,
    OperatorConfig,
    PostgresConfig,
    SipConfig,
    StoreConfig,
    TenantFolderConfig,
    VaultConfig,
)
from mediaserver.doctor import files, machine, read_only
from mediaserver.doctor.checks import Status, warning, worst
from mediaserver.doctor.command import examine
from perf.postgres_server import PostgresServer
from tenancy.figures import MINUTE_MS, NodeMinute, NodeRow
from tenancy.node_repository import SEEN_WITHIN_MS
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tests.doctor.conftest import Patient
from tests.sim.vault import KEK, keep, vault_config
from tests.tenancy.test_gate import minute

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


# -- nodes and the gate ------------------------------------------------------------------------------------


async def put(patient: Patient, *nodes: NodeRow, minutes: tuple[NodeMinute, ...] = ()) -> None:
    store = await SqliteStore.open(patient.data)
    try:
        for each in nodes:
            await store.keep_minutes(each, minutes)
    finally:
        await store.close()


async def test_a_second_node_on_the_same_folder_is_found(patient: Patient) -> None:
    await patient.fill("a")
    second = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE)
    try:
        host, now = socket.gethostname(), now_ms()
        ours = NodeRow("one", host, os.getpid(), now, now)
        await put(patient, ours)
        assert (await patient.examine())["nodes"].status is Status.OK
        await put(patient, NodeRow("two", host, second.pid, now, now))
        found = (await patient.examine())["nodes"]
        assert found.status is Status.ERROR
        assert found.figures["here"] == [os.getpid(), second.pid]
    finally:
        await second.communicate(b"\n")
    assert (await patient.examine())["nodes"].status is Status.OK, "it was killed: its row is nobody's"


async def test_a_process_that_has_a_nodes_number_by_now_is_no_node(patient: Patient) -> None:
    await patient.fill("a")
    await put(patient, NodeRow("one", socket.gethostname(), os.getpid(), 1_000, now_ms()))
    found = await patient.examine()
    assert found["node"].status is Status.WARNING
    assert found["node"].measured.startswith("none runs")


async def test_a_node_that_does_not_answer_and_one_that_ended_without_a_word(patient: Patient) -> None:
    await patient.fill("a")
    now = now_ms()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        patient.set(http=HttpConfig(host="127.0.0.1", port=0, operator=OperatorConfig(port=port)))
        await put(patient, NodeRow("one", socket.gethostname(), os.getpid(), now, now))
        found = await patient.examine()
    assert found["node"].status is Status.ERROR
    assert "does not answer" in found["node"].measured
    assert found["operator port"].status is Status.ERROR
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    await put(patient, NodeRow("one", socket.gethostname(), gone.pid, now, now))
    (patient.data / "mediaserver.pid").write_text(f"{gone.pid}\n")
    found = await patient.examine()
    assert found["node"].status is Status.WARNING
    assert f"names process {gone.pid}, which ended without a word" in found["node"].measured


async def test_a_node_on_another_machine_with_the_same_folder(patient: Patient) -> None:
    await patient.fill("a")
    now = now_ms()
    await put(patient, NodeRow("one", "elsewhere", 7, now, now))
    assert "elsewhere:7" in (await patient.examine())["nodes"].measured
    assert (await patient.examine())["nodes"].status is Status.WARNING
    await put(patient, NodeRow("one", "elsewhere", 7, now, now - SEEN_WITHIN_MS - 1))
    assert (await patient.examine())["nodes"].status is Status.OK


async def test_the_gate_is_told_by_criterion_with_figure_bound_and_since(patient: Patient) -> None:
    await patient.fill("a")
    now = now_ms()
    at = now // MINUTE_MS
    busy = tuple(
        minute(
            at - age, node_id="one", calls_p95=80, write_wait_p95_ms=100 if age < 3 else 1, crossing_ms=1_500
        )
        for age in range(1, 40)
    )
    await put(patient, NodeRow("one", "elsewhere", 7, now - 10**6, now), minutes=busy)
    found = await patient.examine()
    calls = found["gate: concurrency"]
    assert calls.status is Status.WARNING
    assert "migrate sqlite-to-postgres" in calls.todo
    assert (calls.figures["bound"], calls.figures["latest"], calls.figures["exceeded_minutes"]) == (
        0.7,
        0.8,
        39,
    )
    assert calls.figures["reached"] is True
    since = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime((at - 39 + 29) * 60))
    assert calls.figures["reached_since"] == since
    assert f"reached since {since}" in calls.measured
    writes = found["gate: write_contention"]
    assert (writes.status, writes.figures["peak"]) == (Status.OK, 100), "a peak is no gate"
    assert found["gate: cross_tenant"].status is Status.WARNING
    assert found["gate: nodes"].status is Status.OK


# -- Postgres ----------------------------------------------------------------------------------------------


@pytest.fixture
async def on_postgres(patient: Patient, postgres: PostgresServer) -> str:
    patient.data.mkdir()
    patient.set(store=StoreConfig(kind="postgres", postgres=PostgresConfig(wait_ms=1_000)))
    return postgres.new_database()


async def test_a_sound_postgres_and_the_gate_that_is_behind_it(patient: Patient, on_postgres: str) -> None:
    environ = {"MEDIASERVER_POSTGRES_URL": on_postgres}
    empty = (await patient.examine(environ))["postgres"]
    assert (empty.status, "empty" in empty.measured) == (Status.WARNING, True)
    store = await PostgresStore.open(on_postgres, PostgresConfig())
    now = now_ms()
    full = tuple(minute(now // MINUTE_MS - age, node_id="one", calls_p95=99) for age in range(1, 40))
    await store.keep_minutes(NodeRow("one", "elsewhere", 7, now, now), full)
    await store.close()
    found = await patient.examine(environ)
    assert found["postgres"].status is Status.OK
    assert "row-level security forced" in found["postgres"].measured
    assert found["gate: concurrency"].status is Status.OK
    assert found["gate: concurrency"].figures["reached"] is True
    assert "Postgres already" in found["gate: concurrency"].measured
    assert "shared.db" not in found


async def test_a_postgres_with_faults(patient: Patient, on_postgres: str, postgres: PostgresServer) -> None:
    variable = "MEDIASERVER_POSTGRES_URL"
    assert (await patient.examine())["postgres"].measured == f"{variable} is not set"
    assert (await patient.examine({variable: "sqlite://"}))["postgres"].status is Status.ERROR
    gone = "postgresql://role:secret@127.0.0.1:9/none"
    unreachable = (await patient.examine({variable: gone}))["postgres"]
    assert unreachable.status is Status.ERROR
    assert "secret" not in str(unreachable)
    await (await PostgresStore.open(on_postgres, PostgresConfig())).close()
    above = (await patient.examine({variable: postgres.superuser_url(on_postgres)}))["postgres"]
    assert "may pass over row-level security" in above.measured
    with psycopg.connect(on_postgres, autocommit=True) as session:
        session.execute("ALTER TABLE calls NO FORCE ROW LEVEL SECURITY")
        unforced = (await patient.examine({variable: on_postgres}))["postgres"]
        assert (unforced.status, "not forced on calls" in unforced.measured) == (Status.ERROR, True)
        session.execute("ALTER TABLE calls FORCE ROW LEVEL SECURITY")
        session.execute("UPDATE tenant_schema SET version_num = 'tenant_0003'")
        old = (await patient.examine({variable: on_postgres}))["postgres"]
        assert (old.status, "tenant_0003" in old.measured) == (Status.WARNING, True)
        session.execute("UPDATE tenant_schema SET version_num = 'tenant_9999'")
        assert (await patient.examine({variable: on_postgres}))["postgres"].status is Status.ERROR


def test_what_is_said_is_bounded_and_one_line() -> None:
    said = warning("x", "a\nb" + "c" * 10_000, "todo")
    assert "\n" not in said.measured
    assert len(said.measured) == 400
    assert worst([said]) is Status.WARNING
    assert worst([]) is Status.OK
    with pytest.raises(ValueError, match="something to do"):
        warning("x", "y", "")
