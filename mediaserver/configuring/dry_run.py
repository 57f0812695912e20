"""Builds what a call would be answered with, from a configuration, without a call and without network.

The pipeline is the real one (`CallPipeline`), on a link that leads nowhere. Building it asks nobody: providers are asked when
it runs. So what is found here is what would refuse every call with this configuration.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.node import PlatformProviders
from config.tenant import TenantConfig
from config.variables import VariableError, filled_in
from tenancy import TenantContext
from tenancy.providers import resolve
from tenancy.registry import NO_TRUNK

MAX_PROMPT_CHARACTERS: Final = 120_000
"""About 30,000 tokens, which every turn would send and pay for."""


async def dry_run(
    config: TenantConfig, platform: PlatformProviders, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """What keeps calls from being answered as the configuration says; nothing, where all is well."""
    try:
        said = filled_in(config)
    except VariableError as error:
        return (str(error),)
    chains = resolve(said.providers, platform, environ)
    context = TenantContext(
        tenant_id=said.tenant_id,
        call_id="dry-run",
        called_number=said.numbers[0],
        trunk_id=NO_TRUNK,
        config=said,
        config_version=0,
        content_hash="",
        stt=chains.stt,
        llm=chains.llm,
        tts=chains.tts,
        skipped_providers=chains.skipped,
    )
    return await _build(context)


async def _build(context: TenantContext) -> tuple[str, ...]:
    # Pipecat takes seconds to import: the other commands do without it.
    from mediaserver.configuring.nobody import NoLink, NoObserver
    from mediaserver.phrase_cache import PhraseCache
    from mediaserver.pipeline.call_pipeline import CallPipeline, PipelineResources
    from mediaserver.pipeline.providers import Budgets
    from mediaserver.pipeline.services import Embedded, ProviderAccess
    from mediaserver.providers.connections import ProviderClient
    from mediaserver.receptionist import ConversationState, Receptionist, system_prompt

    faults = []
    now = datetime.now(UTC)
    prompt = system_prompt(context.config, now)
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        faults.append(
            f"the system prompt has {len(prompt)} characters, at most {MAX_PROMPT_CHARACTERS} are sent with every turn:"
            " shorten instructions, faq or services"
        )
    reply = Receptionist(context.config).reply(ConversationState(), "What are your opening hours?", now)
    if not reply.text:
        faults.append("the built-in receptionist has nothing to say about the opening hours")
    with tempfile.TemporaryDirectory() as folder:
        async with ProviderClient() as http:
            resources = PipelineResources(
                providers=ProviderAccess(Embedded("http://127.0.0.1:9/v1"), http),
                budgets=Budgets(),
                phrases=PhraseCache(Path(folder)),
                clock=lambda: now,
            )
            try:
                CallPipeline(context, NoLink(), resources, NoObserver())
            except Exception as error:  # noqa: BLE001 - the outer boundary of what a call would end with
                faults.append(f"the pipeline cannot be built: {type(error).__name__}: {error}")
    return tuple(faults)
