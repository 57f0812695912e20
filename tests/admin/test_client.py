"""The client: what it repeats, with what, how often; and what it makes of answers that no admin API gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx2
import pytest

from admin.client import ATTEMPTS, AdminClient, ApiProblem, ApiUnreachable
from admin.problems import MEDIA_TYPE

PROBLEM = {
    "type": "urn:mediaserver:problem:unavailable",
    "detail": "the tenants' store is busy",
    "status": 503,
}


def busy(status: int = 503, retry_after: str | None = "0") -> httpx2.Response:
    headers = {"Content-Type": MEDIA_TYPE} | ({} if retry_after is None else {"Retry-After": retry_after})
    return httpx2.Response(status, json=PROBLEM, headers=headers)


class Server:
    """Gives its answers in turn, the last for ever, and keeps what it was asked."""

    def __init__(self, *answers: Callable[[], httpx2.Response]) -> None:
        self._answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def client(self) -> AdminClient:
        return AdminClient("http://node", "secret-token", transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        return self._answers[min(len(self.asked), len(self._answers)) - 1]()

    @property
    def keys(self) -> Sequence[str | None]:
        return [each.headers.get("Idempotency-Key") for each in self.asked]


def done() -> httpx2.Response:
    return httpx2.Response(200, json={"done": True})


@pytest.mark.parametrize("status", [429, 503])
async def test_a_change_is_repeated_under_the_same_key(status: int) -> None:
    server = Server(lambda: busy(status), lambda: busy(status), done)
    async with server.client() as api:
        assert await api.change("POST", "/v1/tenants", {"a": 1}) == {"done": True}
        assert await api.change("POST", "/v1/tenants", {"a": 1}) == {"done": True}
    first, second, third, other = server.keys
    assert first is not None
    assert first == second == third != other
    assert {each.headers["Authorization"] for each in server.asked} == {"Bearer secret-token"}


async def test_it_gives_up_after_the_second_repetition() -> None:
    server = Server(busy)
    async with server.client() as api:
        with pytest.raises(ApiProblem, match="the tenants' store is busy") as caught:
            await api.get("/v1/tenants")
    assert (caught.value.answered, caught.value.said) == (503, "unavailable")
    assert len(server.asked) == ATTEMPTS


@pytest.mark.parametrize(
    ("status", "retry_after"), [(503, None), (503, "60"), (503, "soon"), (429, "6"), (500, "0"), (409, "0")]
)
async def test_what_says_no_time_or_a_late_one_is_not_waited_for(
    status: int, retry_after: str | None
) -> None:
    server = Server(lambda: busy(status, retry_after), done)
    async with server.client() as api:
        with pytest.raises(ApiProblem):
            await api.get("/v1/tenants")
    assert len(server.asked) == 1


async def test_of_a_key_no_digest_is_to_be_kept() -> None:
    server = Server(busy, done)
    async with server.client() as api:
        await api.change("PUT", "/v1/tenants/a/keys/b", {"key": "sk-1"}, secret=True)
    assert server.keys == [None, None]


def lost(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("")


def nobody(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("All connection attempts failed")


@pytest.mark.parametrize(
    ("method", "fails", "uncertain"),
    [("POST", lost, True), ("POST", nobody, False), ("GET", lost, False)],
)
async def test_a_change_whose_answer_is_lost_is_uncertain_and_not_repeated(
    method: str, fails: Callable[[httpx2.Request], httpx2.Response], uncertain: bool
) -> None:
    asked = 0

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        return fails(request)

    async with AdminClient("http://node", transport=httpx2.MockTransport(answer)) as api:
        with pytest.raises(ApiUnreachable) as caught:
            await (api.get("/v1/tenants") if method == "GET" else api.change(method, "/v1/tenants"))
    assert ("whether it was done is not known" in str(caught.value)) is uncertain
    assert str(caught.value).startswith("http://node: ")
    assert ("is the node running" in str(caught.value)) == (fails is nobody)
    assert asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json=["a"]),
        httpx2.Response(302, headers={"Location": "http://elsewhere/"}, json={}),
        httpx2.Response(404, json={"detail": "Not Found"}),
        httpx2.Response(401, json={"type": "urn:mediaserver:problem:x", "errors": ["not ours"]}),
        httpx2.Response(500, text="failed"),
        httpx2.Response(204),
    ],
)
async def test_what_no_admin_api_answers(answer: httpx2.Response) -> None:
    server = Server(lambda: answer)
    async with server.client() as api:
        with pytest.raises(ApiUnreachable, match=f"answered {answer.status_code}, and not as the admin API"):
            await api.get("/v1/tenants")
    assert len(server.asked) == 1, "no redirect is followed: the token would go along"


async def test_faults_that_are_none_are_left_out() -> None:
    document = PROBLEM | {"errors": ["x", {"field": "time_zone", "reason": "is none"}, {}]}
    server = Server(lambda: httpx2.Response(422, json=document, headers={"Content-Type": MEDIA_TYPE}))
    async with server.client() as api:
        with pytest.raises(ApiProblem) as caught:
            await api.get("/v1/tenants")
    assert str(caught.value).splitlines()[1] == "time_zone: is none"
