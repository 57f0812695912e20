"""The admin API on a node with calls: real HTTP, real tokens, what the next call says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from admin.clocks import Clocks
from admin.opening import open_admin
from admin.principals import Role
from config.admin import AdminConfig
from config.node import NodeConfig
from mediaserver.softphone.speech import Utterance
from mediaserver.telemetry.schema import ADMIN_ANSWERS
from tests.sim.node import RunningNode, running_node
from tests.sim.vault import vault_config

NEW_GREETING = "Good day, this is the bakery around the corner."
YAML = {"Content-Type": "application/yaml"}
VERSIONS = "/v1/tenants/bakery/config/versions"


async def token(directory: Path, role: Role = Role.OPERATOR, tenant_id: str | None = None) -> tuple[str, str]:
    """An API token as `mediaserver admin token create` makes one, beside the node: it, and its id."""
    parts = await open_admin(NodeConfig(data_dir=directory / "data", admin=AdminConfig()), {}, Clocks())
    try:
        made = await parts.tokens.create(role=role, tenant_id=tenant_id, label="test", created_by="test")
        return made.token.reveal(), made.info.public_id
    finally:
        await parts.aclose()


@asynccontextmanager
async def client(running: RunningNode, secret: str) -> AsyncIterator[httpx.AsyncClient]:
    assert running.node.admin is not None
    headers = {"Authorization": f"Bearer {secret}"}
    url = f"http://127.0.0.1:{running.node.admin.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
        yield http


async def bakery(http: httpx.AsyncClient, **changes: object) -> str:
    """What the bakery's file says now, but for the changes."""
    active = (await http.get("/v1/tenants/bakery/config")).json()["content"]
    return yaml.safe_dump({**active, **changes})


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_is_activated_over_http_is_the_next_call_s(
    tmp_path: Path, question: Utterance, workers: int
) -> None:
    async with running_node(tmp_path, workers=workers, admin=AdminConfig(port=0)) as running:
        secret, _ = await token(tmp_path, Role.TENANT, "bakery")
        async with client(running, secret) as http:
            drafted = await http.post(
                VERSIONS, content=await bakery(http, greeting=NEW_GREETING), headers=YAML
            )
            assert drafted.status_code == 201, drafted.text
            version = drafted.json()["version"]
            checked = await http.post(f"{VERSIONS}/{version}/validation", json={})
            assert checked.json()["valid"], checked.text
            seen = (await http.get("/v1/tenants/bakery/config")).headers["ETag"]
            why = {"reason": "a friendlier greeting"}
            match = {"If-Match": seen}
            activated = await http.post(f"{VERSIONS}/{version}/activation", json=why, headers=match)
            assert activated.status_code == 200, activated.text
            again = await http.post(f"{VERSIONS}/{version}/activation", json=why, headers=match)
            assert again.status_code == 412, again.text
            report = await running.call(question)
            assert report.success, report
            async with asyncio.timeout(10):
                await running.node.idle()
            calls = (await http.get("/v1/tenants/bakery/calls")).json()["items"]
        assert [each["config_version"] for each in calls] == [version]
        assert calls[0]["transcript"][0]["text"] == NEW_GREETING
        assert running.node.telemetry.meters.value(ADMIN_ANSWERS, "config.activate", "2xx") == 1
        assert running.node.telemetry.meters.value(ADMIN_ANSWERS, "config.activate", "4xx") == 1


async def test_a_wrong_file_says_field_and_line_and_a_call_goes_on(
    tmp_path: Path, question: Utterance
) -> None:
    async with running_node(tmp_path, admin=AdminConfig(port=0), vault=vault_config(tmp_path)) as running:
        secret, public_id = await token(tmp_path)
        async with client(running, secret) as http:
            calling = asyncio.create_task(running.call(question))
            before = (await http.get("/v1/tenants/bakery/config")).headers["ETag"]
            wrong = (await bakery(http)).replace("Europe/Berlin", "Europe/Nowhere")
            line = next(n for n, text in enumerate(wrong.splitlines(), 1) if "Nowhere" in text)
            refused = await http.post(VERSIONS, content=wrong, headers=YAML)
            assert refused.status_code == 422, refused.text
            (fault,) = refused.json()["errors"]
            assert (fault["field"], fault["line"]) == ("time_zone", line)
            kept = await http.put("/v1/tenants/bakery/keys/openai", json={"key": "sk-of-the-bakery"})
            assert kept.status_code == 200, kept.text
            assert "sk-of-the-bakery" not in kept.text
            report = await calling
            assert report.success, report
            assert (await http.get("/v1/tenants/bakery/config")).headers["ETag"] == before
            assert (await http.delete(f"/v1/tokens/{public_id}")).status_code == 200
            assert (await http.get("/v1/tenants")).status_code == 401


async def test_a_store_of_the_api_s_that_is_damaged_costs_no_call(
    tmp_path: Path, question: Utterance
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.db").write_bytes(b"this is no database" * 100)
    async with running_node(tmp_path, admin=AdminConfig(port=0)) as running:
        assert running.node.admin is not None
        assert "admin.db" in running.node.admin.fault
        async with client(running, "mst_x") as http:
            answer = await http.get("/v1/tenants")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:mediaserver:problem:unavailable")
            operator = f"http://127.0.0.1:{running.node.operator_port}/status"
            status = (await http.get(operator)).json()["admin"]
        assert status["usable"] is False
        assert (await running.call(question)).success
