"""The calls of a node, however they came: who is called, whether there is room, and an end that comes exactly once.

The edges (SIP, WebRTC) bring an invitation and a media leg; the `Switchboard` names the tenant, takes a lease, runs the
`Call`, and gives everything back when it is over. It knows neither signalling protocol: an edge hands over the function
that hangs up, and reports the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from typing import assert_never

from loguru import logger

from admission import AdmissionGate, Admit, Lease, Reject
from mediaserver._native import MediaError
from mediaserver.call import Call, CallListener, Converse
from mediaserver.errors import MediaServerError
from mediaserver.media_link import EngineHub, LocalMediaLink
from mediaserver.providers.trail import provider_entries
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.outcomes import outcome_of
from mediaserver.telemetry.schema import CALL_COST, CALLS, CALLS_REFUSED, TRIAL_CALLS
from mediaserver.telemetry.sources import observe_quality
from mediaserver.telemetry.trial_log import TrialLog
from mediaserver.telemetry.trial_outcome import arm_name, trial_outcome
from tenancy import Called, CallNotRouted, CallRecord, Registry, TenancyError, TenantContext
from tenancy.canary import CallOutcome
from tenancy.routing import Answer, Refused
from tenancy.spending import MICROS, prices_of

MAX_CALL_S = 3_600
"""No conversation with a receptionist takes an hour."""
MAX_LOGGED_CHARACTERS = 64
"""Of what a stranger chose; logged quoted, so that it can be no line of its own."""
MAX_LOGGED_OUTCOME_CHARACTERS = 300
DRAIN_RETRY_AFTER_S = 10
STORE_RETRY_AFTER_S = 5
MAX_FAREWELL_S = 5.0
MAX_CALLS_SHOWN = 100
Farewell = Callable[[TenantContext], tuple[bytes, int] | None]
"""What a caller hears whose call the node ends: PCM and its rate."""
WORD_ABOUT_OVERLOAD = "all lines are busy"


class CallRefused(MediaServerError):  # noqa: N818 - names the outcome
    """The call is not taken. ``status`` is SIP's, which other signalling translates."""

    def __init__(
        self,
        status: int,
        why: str = "",
        *,
        retry_after_s: int | None = None,
        answer: Answer | None = None,
    ) -> None:
        super().__init__(why or str(status))
        self.status = status
        self.why = why
        self.retry_after_s = retry_after_s
        self.answer = answer
        """Where the call is no tenant's: the same in SIP and in HTTP."""

    @classmethod
    def unrouted(cls, answer: Answer) -> CallRefused:
        """A call that is no tenant's here."""
        return cls(answer.sip_status, answer.sip_reason, answer=answer)


class CallState(Enum):
    """Where a call stands on its way to its end."""

    UP = "up"
    HANGING_UP = "hanging up"
    """Our side has asked the edge to end it."""
    OVER = "over"


@dataclass(slots=True)
class ActiveCall:
    """What the node holds for one call."""

    call: Call
    lease: Lease
    hang_up: Callable[[str], None]
    """Ends the signalling; the edge answers with `Switchboard.ended`, at once or later."""
    state: CallState = CallState.UP
    deadline: asyncio.TimerHandle | None = None
    our_reason: str | None = None
    """Why our side hung up; None: it did not."""
    on_ended: Callable[[], None] | None = None
    """Told once, when the call is over, however it ended: the edge forgets it."""


