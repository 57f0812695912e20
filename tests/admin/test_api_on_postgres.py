"""The API where everything is in Postgres, tenants, keys, tokens and the trail: what a client sees is as on files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perf.postgres_server import NoPostgresError, PostgresServer, postgres_server
from tests.admin.api import KEY_VALUE, OPERATOR, YAML, A, Api, B, api_with, config_of, words

WHY = {"reason": "because"}


@pytest.fixture
async def api(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_with(tmp_path, postgres_url=postgres.new_database()) as opened:
        yield opened


async def good(api: Api, who: str, method: str, path: str, **more: Any) -> httpx.Response:
    answer = await api.ask(who, method, path, **more)
    assert answer.status_code < 300, answer.text
    return answer


async def test_a_tenants_life(api: Api, tmp_path: Path) -> None:
    config = f"/v1/tenants/{A}/config"
    tag = {"if-match": await api.active_tag(A)}
    checked = await good(api, A, "POST", f"{config}/versions/2/validation", json={})
    assert checked.json()["valid"]
    await good(api, A, "POST", f"{config}/versions/2/activation", json=WHY, headers=tag)
    stale = await api.ask(A, "POST", f"{config}/versions/2/activation", json=WHY, headers=tag)
    assert stale.status_code == 412
    tag = {"if-match": await api.active_tag(A)}
    third = await api.draft(A, who=A, greeting="Third.")
    await good(api, A, "PUT", f"{config}/trial", json=WHY | {"version": third}, headers=tag)
    trial = await good(api, A, "GET", f"{config}/trial")
    await good(api, A, "DELETE", f"{config}/trial", headers={"if-match": trial.headers["etag"]})
    await good(api, A, "POST", f"{config}/rollback", json=WHY | {"to": 1}, headers=tag)
    states = {each["version"]: each["state"] for each in await items(api, f"{config}/versions")}
    assert states == {4: "active", 3: "refused", 2: "rolled_back", 1: "superseded"}
    log = await items(api, f"{config}/log")
    pages: list[dict[str, Any]] = []
    url: str | None = f"{config}/log?limit=2"
    while url is not None:
        page = await good(api, A, "GET", url)
        pages += page.json()["items"]
        url = page.links.get("next", {}).get("url")
    assert pages == log
    await good(api, A, "PUT", f"/v1/tenants/{A}/keys/acme", json={"key": KEY_VALUE})
    await good(api, A, "DELETE", f"/v1/tenants/{A}/keys/acme")
    assert [each["name"] for each in await items(api, f"/v1/tenants/{A}/keys")] == ["acme", f"canary-{A}"]
    (call,) = await items(api, f"/v1/tenants/{A}/calls")
    assert call["call_id"] == words(A, "call")
    done = {each["action"] for each in await items(api, f"/v1/tenants/{A}/audit")}
    assert done >= {
        "config.activate",
        "trial.begin",
        "trial.end",
        "config.rollback",
        "keys.put",
        "keys.revoke",
    }
    assert await api.parts.audit.verify() is None
    assert not await asyncio.to_thread(lambda: list(tmp_path.rglob("*.db"))), "nothing is kept in files"


async def items(api: Api, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await good(api, A, "GET", path, params={})).json()["items"]
    return found


async def test_no_operation_reaches_another_tenant(api: Api) -> None:
    document = (await api.ask(None, "GET", "/openapi.json")).json()
    before = await others_state(api)
    asked = 0
    for template, operations in document["paths"].items():
        if "{tenant_id}" not in template:
            continue
        path = template.replace("{tenant_id}", B).replace("{version}", "2").replace("{name}", f"canary-{B}")
        assert "{" not in path, path
        for method, says in operations.items():
            takes = says.get("requestBody", {}).get("content", {})
            yaml_body = {"headers": YAML | {"if-match": "*"}, "content": config_of(B)}
            json_body = {
                "headers": {"if-match": "*"},
                "json": WHY | {"version": 1, "key": "k", "status": "suspended"},
            }
            answer = await api.ask(
                A,
                method.upper(),
                path,
                **(yaml_body if "application/yaml" in takes else json_body if takes else {}),
            )
            assert answer.status_code == 404, (method, path, answer.text)
            assert "canary-" not in answer.text.replace(f"canary-{B}", "")
            asked += 1
    assert asked > 20
    assert await others_state(api) == before


async def others_state(api: Api) -> str:
    """What the operator sees of the other tenant, but for the trail."""
    seen = []
    for path in (
        "",
        "/config",
        "/config/versions",
        "/config/log",
        "/config/trials",
        "/keys",
        "/calls",
        "/addresses",
    ):
        seen.append((await good(api, OPERATOR, "GET", f"/v1/tenants/{B}{path}")).json())
    return json.dumps(seen, sort_keys=True)


async def test_of_activations_at_once_one_wins(api: Api) -> None:
    drafts = [await api.draft(A, greeting=f"Number {number}.") for number in range(4)]
    tag = {"if-match": await api.active_tag(A)}
    paths = [f"/v1/tenants/{A}/config/versions/{each}/activation" for each in drafts]
    answers = await asyncio.gather(*(api.ask(A, "POST", path, json=WHY, headers=tag) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    (won,) = (answer for answer in answers if answer.status_code == 200)
    assert await api.active_tag(A) == won.headers["etag"]


async def test_a_server_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    try:
        with postgres_server() as server:
            async with api_with(tmp_path, postgres_url=server.new_database()) as api:
                await cut_off(api, server)
    except NoPostgresError as error:
        pytest.skip(str(error))


async def cut_off(api: Api, server: PostgresServer) -> None:
    path = f"/v1/tenants/{A}/config/versions"
    server.stop()
    asked = (
        api.ask(A, "GET", path),
        api.ask(A, "POST", path, headers=YAML, content=config_of(A, greeting="Lost.")),
    )
    for each in asked:
        answer = await each
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert str(server.directory) not in answer.text, "where it is, is nobody's business"
    server.start()
    assert [each["version"] for each in await items(api, path)] == [2, 1]
    assert await api.draft(A, who=A, greeting="Found.") == 3
    assert await api.parts.audit.verify() is None
