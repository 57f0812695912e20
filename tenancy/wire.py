"""A call's `TenantContext` as text, for the worker that runs the call.

The text holds the call's provider keys: it crosses a socket between two processes of one node and is kept nowhere.
"""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from config.tenant import TenantConfig
from tenancy.context import TenantContext
from tenancy.errors import TenancyError
from tenancy.providers import Origin, ResolvedProvider
from vault.resolver import KeyRef

_Key = tuple[str | None, str, int]
_Step = tuple[str, Origin, str, str | None, str | None, str | None, _Key | None]
_CONTEXT = TypeAdapter(
    tuple[
        str, str, str, str, str, int, str, list[_Step], list[_Step], list[_Step], tuple[str, ...], str | None
    ]
)


class UnreadableContext(TenancyError):  # noqa: N818 - names what is wrong
    """A text that is no context."""


def dump_context(context: TenantContext, config_json: str) -> str:
    """The context as text; ``config_json`` is its configuration, which the caller may keep for the next call."""
    document = (
        context.tenant_id,
        context.call_id,
        context.called_number,
        context.trunk_id,
        config_json,
        context.config_version,
        context.content_hash,
        _steps(context.stt),
        _steps(context.llm),
        _steps(context.tts),
        context.skipped_providers,
        context.voice_of,
    )
    return _CONTEXT.dump_json(document).decode()


def load_context(text: str) -> TenantContext:
    """The inverse of `dump_context`. Raises `UnreadableContext`, without the text: it may hold keys."""
    try:
        tenant_id, call_id, called, trunk, config, version, digest, stt, llm, tts, skipped, voice_of = (
            _CONTEXT.validate_json(text)
        )
        return TenantContext(
            tenant_id,
            call_id,
            called,
            trunk,
            TenantConfig.model_validate_json(config),
            version,
            digest,
            _providers(stt),
            _providers(llm),
            _providers(tts),
            skipped,
            voice_of=voice_of,
        )
    except ValidationError as error:
        raise UnreadableContext(f"a call's context cannot be read: {error.error_count()} faults") from None


def _steps(chain: tuple[ResolvedProvider, ...]) -> list[_Step]:
    return [
        (step.kind, step.origin, step.reason, step.base_url, step.model, step.secret(), _key(step.key_ref))
        for step in chain
    ]


def _key(ref: KeyRef | None) -> _Key | None:
    return None if ref is None else (ref.owner, ref.name, ref.version)


def _providers(chain: list[_Step]) -> tuple[ResolvedProvider, ...]:
    return tuple(
        ResolvedProvider(kind, origin, reason, root, model, secret, None if key is None else KeyRef(*key))
        for kind, origin, reason, root, model, secret, key in chain
    )
