"""Builds what a call would be answered with, from a configuration, without a call and without network.

The pipeline is the real one (`CallPipeline`), on a link that leads nowhere. Building it asks nobody: providers are asked when
it runs. So the errors that are found here are what would refuse every call with this configuration.

A key that the configuration names and the vault does not have is a warning. Calls are answered without it, by the next of the
chain; the key may be put a moment later; and a change of the opening hours must not be refused, in a watched folder above
all, because somebody has revoked a key. But whoever asks is told, since an owner expects that a provider is asked that they
name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.node import NodeConfig, PlatformProviders
from config.tenant import Embedded, TenantConfig
from config.variables import VariableError, filled_in
from tenancy import TenantContext
from tenancy.call_keys import key_names
from tenancy.keys import absent_keys
from tenancy.lifecycle import DryRun, Report
from tenancy.providers import resolve
from tenancy.registry import NO_TRUNK
from vault import VaultError

MAX_PROMPT_CHARACTERS: Final = 120_000
"""About 30,000 tokens, which every turn would send and pay for."""


def dry_run_on(node: NodeConfig, environ: Mapping[str, str]) -> DryRun:
    """The dry run of a node's tenants, with its providers and its vault."""
    return lambda config: dry_run(config, node.providers, environ, node)


async def dry_run(
    config: TenantConfig,
    platform: PlatformProviders,
    environ: Mapping[str, str],
    node: NodeConfig | None = None,
) -> Report:
    """What keeps calls from being answered as the configuration says; nothing, where all is well. ``node``: whose vault it is."""
    try:
        said = filled_in(config)
    except VariableError as error:
        return Report((str(error),), ())
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
    return Report(await _build(context), await _without_keys(said, node, environ))


async def _without_keys(
    config: TenantConfig, node: NodeConfig | None, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """The keys that a call would do without, with the fields that name them."""
    names = key_names(config.providers)
    if not names:
        return ()
    absent: Mapping[str, str]
    if node is None or node.vault is None:
        absent = dict.fromkeys(names, "is missing: this node has no vault")
    else:
        try:
            absent = await absent_keys(node, environ, config.tenant_id, names)
        except VaultError as error:
            return (f"providers: whether the keys are there cannot be said: {error}",)
    chains = (("stt", config.providers.stt), ("llm", config.providers.llm), ("tts", config.providers.tts))
    return tuple(
        f"providers.{service}.{index}.key: key {step.key} {absent[step.key]}; calls do without this provider"
        for service, chain in chains
        for index, step in enumerate(chain)
        if not isinstance(step, Embedded) and step.key is not None and step.key in absent
    )


async def _build(context: TenantContext) -> tuple[str, ...]:
    # Pipecat takes seconds to import: the other commands do without it.
    from mediaserver.configuring.nobody import NoLink, NoObserver
    from mediaserver.phrase_cache import PhraseCache
    from mediaserver.pipeline.call_pipeline import CallPipeline, PipelineResources
    from mediaserver.pipeline.providers import Budgets
    from mediaserver.pipeline.services import Embedded as EmbeddedModels
    from mediaserver.pipeline.services import ProviderAccess
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
                providers=ProviderAccess(EmbeddedModels("http://127.0.0.1:9/v1"), http),
                budgets=Budgets(),
                phrases=PhraseCache(Path(folder)),
                clock=lambda: now,
            )
            try:
                CallPipeline(context, NoLink(), resources, NoObserver())
            except Exception as error:  # noqa: BLE001 - the outer boundary of what a call would end with
                faults.append(f"the pipeline cannot be built: {type(error).__name__}: {error}")
    return tuple(faults)
