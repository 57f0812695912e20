"""What calls report of keys, taken into the node's key resolver: the next call of that tenant takes the next step at once."""

from __future__ import annotations

from loguru import logger

from mediaserver.providers.breaker import Stage
from mediaserver.providers.key_watch import KeyReport
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import KEY_REFUSALS, KEY_REPORTS_DROPPED
from tenancy import TenantContext
from tenancy.keys import TenantKeys
from vault.resolver import Outcome, Service


class KeyReports:
    """One for a node; ``keys``: None where it has no vault, and no call reports anything."""

    def __init__(self, keys: TenantKeys | None, meters: Meters) -> None:
        self._keys = keys
        self._meters = meters

    def take(self, tenant: TenantContext, report: KeyReport) -> None:
        """Take a report of a call. One on a key that the call does not have is dropped, whoever it is from."""
        if self._keys is None or not _has(tenant, report):
            self._meters.inc(KEY_REPORTS_DROPPED)
            return
        now_ms = self._keys.now_ms()
        self._keys.resolver.report(
            Service(report.stage),
            report.key,
            report.outcome,
            began_ms=now_ms - report.took_ms,
            now_ms=now_ms,
            retry_after_ms=report.retry_after_ms,
        )
        if report.outcome is Outcome.SUCCEEDED:
            return
        self._meters.inc(KEY_REFUSALS, report.stage, report.outcome.name.lower())
        logger.bind(call=tenant.call_id, tenant=tenant.tenant_id, event="key_refused").warning(
            "{}: {} key {} version {} is {}; the next calls do without it for a while",
            report.stage,
            "the platform's" if report.key.owner is None else "the tenant's",
            report.key.name,
            report.key.version,
            report.outcome.value,
        )


def _has(tenant: TenantContext, report: KeyReport) -> bool:
    chain = {Stage.STT: tenant.stt, Stage.LLM: tenant.llm, Stage.TTS: tenant.tts}[report.stage]
    return any(step.key_ref == report.key for step in chain)
