"""API tokens: made, listed, revoked. A token is told once, when it is made."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from admin.documents import for_operators, problems
from admin.guard import ABOUT, SECRET_ANSWER, GuardedRoute
from admin.paging import Cursor, Limit, link_next, page_of, text_of, written
from admin.record_models import NewToken, Token, TokenOnce, Tokens
from admin.services import Asking, In


async def list_tokens(
    at: In, request: Request, response: Response, limit: Limit = 50, cursor: Cursor = None
) -> Tokens:
    """All tokens, by their ids; never what they are."""
    found = await at.tokens.list(tenant_id=None, after=text_of(cursor), limit=limit + 1)
    page = page_of([Token.of(each) for each in found], limit, [written(each.public_id) for each in found])
    link_next(request, response, page.next_cursor)
    return Tokens(items=page.items, next_cursor=page.next_cursor)


async def create(new: NewToken, at: In, asking: Asking, request: Request) -> TokenOnce:
    """Make a token. It takes no idempotency key: its answer is nowhere kept."""
    if new.tenant_id is not None:
        setattr(request.state, ABOUT, new.tenant_id)
        await at.registry.status(new.tenant_id)
    made = await at.tokens.create(
        role=new.role,
        tenant_id=new.tenant_id,
        label=new.label,
        created_by=asking.name,
        life_days=new.life_days,
    )
    return TokenOnce(**Token.of(made.info).model_dump(), token=made.token.reveal())


async def revoke(public_id: str, at: In, asking: Asking) -> Token:
    """Revoke a token for good; once more does no harm."""
    return Token.of(await at.tokens.revoke(public_id, tenant_id=None, by=asking.name))


def routes() -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix="/v1/tokens", route_class=GuardedRoute, tags=["tokens"])
    router.get("", name="tokens.list", openapi_extra=for_operators(), responses=problems())(list_tokens)
    router.post(
        "",
        name="tokens.create",
        status_code=201,
        openapi_extra={**for_operators(), SECRET_ANSWER: True},
        responses=problems(409),
    )(create)
    router.delete(
        "/{public_id}", name="tokens.revoke", openapi_extra=for_operators(), responses=problems(404)
    )(revoke)
    return router
