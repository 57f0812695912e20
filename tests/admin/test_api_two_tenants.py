"""Two tenants, an operator, and every operation that the document has, in any order: neither tenant sees or changes the other."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.admin.api import KEY_VALUE, NUMBERS, OPERATOR, A, Api, B, Prepared
from tests.admin.api_requests import INVENTED, Asked, Operation, Seen, operations_of, requests

OF_REQUESTS = ("x-request-id", "retry-after", "ratelimit", "ratelimit-policy")
REFUSED_BEFORE = (400, 409, 413, 422, 429)
"""Before anything is begun, of a change that its role allows."""


def canaries(whose: str, api: Api, asked_for: list[str]) -> list[bytes]:
    """Texts of a tenant's that no answer to another one has: all but what that one asked for, which its own trail has."""
    fingerprints = api.rows("vault.db", "SELECT fingerprint FROM secrets WHERE tenant_id = ?", whose)
    tokens = api.rows("admin.db", "SELECT public_id FROM admin_tokens WHERE tenant_id = ?", whose)
    return [
        f"-of-{whose}".encode(),
        f"{KEY_VALUE}-{whose}".encode(),
        *(str(text).encode() for (text,) in [*fingerprints, *tokens] if text not in asked_for),
    ]


class TwoTenants(RuleBasedStateMachine):
    """On real parts, whose files are those of a folder that was prepared once."""

    prepared: Prepared

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="two-tenants-"))
        self.stack = AsyncExitStack()
        self.api = self.run(self.stack.enter_async_context(self.prepared.open(self.folder)))
        self.operations = operations_of(self.prepared.document)
        self.of_tenants = [each for each in self.operations if not each.for_operators]
        self.seen = Seen(token_ids=list(self.api.token_ids.values()), tokens=list(self.api.tokens.values()))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def look_around(self) -> None:
        for who in (A, B):
            for path in ("config", "versions?limit=1", "audit?limit=1", "calls"):
                full = f"/v1/tenants/{who}/{path}".replace("/versions", "/config/versions")
                self.note(self.run(self.api.ask(who, "GET", full)))

    def teardown(self) -> None:
        try:
            assert self.run(self.api.parts.audit.verify()) is None
            self.run(self.stack.aclose())
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    # -- what is asked -----------------------------------------------------------------------------------------

    @rule(data=st.data())
    def a_asks(self, data: st.DataObject) -> None:
        self.a_tenant_asks(data, A, B)

    @rule(data=st.data())
    def b_asks(self, data: st.DataObject) -> None:
        self.a_tenant_asks(data, B, A)

    def a_tenant_asks(self, data: st.DataObject, who: str, other: str) -> None:
        changes = [each for each in self.of_tenants if each.method != "GET"]
        self.look(who)
        choice = data.draw(st.sampled_from(changes * 4 + self.of_tenants + self.operations))
        asked = data.draw(requests(choice, self.seen, (who,) * 5 + (other, other, INVENTED, "Not-An-Id")))
        before = self.api.state_of(other)
        answer = self.ask(who, asked)
        assert self.api.state_of(other) == before
        for canary in canaries(other, self.api, self.seen.token_ids):
            assert canary not in answer.content, (asked, answer.text)
            assert canary not in repr(answer.headers.raw).encode()
        if asked.tenant_id not in (None, who):
            assert answer.status_code == 404
            self.same_as_of_nobody(who, asked, answer)
        elif choice.for_operators:
            assert answer.status_code == 403

    @rule(data=st.data())
    def the_operator_asks(self, data: st.DataObject) -> None:
        changes = [each for each in self.operations if each.method != "GET"]
        choice = data.draw(st.sampled_from(changes * 2 + self.operations))
        for who in (A, B):
            self.look(who)
        self.ask(OPERATOR, data.draw(requests(choice, self.seen, (A, B) * 4 + (INVENTED,))))

    def look(self, who: str) -> None:
        """See what is there now; with a new token where somebody has revoked the other."""
        for name in (OPERATOR, who):
            if self.run(self.api.ask(name, "GET", f"/v1/tenants/{who}")).status_code == 401:
                self.run(self.api.token(name))
        self.seen.latest[who] = []
        for path in ("", "/config"):
            answer = self.run(self.api.ask(who, "GET", f"/v1/tenants/{who}{path}"))
            self.seen.latest[who] += (
                [answer.headers["etag"]] * (1 + 2 * bool(path)) if "etag" in answer.headers else []
            )

    # -- what holds for each -----------------------------------------------------------------------------------

    def ask(self, who: str, asked: Asked) -> httpx.Response:
        before = self.api.state()
        answer = self.send(who, asked, asked.path)
        after = self.api.state()
        self.check_answer(asked.operation, answer)
        self.check_trail(asked, answer)
        if answer.status_code >= 300 and asked.operation.method != "GET":
            kept = ("admin.db/admin_audit", "admin.db/admin_audit_head", "admin.db/admin_keys")
            # A check of a version that finds errors refuses it for good; no other refusal changes anything.
            changed = {table for table in after if after[table] != before[table]} - set(kept)
            assert not changed, (asked, answer.text, changed)
        if answer.status_code < 300 and "Idempotency-Key" in asked.headers:
            self.check_repetition(who, asked, answer)
        self.note(answer)
        return answer

    def send(self, who: str, asked: Asked, path: str) -> httpx.Response:
        headers, content = dict(asked.headers), asked.content
        if asked.content is None and "requestBody" in asked.operation.says:
            # Not the client's own JSON: that of orjson would refuse half a surrogate pair.
            headers["content-type"] = "application/json"
            content = json.dumps(asked.json).encode()
        sent = self.api.ask(
            who, asked.operation.method, path, headers=headers, params=asked.params, content=content
        )
        found: httpx.Response = self.run(sent)
        return found

    def check_answer(self, operation: Operation, answer: httpx.Response) -> None:
        assert answer.status_code < 500, (operation, answer.text)
        body = answer.json() if answer.content else None
        operation.check(answer.status_code, answer.headers.get("content-type", ""), body)
        assert answer.headers["cache-control"] == "no-store"
        for token in self.api.tokens.values():
            assert token.encode() not in answer.content
        assert KEY_VALUE.encode() not in answer.content

    def check_trail(self, asked: Asked, answer: httpx.Response) -> None:
        lines = self.api.trail(answer.headers["x-request-id"])
        status = answer.status_code
        if asked.operation.method == "GET":
            assert [each for each, _ in lines] == ([] if status not in (403, 404) or not lines else [status])
        elif "idempotency-replayed" in answer.headers:
            assert lines == []
        elif status < 300:
            assert [each for each, _ in lines] == [102, status]
        else:
            assert [each for each, _ in lines] in ([102, status], [status], [])
            assert lines or status in REFUSED_BEFORE

    def check_repetition(self, who: str, asked: Asked, answer: httpx.Response) -> None:
        before = self.api.state()
        again = self.send(who, asked, asked.path)
        if again.status_code == 401:
            # Who asks has revoked its own token.
            assert asked.operation.method == "DELETE"
            assert asked.operation.path == "/v1/tokens/{public_id}"
            return
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.content) == (answer.status_code, answer.content)
        for name in ("etag", "location", "content-type"):
            assert again.headers.get(name) == answer.headers.get(name)
        assert self.api.state() == before

    def same_as_of_nobody(self, who: str, asked: Asked, answer: httpx.Response) -> None:
        other = self.send(who, asked, asked.about("tenant-m"))
        for each in (answer, other):
            for name in OF_REQUESTS:
                each.headers.pop(name, None)
        assert other.status_code == answer.status_code
        assert _without_id(other) == _without_id(answer)
        assert other.headers.raw == answer.headers.raw

    def note(self, answer: httpx.Response) -> None:
        if "etag" in answer.headers and answer.headers["etag"] not in self.seen.tags:
            self.seen.tags.append(answer.headers["etag"])
        if answer.status_code == 200 and answer.content:
            told = answer.json()
            cursor = told.get("next_cursor")
            if cursor and cursor not in self.seen.cursors:
                self.seen.cursors.append(cursor)