class Switchboard:
    """Takes calls and ends them exactly once."""

    def __init__(
        self,
        *,
        registry: Registry,
        gate: AdmissionGate,
        hub: EngineHub,
        converse: Converse,
        meters: Meters,
        farewell: Farewell = lambda _: None,
        trials: TrialLog | None = None,
    ) -> None:
        self.hub = hub
        self._registry = registry
        self._gate = gate
        self._converse = converse
        self._farewell = farewell
        self.meters = meters
        self.trials = trials or TrialLog(meters)
        """The trials that were ended here."""
        self._active: dict[int, ActiveCall] = {}
        """By the number of the lease."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended_calls = 0
        self._draining = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def active_calls(self) -> int:
        """Calls in progress."""
        return len(self._active)

    def provider_steps(self) -> list[dict[str, object]]:
        """Who serves the calls in progress of tenants with keys in the vault, and why; at most `MAX_CALLS_SHOWN` of them."""
        tenants = (active.call.tenant for active in self._active.values())
        keyed = (tenant for tenant in tenants if tenant.has_vault_keys)
        return [
            {
                "call": each.call_id,
                "tenant": each.tenant_id,
                "providers": [str(step) for step in each.provider_steps],
            }
            for each in islice(keyed, MAX_CALLS_SHOWN)
        ]

    @property
    def draining(self) -> bool:
        """Whether no further call is taken."""
        return self._draining

    # -- before a call ---------------------------------------------------------------------------------

    async def tenant_for(self, called: Called, call_id: str) -> TenantContext:
        """Whose call it is, with the configuration that the call will have. Raises `CallRefused`."""
        if self._draining:
            self.meters.inc(CALLS_REFUSED, "draining")
            raise CallRefused(503, retry_after_s=DRAIN_RETRY_AFTER_S)
        try:
            return await self._registry.context_for(called, call_id=call_id)
        except CallNotRouted as error:
            self.meters.inc(CALLS_REFUSED, error.answer.code)
            logger.bind(call=call_id, event="call_refused").info(
                "call refused, {}: {}", error.answer.code, _shown(error.outcome)
            )
            raise CallRefused.unrouted(error.answer) from None
        except TenancyError as error:
            self.meters.inc(CALLS_REFUSED, "store")
            logger.bind(call=call_id).error("tenant lookup failed: {}", error)
            raise CallRefused(503, retry_after_s=STORE_RETRY_AFTER_S) from error

    def look_for_room(self, tenant: TenantContext) -> None:
        """Raise `CallRefused` where `admit` would, without taking or counting anything."""
        refusal = self._gate.refusal(tenant.tenant_id, tenant.config.max_concurrent_calls)
        if refusal is not None:
            raise _refused(refusal)

    def admit(self, tenant: TenantContext) -> Lease:
        """Take a lease: `begin` or `give_back` must follow. Raises `CallRefused`."""
        decision = self._gate.request(tenant.tenant_id, tenant.config.max_concurrent_calls, _now_ms())
        match decision:
            case Reject():
                logger.bind(call=tenant.call_id, tenant=tenant.tenant_id, event="call_refused").warning(
                    "call refused: {}", decision.reason
                )
                raise _refused(decision)
            case Admit():
                return decision.lease
            case _:
                assert_never(decision)

    def give_back(self, lease: Lease) -> None:
        """Return the lease of a call that did not begin."""
        self._gate.release(lease, _now_ms())

    # -- a call ----------------------------------------------------------------------------------------

    def begin(
        self,
        tenant: TenantContext,
        caller: str,
        lease: Lease,
        link: LocalMediaLink,
        *,
        hang_up: Callable[[str], None],
        listener: CallListener | None = None,
    ) -> ActiveCall:
        """Build and start the call's pipeline. Where that fails, link and lease are given back: `CallRefused`."""
        try:
            call = Call(
                tenant,
                caller,
                link,
                self._converse,
                lambda why: self.over(active, why),
                meters=self.meters,
                listener=listener,
            )
        except BaseException as error:
            logger.bind(call=tenant.call_id, tenant=tenant.tenant_id).exception(
                "the call's pipeline could not be built"
            )
            self.meters.inc(CALLS_REFUSED, "pipeline_failed")
            self.hub.detach(link)
            self.give_back(lease)
            failed = CallOutcome(tenant.config_version, failed=True)
            self.spawn(self._record(tenant, None, failed), "failed call's record")
            if not isinstance(error, Exception):
                raise
            raise CallRefused(500) from error
        active = self._active[lease.number] = ActiveCall(call, lease, hang_up)
        call.start()
        logger.bind(call=tenant.call_id, tenant=tenant.tenant_id, event="call_answered").info(
            "answering {!r} for {}", caller[:MAX_LOGGED_CHARACTERS], tenant.config.business_name
        )
        if tenant.has_vault_keys:
            logger.bind(call=tenant.call_id, tenant=tenant.tenant_id, event="providers_resolved").info(
                "providers: {}", " | ".join(map(str, tenant.provider_steps))
            )
        return active

    def connected(self, active: ActiveCall) -> None:
        """Both sides can be heard: greet."""
        loop = asyncio.get_running_loop()
        active.deadline = loop.call_later(MAX_CALL_S, self.over, active, "maximum call length")
        self.spawn(active.call.greet(), "greeting")

    def over(self, active: ActiveCall, why: str) -> None:
        """The conversation ended on our side: hang up, once."""
        if active.state is CallState.UP:
            active.state = CallState.HANGING_UP
            active.our_reason = why
            tenant = active.call.tenant
            logger.bind(call=tenant.call_id, tenant=tenant.tenant_id).info("hanging up: {}", why)
            active.hang_up(why)

    def ended(self, active: ActiveCall, why: str) -> None:
        """Signalling is over, whoever ended it: wind up, once."""
        if active.state is CallState.OVER:
            return
        active.state = CallState.OVER
        self.ended_calls += 1
        self.meters.inc(CALLS, outcome_of(active.our_reason or why))
        self._active.pop(active.lease.number, None)
        if active.deadline is not None:
            active.deadline.cancel()
        if active.on_ended is not None:
            active.on_ended()
        self.spawn(self._wind_up(active, why), "wind-up")

    async def _wind_up(self, active: ActiveCall, why: str) -> None:
        call = active.call
        bound = logger.bind(call=call.tenant.call_id, tenant=call.tenant.tenant_id)
        try:
            await call.end(why)
            await self._measure_media(call.link)
        finally:
            self.hub.detach(call.link)
            self.give_back(active.lease)
        conversation, tenant = call.conversation, call.tenant
        usage = conversation.usage
        cost_micros = usage.cost_micros(prices_of(tenant.stt, tenant.llm, tenant.tts))
        if cost_micros is not None:
            self.meters.observe(CALL_COST, cost_micros / MICROS)
        bound.bind(
            event="call_ended",
            cost_micros=cost_micros,
            usage_estimated=usage.estimated,
            usage={f"{service} {name}": asdict(used) for (service, name), used in usage.of.items()},
        ).info("call ended: {}", why)
        outcome = trial_outcome(
            tenant.config_version,
            active.our_reason or why,
            conversation.turn_latencies_ms,
            human_requested=conversation.human_requested,
            cost_micros=cost_micros,
            cost_estimated=usage.estimated,
        )
        await self._record(call.tenant, record_of(call, why), outcome)

    async def _record(self, tenant: TenantContext, record: CallRecord | None, outcome: CallOutcome) -> None:
        """Keep what stays of a call, once, and tell what a trial of its configuration made of it."""
        try:
            edit = await self._registry.record_call(tenant, record, outcome)
        except TenancyError as error:
            logger.bind(call=tenant.call_id, tenant=tenant.tenant_id).error(
                "the call's record could not be written: {}", error
            )
            return
        if edit is not None:
            self.meters.inc(TRIAL_CALLS, arm_name(edit, outcome.version))
            self.trials.ended(tenant.tenant_id, edit)

    async def _measure_media(self, link: LocalMediaLink) -> None:
        """How good the call's media was; the engine answers in its own time, so beside the event loop."""
        try:
            quality = await asyncio.to_thread(self.hub.engine.stream_quality, link.stream)
        except MediaError:
            return  # The engine was shut down first.
        if quality is not None:
            observe_quality(self.meters, quality)

    # -- the node's life -------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run work that `idle`, `close` and `finish` wait for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        self._quiet.clear()
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("{} failed", task.get_name())
        if not self._tasks and not self._active:
            self._quiet.set()

    def drain(self) -> None:
        """Take no further calls; those that are up go on."""
        self._draining = True

    async def idle(self) -> None:
        """Wait until no call is in progress or being wound up."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Take no further call, hang up those that are up and wind them up."""
        self.drain()
        for active in list(self._active.values()):
            self.over(active, "server stopping")
        await self._settled()

    async def part(self, why: str) -> None:
        """End the calls that are up with a word of farewell, as far as one is at hand, and wind them up."""
        self.drain()
        for active in list(self._active.values()):
            if active.state is CallState.UP:
                active.state, active.our_reason = CallState.HANGING_UP, why
                self.spawn(self._part(active, why), "farewell")
        await self._settled()

    async def _part(self, active: ActiveCall, why: str) -> None:
        call = active.call
        try:
            await call.end(why)
            said = self._farewell(call.tenant)
            if said is not None and active.state is CallState.HANGING_UP:
                pcm, rate_hz = said
                with contextlib.suppress(MediaError):
                    call.link.play(pcm, rate_hz, call.link.next_mark())
                    await asyncio.sleep(min(MAX_FAREWELL_S, len(pcm) / (2 * rate_hz)))
        finally:
            if active.state is CallState.HANGING_UP:
                active.hang_up(why)

    async def finish(self) -> None:
        """Wind up what closed edges left: a call that was just being answered has a record as well."""
        for active in list(self._active.values()):
            self.ended(active, "server stopping")
        await self._settled()

    async def _settled(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def _shown(outcome: Refused) -> str:
    """What is to be known of a refusal; what a stranger wrote is in there escaped and shortened."""
    return repr(outcome)[:MAX_LOGGED_OUTCOME_CHARACTERS]


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


def _refused(decision: Reject) -> CallRefused:
    return CallRefused(decision.status, WORD_ABOUT_OVERLOAD, retry_after_s=decision.retry_after_s)


def record_of(call: Call, cause: str) -> CallRecord:
    """The durable record of a finished call."""
    conversation = call.conversation
    return CallRecord(
        call_id=call.tenant.call_id,
        caller=call.caller,
        called=call.tenant.called_number,
        config_version=call.tenant.config_version,
        started_at=call.started_at,
        ended_at=datetime.now(UTC),
        cause=cause,
        transcript=[
            {
                "speaker": str(line.speaker),
                "text": line.text,
                "at": line.at.isoformat(),
                "interrupted": line.interrupted,
            }
            for line in conversation.lines
        ],
        messages=[
            {"name": message.name, "number": message.number, "reason": message.reason}
            for message in conversation.messages
        ],
        providers=provider_entries(call.tenant.provider_steps, conversation.providers),
    )
