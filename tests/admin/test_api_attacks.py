"""Who tries what the API should not let pass: bodies, preconditions, cursors, tokens, keys, and servers to be asked."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from admin.middleware import MAX_BODY_BYTES
from admin.principals import Principal, Role
from config.admin import AdminConfig, IssuerConfig, RateLimit
from config.tenant import TenantConfig
from tenancy.canary import Metric
from tenancy.versions import Origin
from tests.admin.api import KEY_VALUE, OPERATOR, PLENTY, YAML, A, B, Prepared, config_of
from tests.admin.api_requests import operations_of
from tests.admin.issuer import AUDIENCE, Keys, raw_token, running_issuer
from tests.admin.turned import NOON_MS, Turned
from tests.vault.conftest import NOON
from vault.names import check_actor

VERSIONS = f"/v1/tenants/{A}/config/versions"
TRAIL = ("admin_audit", "admin_audit_head")
WHY = {"reason": "a reason"}


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{message} {exception}")
    yield lines
    logger.remove(sink)


# -- bodies ----------------------------------------------------------------------------------------------------


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536):
        yield b"x" * 65_536


async def test_a_prompt_of_ten_megabytes(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        before = api.state(*TRAIL)
        huge = config_of(A, instructions="x" * 10_000_000).encode()
        for body in (huge, in_pieces(10_000_000)):
            for key in ({}, {"Idempotency-Key": "k"}):
                refused = await api.ask(A, "POST", VERSIONS, headers=YAML | key, content=body)
                assert refused.status_code == 413, refused.text
                assert str(MAX_BODY_BYTES) in refused.json()["detail"]
        for length in ("-1", "1e3", "9" * 40, ""):
            refused = await api.ask(
                A, "POST", VERSIONS, headers=YAML | {"content-length": length}, content=b""
            )
            assert refused.status_code == 413, length
        # The API lets more in than a configuration may have.
        refused = await api.ask(
            A, "POST", VERSIONS, headers=YAML, content=config_of(A).encode() + b"#" * 1_050_000
        )
        assert refused.status_code == 413
        refused = await api.ask(
            A, "POST", VERSIONS, headers=YAML, content=config_of(A, instructions="x" * 900_000).encode()
        )
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "instructions"
        assert len(refused.content) < 5_000
        assert api.state(*TRAIL) == before


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("tenant_id: &a [*a]\n", 1),
        ("a: 1\nb: &x\n  c: *x\n", None),
        ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)), None),
        ("a: 1\na: 2\n", 2),
        ("a: [\n", None),
        ("a: " + "[" * 500 + "\n", 1),
        ("a: !!python/object/apply:os.system ['true']\n", 1),
        ("--- 1\n--- 2\n", None),
    ],
    ids=["cycle", "inner cycle", "alias bomb", "a key twice", "open", "deep", "tag", "two documents"],
)  # fmt: skip
async def test_yaml_that_is_an_attack_is_named_with_its_line(
    prepared: Prepared, tmp_path: Path, body: str, line: int | None
) -> None:
    async with prepared.open(tmp_path) as api:
        before = api.state(*TRAIL)
        for path in (VERSIONS, "/v1/tenants"):
            refused = await api.ask(OPERATOR, "POST", path, headers=YAML, content=body.encode())
            assert refused.status_code == 422, refused.text
            (fault,) = refused.json()["errors"]
            assert fault["line"] == line or (line is None and fault["line"] >= 1)
            assert fault["reason"]
        assert api.state(*TRAIL) == before


@pytest.mark.parametrize(
    "kind", ["", "text/yaml", "text/plain", "application/x-www-form-urlencoded", "application/json5", "multipart/form-data"]
)  # fmt: skip
async def test_bodies_of_another_type(prepared: Prepared, tmp_path: Path, kind: str) -> None:
    async with prepared.open(tmp_path) as api:
        before = api.state(*TRAIL)
        refused = await api.ask(
            A, "POST", VERSIONS, headers={"content-type": kind}, content=config_of(A).encode()
        )
        assert refused.status_code == 415
        path = f"/v1/tenants/{A}/keys/openai"
        body = json.dumps({"key": KEY_VALUE}).encode()
        refused = await api.ask(A, "PUT", path, headers={"content-type": kind}, content=body)
        assert refused.status_code == 415, refused.text
        assert KEY_VALUE not in refused.text
        assert api.state(*TRAIL) == before


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("part", ["absolute", "relative"])
async def test_a_bound_that_is_no_number_leaves_everything_readable(
    prepared: Prepared, tmp_path: Path, metric: Metric, number: str, part: str
) -> None:
    async with prepared.open(tmp_path) as api:
        before = api.state(*TRAIL)
        body = f'{{"reason": "r", "version": 2, "bounds": {{"{metric.value}": {{"{part}": {number}}}}}}}'
        refused = await api.ask(
            A, "PUT", f"/v1/tenants/{A}/config/trial",
            headers={"content-type": "application/json", "if-match": await api.active_tag(A)}, content=body,
        )  # fmt: skip
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["field"] == f"bounds.{metric.value}.{part}"
        assert api.state(*TRAIL) == before
        assert (await api.ask(A, "GET", f"/v1/tenants/{A}/config/trial")).status_code == 404
        await api.draft(A, who=A, greeting="Still here.")


@pytest.mark.parametrize(
    "address",
    ["a\0b", "a\r\nContact: x", "\x7f", "", "elsewhere", "sip:cell-2.example.com", "sip:a b"],
)
async def test_a_tenant_moves_to_what_its_callers_can_be_sent_to(
    prepared: Prepared, tmp_path: Path, address: str
) -> None:
    async with prepared.open(tmp_path) as api:
        path, before = f"/v1/tenants/{A}", api.state(*TRAIL)
        tag = (await api.ask(OPERATOR, "GET", path)).headers["etag"]
        moved = {"status": "moved", "moved_to": address}
        refused = await api.ask(OPERATOR, "PATCH", path, headers={"if-match": tag}, json=moved)
        assert refused.status_code == 422
        assert [each["field"] for each in refused.json()["errors"]] == ["moved_to"]
        assert api.state(*TRAIL) == before


# -- preconditions and cursors ---------------------------------------------------------------------------------


async def test_preconditions(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        path, tag = f"{VERSIONS}/2/activation", await api.active_tag(A)
        others = await api.active_tag(B)
        before = api.state(*TRAIL)
        for header, status in (
            (None, 428),
            (f"W/{tag}", 412),
            (others, 412),
            ('"1-0000000000000000", "x"', 412),
            (tag.strip('"'), 400),
            ("", 400),
            ("*, *", 400),
            (f"{tag},", 400),
            (", ".join([tag] * 17), 400),
            ('"' + "x" * 300 + '"', 400),
            (tag.upper(), 412),
        ):
            given = {} if header is None else {"If-Match": header}
            refused = await api.ask(A, "POST", path, json=WHY, headers=given)
            assert refused.status_code == status, (header, refused.text)
            assert api.state(*TRAIL) == before
        for version, header in (("2", f'"x", {tag} , W/"y"'), ("3", "*")):
            if version == "3":
                await api.draft(A, who=A, greeting="Third.")
            done = await api.ask(
                A, "POST", f"{VERSIONS}/{version}/activation", json=WHY, headers={"If-Match": header}
            )
            assert done.status_code == 200, done.text
        read = f"/v1/tenants/{A}/config"
        now = await api.active_tag(A)
        for header, status in ((now, 304), (f"W/{now}", 304), ("*", 304), (tag, 200), ("x", 400)):
            answer = await api.ask(A, "GET", read, headers={"If-None-Match": header})
            assert answer.status_code == status, header


def cursor(*parts: str) -> str:
    return base64.urlsafe_b64encode("\n".join(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", ["calls", "audit", "config/versions"])
async def test_cursors_that_were_tampered_with(prepared: Prepared, tmp_path: Path, path: str) -> None:
    async with prepared.open(tmp_path) as api:
        full = f"/v1/tenants/{A}/{path}"
        for bad in (
            "x", "====", "é", "A" * 513, cursor("a", "b", "c"), cursor("9" * 20), cursor("-1"), cursor("1", "2"),
            cursor("2025-01-01T00:00:00", "c"), cursor("٣"), cursor("1\0"), "_" * 100,
        ):  # fmt: skip
            refused = await api.ask(A, "GET", full, params={"cursor": bad})
            assert refused.status_code in (400, 422), (bad, refused.text)
        for odd in (cursor("9999-12-31T23:59:59+00:00", "\0"), cursor("0001-01-01T00:00:00+23:59", "x"),
                    cursor("9999-12-31T23:59:59-23:59", "x"), cursor("0"), cursor(str(2**53))):  # fmt: skip
            answer = await api.ask(A, "GET", full, params={"cursor": odd})
            assert answer.status_code in (200, 400), (odd, answer.text)
            assert B.encode() not in answer.content
        # Another tenant's is a place in one's own list.
        theirs = await api.ask(B, "GET", full.replace(A, B), params={"limit": "1"})
        mine = await api.ask(A, "GET", full, params={"cursor": theirs.json()["next_cursor"] or cursor("2")})
        assert B.encode() not in mine.content


# -- tokens ----------------------------------------------------------------------------------------------------


async def test_tokens_that_are_nobody_s(prepared: Prepared, tmp_path: Path, logged: list[str]) -> None:
    async with prepared.open(tmp_path) as api:
        good, path = api.tokens[A], f"/v1/tenants/{A}"
        before = api.state()
        tampered = [
            good[:20] + ("a" if good[20] != "a" else "b") + good[21:],
            good[:-1],
            good + "x",
            good.upper(),
        ]
        jwt = raw_token({"alg": "none"}, {"iss": "https://somebody.example", "sub": "ada", "tenant_id": A})
        for header in (
            *(f"Bearer {each}" for each in (*tampered, jwt, "", "x")),
            f"Basic {good}",
            good,
            "Bearer",
        ):
            answer = await api.ask(None, "GET", path, headers={"authorization": header})
            assert answer.status_code == 401, header
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert good[18:-7] not in answer.text
        assert api.state() == before
        assert (await api.ask(A, "GET", path)).status_code == 200
        revoked = await api.ask(OPERATOR, "DELETE", f"/v1/tokens/{api.token_ids[A]}")
        assert revoked.status_code == 200
        assert (await api.ask(A, "GET", path)).status_code == 401
        assert not any(good[18:] in line for line in logged)


async def test_tokens_that_expire(prepared: Prepared, tmp_path: Path) -> None:
    turned = Turned()
    async with prepared.open(tmp_path, clocks=turned.clocks) as api:
        await api.token(A)
        path = f"/v1/tenants/{A}"
        assert (await api.ask(A, "GET", path)).status_code == 200
        turned.turn(90 * 86_400_000 - 1)
        assert (await api.ask(A, "GET", path)).status_code == 200
        turned.turn(1)
        assert (await api.ask(A, "GET", path)).status_code == 401


async def test_jwts_of_an_issuer_and_replayed_ones(prepared: Prepared, tmp_path: Path) -> None:
    turned = Turned()
    async with running_issuer(Keys()) as issuer:
        admin = AdminConfig(
            rate_limit=PLENTY,
            failed_logins=PLENTY,
            issuers=(
                IssuerConfig(
                    issuer=issuer.url,
                    audience=AUDIENCE,
                    operator_role="admin",
                    tenant_role="shop",
                    one_use=True,
                ),
            ),
        )
        async with prepared.open(tmp_path, clocks=turned.clocks, admin=admin) as api:
            path = f"/v1/tenants/{A}"

            def token(number: int, **claims: Any) -> str:
                return issuer.token(jti=f"t-{number}", roles=["shop"], tenant_id=A, **claims)

            first = token(1)
            assert (await api.ask(first, "GET", path)).status_code == 200
            assert (await api.ask(first, "GET", path)).status_code == 401
            assert (await api.ask(token(2), "GET", f"/v1/tenants/{B}")).status_code == 404
            assert (await api.ask(token(3), "GET", "/v1/tenants")).status_code == 403
            wrong: tuple[dict[str, Any], ...] = (
                {"iss": "https://other.example"}, {"aud": "other"}, {"exp": NOON_MS // 1000 - 60}
            )  # fmt: skip
            for number, claims in enumerate(wrong, 10):
                assert (await api.ask(token(number, **claims), "GET", path)).status_code == 401, claims
            forged = issuer.token(issuer.keys.other_rsa, jti="t-4", roles=["admin"])
            assert (await api.ask(forged, "GET", path)).status_code == 401
            put = f"/v1/tenants/{A}/keys/openai"
            done = await api.ask(token(5, sub="x" * 128), "PUT", put, json={"key": "a key"})
            assert done.status_code == 200, done.text
            drafted = await api.ask(
                token(6, sub="x" * 128), "POST", VERSIONS, headers=YAML, content=config_of(A, greeting="J.")
            )
            assert drafted.status_code == 201, drafted.text


async def test_a_token_in_place_of_an_id_is_nowhere(
    prepared: Prepared, tmp_path: Path, logged: list[str]
) -> None:
    async with prepared.open(tmp_path) as api:
        # The one of the operator, which no file has; and a key, which may stand where its name should.
        pasted = (api.tokens[OPERATOR], "sk-Proj-9dKq2canarySecretValue")
        document = (await api.ask(None, "GET", "/openapi.json")).json()
        for operation in operations_of(document):
            for name in re.findall(r"{(\w+)}", operation.path):
                for text in pasted:
                    path = operation.path.replace(f"{{{name}}}", text).replace("{tenant_id}", A)
                    path = re.sub(r"{\w+}", "1", path)
                    for who in (A, OPERATOR):
                        answer = await api.ask(who, operation.method, path, json={})
                        assert answer.status_code >= 400, (operation, answer.text)
                        assert text[-20:] not in answer.text, (operation, answer.text)
        for text in pasted:
            assert text[-20:].encode() not in api.written()
            assert not any(text[-20:] in line for line in logged)


# -- keys ------------------------------------------------------------------------------------------------------


async def test_a_key_is_in_no_answer_log_or_file(
    prepared: Prepared, tmp_path: Path, logged: list[str]
) -> None:
    async with prepared.open(tmp_path) as api:
        path = f"/v1/tenants/{A}/keys/openai"
        for body in (
            {"key": KEY_VALUE},
            {"key": KEY_VALUE, "more": 1},
            {"key": [KEY_VALUE]},
            {"key": KEY_VALUE * 1_000},
            {"key": {"value": KEY_VALUE}},
            {"name": KEY_VALUE},
            [KEY_VALUE],
            KEY_VALUE,
            {"key": KEY_VALUE + "\0"},
            {"key": KEY_VALUE + " é\n"},
            {"key": ""},
        ):
            answer = await api.ask(A, "PUT", path, json=body, headers={"Idempotency-Key": "k-1"})
            assert answer.status_code in (200, 422), answer.text
            assert KEY_VALUE not in answer.text
            assert KEY_VALUE not in repr(answer.headers)
        for half in (b'{"key": "' + KEY_VALUE.encode(), b'{"key": "' + KEY_VALUE.encode() + b'\xff"}'):
            headers = {"content-type": "application/json"}
            answer = await api.ask(A, "PUT", path, content=half, headers=headers)
            assert answer.status_code in (400, 422), answer.text
            assert KEY_VALUE not in answer.text
        for method, where in (
            ("GET", "keys"),
            ("GET", "audit"),
            ("POST", "keys/rotation"),
            ("GET", "config"),
        ):
            answer = await api.ask(A, method, f"/v1/tenants/{A}/{where}")
            assert answer.status_code == 200
            assert KEY_VALUE not in answer.text
        assert KEY_VALUE.encode() not in api.written()
        assert not any(KEY_VALUE in line for line in logged)


# -- whom this server asks -------------------------------------------------------------------------------------

ELSEWHERE: dict[str, dict[str, object]] = {
    "llm": {"kind": "openai", "base_url": "http://169.254.169.254/latest", "model": "m"},
    "llm variable": {"kind": "openai", "api_key_env": "AWS_SECRET_ACCESS_KEY", "model": "m"},
    "stt": {"kind": "openai", "base_url": "http://127.0.0.1:5432/v1", "model": "m"},
    "tts": {"kind": "openai", "base_url": "http://[::1]/v1", "model": "m"},
}


@pytest.mark.parametrize("name", ELSEWHERE)
async def test_a_tenant_makes_this_server_ask_nobody(prepared: Prepared, tmp_path: Path, name: str) -> None:
    asked: list[TenantConfig] = []

    async def reach(config: TenantConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
        asked.append(config)
        return (), ()

    async with prepared.open(tmp_path, reachability=reach) as api:
        providers: dict[str, Any] = {"providers": {name.split(maxsplit=1)[0]: [ELSEWHERE[name]]}}
        before = api.state(*TRAIL)
        refused = await api.ask(A, "POST", VERSIONS, headers=YAML, content=config_of(A, **providers))
        assert refused.status_code == 403, refused.text
        assert "needs the role operator" in refused.json()["detail"]
        assert api.state(*TRAIL) == before
        drafted = await api.draft(A, **providers)
        before = api.state(*TRAIL)
        tag = {"If-Match": await api.active_tag(A)}
        for method, path, body in (
            ("POST", f"{VERSIONS}/{drafted}/validation", {"reachability": True}),
            ("POST", f"{VERSIONS}/{drafted}/activation", WHY),
            ("PUT", f"/v1/tenants/{A}/config/trial", WHY | {"version": drafted}),
            ("POST", f"/v1/tenants/{A}/config/rollback", WHY | {"to": drafted}),
        ):
            refused = await api.ask(A, method, path, json=body, headers=tag)
            assert refused.status_code == 403, (path, refused.text)
        assert asked == []
        assert api.state(*TRAIL) == before
        done = await api.ask(
            OPERATOR, "POST", f"{VERSIONS}/{drafted}/validation", json={"reachability": True}
        )
        assert done.status_code == 200
        assert len(asked) == 1


async def test_a_tenant_takes_no_number_and_no_more_calls(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        changes: tuple[dict[str, object], ...] = (
            {"numbers": ["+15550200"]},
            {"numbers": []},
            {"trunks": ["any"], "numbers": ["+15550177"]},
            {"max_concurrent_calls": 10_000},
        )
        for change in changes:
            refused = await api.ask(A, "POST", VERSIONS, headers=YAML, content=config_of(A, **change))
            assert refused.status_code in (403, 422), (change, refused.text)
            assert B not in refused.text


async def test_the_rate_is_each_one_s_own(prepared: Prepared, tmp_path: Path) -> None:
    admin = AdminConfig(rate_limit=RateLimit(per_minute=1, burst=3), failed_logins=PLENTY)
    async with prepared.open(tmp_path, admin=admin) as api:
        answers = [await api.ask(A, "GET", f"/v1/tenants/{A}") for _ in range(5)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert {each.headers["ratelimit-policy"] for each in answers} == {'"requests";q=3;w=180'}
        assert [each.headers["ratelimit"].split(";")[1] for each in answers] == [
            "r=2",
            "r=1",
            "r=0",
            "r=0",
            "r=0",
        ]
        assert (await api.ask(B, "GET", f"/v1/tenants/{B}")).status_code == 200


def test_a_long_name_is_cut_for_the_trails_and_stays_one_person_s() -> None:
    issuer = "https://sign.in.example/" + "x" * 470
    names = {Principal("a" * 128, Role.OPERATOR, None, f"{issuer}{end}").name for end in "12"}
    assert len(names) == 2
    for name in names:
        check_actor(name)
        assert Origin(name, "a reason", NOON).author == name