def _without_id(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    return {name: value for name, value in found.items() if name != "request_id"}


@pytest.fixture(scope="module")
def machine_on(prepared: Prepared) -> type[TwoTenants]:
    return type("PreparedTenants", (TwoTenants,), {"prepared": prepared})


def test_neither_of_two_tenants_sees_or_changes_the_other(machine_on: type[TwoTenants]) -> None:
    assert NUMBERS[A] != NUMBERS[B]
    run_state_machine_as_test(machine_on, settings=settings(max_examples=6, stateful_step_count=30))


def test_every_operation_about_the_other_tenant_is_answered_as_about_nobody(
    machine_on: type[TwoTenants],
) -> None:
    """All of them, whatever the machine has drawn."""
    machine = machine_on()
    try:
        for operation in machine.operations:
            if not operation.of_a_tenant:
                continue
            path = operation.path.replace("{tenant_id}", B)
            for name, value in (("version", "1"), ("name", f"canary-{B}")):
                path = path.replace(f"{{{name}}}", value)
            assert "{" not in path
            asked = Asked(operation, B, path, {}, {}, b"{}", None)
            before = machine.api.state_of(B)
            answer = machine.ask(A, asked)
            assert answer.status_code == 404
            machine.same_as_of_nobody(A, asked, answer)
            assert machine.api.state_of(B) == before
    finally:
        machine.teardown()
