"""What the doctor finds of nodes, of the gate to Postgres, and of Postgres, each with a real fault."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time

import psycopg
import pytest

from config.node import (
    HttpConfig,
    OperatorConfig,
    PostgresConfig,
    StoreConfig,
)
from mediaserver.doctor.checks import Status
from perf.postgres_server import PostgresServer
from tenancy.figures import MINUTE_MS, NodeMinute, NodeRow
from tenancy.node_repository import SEEN_WITHIN_MS
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tests.doctor.conftest import Patient
from tests.tenancy.test_gate import minute


def now_ms() -> int:
    return time.time_ns() // 1_000_000


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
