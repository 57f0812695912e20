"""Every metric of a node: its name, its unit (in the name), what its labels may say. Nothing else is ever exposed.

A label is a closed list, or names that the node's configuration chooses; of those a node remembers so many and calls the
others ``other``. No label is a tenant, a caller or a call: the number of series follows from this file alone.
"""

from __future__ import annotations

from typing import Final

from mediaserver.telemetry.metric_kinds import CounterMetric, GaugeMetric, HistogramMetric, Label, Metric

MAX_PROVIDERS: Final = 50
MAX_ENGINE_NAMES: Final = 200
"""The engine's and the endpoint's counters have the names that their code gives them."""
MAX_WORKERS: Final = 256

STAGE: Final = Label("stage", ("stt", "llm", "tts"))
PROVIDER: Final = Label("provider", limit=MAX_PROVIDERS)
SIGNALLING: Final = Label("signalling", ("sip", "webrtc"))
DIRECTION: Final = Label("direction", ("received", "sent"))
WORKER: Final = Label("worker", limit=MAX_WORKERS)

_TURN_SECONDS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_PROVIDER_SECONDS = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
)
_SETUP_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# ---- calls ------------------------------------------------------------------------------------------------

CALLS_ACTIVE: Final = GaugeMetric("receptionist_calls_active", "Calls in progress.")
CALL_SLOTS: Final = GaugeMetric("receptionist_call_slots", "Calls that the node takes at a time.")
CALL_SLOTS_TAKEN: Final = GaugeMetric(
    "receptionist_call_slots_taken", "Slots that calls hold, those that are being wound up among them."
)
CALLS: Final = CounterMetric(
    "receptionist_calls_total",
    "Calls that were answered and are over, by how they ended.",
    (
        Label(
            "outcome",
            (
                "caller_hung_up",
                "receptionist_closed",
                "cancelled",
                "hold_timeout",
                "maximum_length",
                "media_lost",
                "never_connected",
                "no_media",
                "pipeline_failed",
                "server_stopping",
                "signalling_failed",
            ),
        ),
    ),
)
CALLS_ADMITTED: Final = CounterMetric("receptionist_calls_admitted_total", "Calls that were given a slot.")
CALLS_REFUSED: Final = CounterMetric(
    "receptionist_calls_refused_total",
    "Calls that were not taken, by why.",
    (
        Label(
            "reason",
            (
                "ambiguous",
                "draining",
                "gone",
                "malformed_key",
                "moved",
                "no_media",
                "no_trunk",
                "not_on_this_trunk",
                "origin_refused",
                "pipeline_failed",
                "slots",
                "store",
                "suspended",
                "tenant_limit",
                "unacceptable_offer",
                "unknown",
                "unreadable",
            ),
        ),
    ),
)
DOUBLE_RELEASES: Final = CounterMetric(
    "receptionist_admission_double_releases_total",
    "Slots given back that were not taken: a fault of the server.",
)
TRIAL_CALLS: Final = CounterMetric(
    "receptionist_config_trial_calls_total",
    "Calls of tenants with a configuration on trial that are over, by which version they had.",
    (Label("arm", ("baseline", "canary")),),
)
TRIALS_ENDED: Final = CounterMetric(
    "receptionist_config_trials_ended_total",
    "Trials of configurations that this node has ended: a call's end or the time has decided, by how.",
    (Label("decision", ("promote", "roll_back")),),
)
CALL_COST: Final = HistogramMetric(
    "receptionist_call_cost_dollars",
    "What a call's providers cost, of calls whose providers' prices are all known.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
CONFIG_CHANGES: Final = CounterMetric(
    "receptionist_config_changes_total",
    "Tenants whose new calls get another version, by what became of their fixed phrases: all are there, some are missing, "
    "the tenant's data could not be read, too many were waiting.",
    (Label("result", ("prepared", "incomplete", "failed", "dropped")),),
)
TENANT_FILES: Final = CounterMetric(
    "receptionist_tenant_files_total",
    "Changed files of the watched folder, by what became of them.",
    (Label("result", ("applied", "unchanged", "refused")),),
)
ANSWER_SECONDS: Final = HistogramMetric(
    "receptionist_answer_seconds", "From the invitation to our answer.", _SETUP_SECONDS, (SIGNALLING,)
)
GREETING_SECONDS: Final = HistogramMetric(
    "receptionist_greeting_seconds",
    "From when both sides can be heard to the first packet of the greeting.",
    _SETUP_SECONDS,
)

# ---- turns ------------------------------------------------------------------------------------------------

TURN_SECONDS: Final = HistogramMetric(
    "receptionist_turn_latency_seconds",
    "From the last packet of the caller's speech to the first packet of the answer, and the parts of it: waiting for the "
    "end of the turn and for each provider's first byte, which may overlap, and what is left of the total as our own.",
    _TURN_SECONDS,
    (Label("stage", ("total", "end_of_turn", "stt", "llm", "tts", "own")),),
)
BARGE_INS: Final = CounterMetric(
    "receptionist_barge_ins_total",
    "Times that the caller spoke while the receptionist did, by what it was taken for.",
    (Label("verdict", ("interruption", "late_interruption", "let_pass")),),
)
TURN_EVENTS: Final = CounterMetric(
    "receptionist_turn_events_total",
    "What happened in the turns of calls that are over.",
    (
        Label(
            "event",
            (
                "turn",
                "empty_turn",
                "transcription",
                "transcription_withdrawn",
                "hold",
                "model_asked",
                "silence_prompt",
            ),
        ),
    ),
)
SPECULATIONS: Final = CounterMetric(
    "receptionist_speculations_total",
    "Answers that were begun before the turn had ended, and what became of them.",
    (Label("event", ("started", "confirmed", "discarded")),),
)

# ---- providers --------------------------------------------------------------------------------------------

PROVIDER_FIRST_BYTE_SECONDS: Final = HistogramMetric(
    "receptionist_provider_first_byte_seconds",
    "From a request to the first of its answer: the transcript, the first token, the first audio.",
    _PROVIDER_SECONDS,
    (STAGE, PROVIDER),
)
PROVIDER_ERRORS: Final = CounterMetric(
    "receptionist_provider_errors_total",
    "Requests that a provider failed, by how.",
    (
        STAGE,
        PROVIDER,
        Label(
            "cause",
            (
                "timeout",
                "stall",
                "slow",
                "unreachable",
                "reset",
                "denied",
                "out_of_quota",
                "rate_limited",
                "server_error",
                "rejected",
                "garbage",
                "too_large",
                "empty",
            ),
        ),
    ),
)
KEY_REFUSALS: Final = CounterMetric(
    "receptionist_key_refusals_total",
    "Answers of providers against a key of a tenant with keys in the vault, or of the platform in its calls, after which the "
    "key is left out of the next calls for a while.",
    (STAGE, Label("outcome", ("denied", "out_of_quota", "rate_limited"))),
)
KEY_REPORTS_DROPPED: Final = CounterMetric(
    "receptionist_key_reports_dropped_total",
    "Reports on keys that a process did not pass on, because it had passed on too many, or the edge did not take.",
)
PROVIDER_REQUESTS: Final = CounterMetric(
    "receptionist_provider_requests_total",
    "Requests to providers that did not fail, by what became of them: answered to the end, given up by us, or not sent "
    "because the provider had failed too often.",
    (STAGE, PROVIDER, Label("result", ("answered", "abandoned", "skipped"))),
)
PROVIDER_HEDGES: Final = CounterMetric(
    "receptionist_provider_hedges_total",
    "Requests that were sent beside one that was still silent, and those of them that answered first.",
    (STAGE, PROVIDER, Label("event", ("started", "won"))),
)
BREAKER_CHANGES: Final = CounterMetric(
    "receptionist_provider_breaker_changes_total",
    "Times that a provider was left out, tried again, or taken back.",
    (STAGE, Label("state", ("closed", "open", "half_open"))),
)
PROVIDER_CONNECTIONS: Final = CounterMetric(
    "receptionist_provider_connections_total",
    "What was done for connections before a call needed them, and those that had died unnoticed.",
    (Label("event", ("warmed", "warming_failed", "warming_spared", "dead_retried")),),
)
MODEL_RESTARTS: Final = CounterMetric(
    "receptionist_model_process_restarts_total",
    "Times that the process with the embedded models was started anew.",
)

# ---- workers ----------------------------------------------------------------------------------------------

WORKER_UP: Final = GaugeMetric("receptionist_worker_up", "Whether the worker takes calls.", (WORKER,))
WORKER_CALLS: Final = GaugeMetric(
    "receptionist_worker_calls", "Calls whose pipeline the worker runs.", (WORKER,)
)
WORKER_MEMORY: Final = GaugeMetric(
    "receptionist_worker_resident_memory_bytes",
    "Memory of the worker that is in RAM, shared pages included.",
    (WORKER,),
)
WORKER_RESTARTS: Final = CounterMetric(
    "receptionist_worker_restarts_total",
    "Workers that were replaced, by why.",
    (Label("cause", ("crashed", "killed", "stuck", "memory", "reload")),),
)
TAKEOVERS: Final = CounterMetric(
    "receptionist_worker_takeovers_total",
    "Calls whose worker was lost, by whether another went on with them.",
    (Label("outcome", ("resumed", "failed")),),
)
TOLD_TO_WAIT_SECONDS: Final = HistogramMetric(
    "receptionist_worker_told_to_wait_seconds",
    "From the last sign of life of a call's worker, or what it was saying, to the words that ask the caller to wait.",
    (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0, 2.0),
)
TAKEOVER_SECONDS: Final = HistogramMetric(
    "receptionist_worker_takeover_seconds",
    "From the last sign of life of a call's worker to when another one had the call.",
    (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0),
)
METER_DELTAS: Final = CounterMetric(
    "receptionist_worker_meter_deltas_total",
    "Reports of workers' counts, by what became of them.",
    (Label("result", ("added", "duplicate", "malformed")),),
)
LOOP_LAG_SECONDS: Final = HistogramMetric(
    "receptionist_event_loop_lag_seconds",
    "How late a timer of the event loop fired.",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    (Label("process", ("edge", "worker")),),
)
GARBAGE_SECONDS: Final = HistogramMetric(
    "receptionist_garbage_collection_seconds",
    "How long a process stood still to look for garbage among everything.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    (Label("process", ("edge", "worker")),),
)
SCRAPE_FAILURES: Final = CounterMetric(
    "receptionist_scrape_failures_total",
    "Parts of the node that could not be read when metrics were asked for.",
)

# ---- media ------------------------------------------------------------------------------------------------

MEDIA_STREAMS: Final = GaugeMetric("receptionist_media_streams", "Media streams that are open.")
MEDIA_PACKETS: Final = CounterMetric(
    "receptionist_media_packets_total", "RTP packets of all streams.", (DIRECTION,)
)
RTCP_PACKETS: Final = CounterMetric("receptionist_media_rtcp_packets_total", "RTCP packets.", (DIRECTION,))
MEDIA_DROPS: Final = CounterMetric(
    "receptionist_media_packets_dropped_total",
    "Packets that arrived and were not used, by why.",
    (Label("cause", limit=MAX_ENGINE_NAMES),),
)
MEDIA_REFUSED: Final = CounterMetric(
    "receptionist_media_refused_total",
    "What the engine was asked to do and refused.",
    (Label("what", limit=MAX_ENGINE_NAMES),),
)
MEDIA_EVENTS: Final = CounterMetric(
    "receptionist_media_engine_events_total",
    "What else the engine counts.",
    (Label("event", limit=MAX_ENGINE_NAMES),),
)
QUEUE_DROPS: Final = CounterMetric(
    "receptionist_queue_drops_total",
    "What a full queue had to let go, by the queue.",
    (
        Label(
            "queue", ("engine_audio_events", "engine_other_events", "link_audio_events", "link_other_events")
        ),
    ),
)
TICK_LATENESS_SECONDS: Final = HistogramMetric(
    "receptionist_media_tick_lateness_seconds",
    "How late the engine's beat came.",
    (0.00025, 0.001, 0.002, 0.005, 0.01, 0.05),
)
TICK_LATENESS_MAX: Final = GaugeMetric(
    "receptionist_media_tick_lateness_max_seconds", "The latest beat since the node started."
)
PACKETS_LOST: Final = CounterMetric(
    "receptionist_media_packets_lost_total",
    "Packets of finished calls that never came, or came too late.",
    (Label("cause", ("lost", "late")),),
)
LOSS_RATIO: Final = HistogramMetric(
    "receptionist_media_loss_ratio",
    "Share of a finished call's packets that were lost, received by us or as the peer reported last.",
    (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
    (DIRECTION,),
)
JITTER_SECONDS: Final = HistogramMetric(
    "receptionist_media_jitter_seconds",
    "Interarrival jitter (RFC 3550) at a call's end, of what we received or as the peer reported last.",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    (DIRECTION,),
)
ROUND_TRIP_SECONDS: Final = HistogramMetric(
    "receptionist_media_round_trip_seconds",
    "Round trip of a call's media at its end (RTCP).",
    (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
)
MOS: Final = HistogramMetric(
    "receptionist_media_mos",
    "What the E-model (ITU-T G.107) makes of a finished call, listening alone and in conversation: 1 to 5.",
    (1.5, 2.0, 2.5, 3.0, 3.25, 3.5, 3.75, 4.0, 4.1, 4.2, 4.3, 4.4),
    (Label("kind", ("listening", "conversational")),),
)

# ---- signalling -------------------------------------------------------------------------------------------

SIP_EVENTS: Final = CounterMetric(
    "receptionist_sip_events_total",
    "What the SIP endpoint counts.",
    (Label("event", limit=MAX_ENGINE_NAMES),),
)
SIP_OPEN: Final = GaugeMetric(
    "receptionist_sip_open",
    "What the SIP endpoint holds.",
    (Label("kind", ("connections", "dialogs", "transactions", "deadlines")),),
)

# ---- the store ------------------------------------------------------------------------------------------

STORE_WRITE_WAIT_SECONDS: Final = HistogramMetric(
    "receptionist_store_write_wait_seconds",
    "How long writes to the tenants' files waited before they began; added once a minute.",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
STORE_LOCKED: Final = CounterMetric(
    "receptionist_store_locked_total", "What was given up because another held the store for too long."
)
STORE_CROSSINGS: Final = CounterMetric(
    "receptionist_store_crossings_total", "Queries that asked the data of many tenants one after the other."
)
STORE_CROSSING_SECONDS: Final = CounterMetric(
    "receptionist_store_crossing_seconds_total", "The time that they took."
)
STORE_MINUTES: Final = CounterMetric(
    "receptionist_store_minutes_total",
    "Minutes of the node's figures, by whether they could be kept.",
    (Label("outcome", ("kept", "failed", "dropped")),),
)
ADMIN_ANSWERS: Final = CounterMetric(
    "receptionist_admin_answers_total",
    "Answers of the admin API, by what was asked and the class of the status.",
    (Label("action", limit=64), Label("status", ("2xx", "3xx", "4xx", "5xx"))),
)
STORE_NODES: Final = GaugeMetric(
    "receptionist_store_nodes", "Nodes that the store knows of, and places that its tenants have moved to."
)
GATE_REACHED: Final = GaugeMetric(
    "receptionist_gate_reached",
    "1 where it is time to go from SQLite to Postgres by this criterion; mediaserver doctor says why.",
    (Label("criterion", ("concurrency", "nodes", "write_contention", "cross_tenant")),),
)

METERS: Final[tuple[CounterMetric | HistogramMetric, ...]] = (
    CALLS,
    CALLS_REFUSED,
    TRIAL_CALLS,
    TRIALS_ENDED,
    CALL_COST,
    CONFIG_CHANGES,
    TENANT_FILES,
    ANSWER_SECONDS,
    GREETING_SECONDS,
    TURN_SECONDS,
    BARGE_INS,
    TURN_EVENTS,
    SPECULATIONS,
    PROVIDER_FIRST_BYTE_SECONDS,
    PROVIDER_ERRORS,
    KEY_REFUSALS,
    KEY_REPORTS_DROPPED,
    PROVIDER_REQUESTS,
    PROVIDER_HEDGES,
    BREAKER_CHANGES,
    PROVIDER_CONNECTIONS,
    WORKER_RESTARTS,
    TAKEOVERS,
    TOLD_TO_WAIT_SECONDS,
    TAKEOVER_SECONDS,
    METER_DELTAS,
    LOOP_LAG_SECONDS,
    GARBAGE_SECONDS,
    SCRAPE_FAILURES,
    PACKETS_LOST,
    LOSS_RATIO,
    JITTER_SECONDS,
    ROUND_TRIP_SECONDS,
    MOS,
    STORE_WRITE_WAIT_SECONDS,
    STORE_LOCKED,
    STORE_CROSSINGS,
    STORE_CROSSING_SECONDS,
    STORE_MINUTES,
    ADMIN_ANSWERS,
)
"""What the server's own code counts and observes, in the edge and in workers."""
READINGS: Final[tuple[Metric, ...]] = (
    CALLS_ACTIVE,
    CALL_SLOTS,
    CALL_SLOTS_TAKEN,
    CALLS_ADMITTED,
    DOUBLE_RELEASES,
    MODEL_RESTARTS,
    WORKER_UP,
    WORKER_CALLS,
    WORKER_MEMORY,
    MEDIA_STREAMS,
    MEDIA_PACKETS,
    RTCP_PACKETS,
    MEDIA_DROPS,
    MEDIA_REFUSED,
    MEDIA_EVENTS,
    QUEUE_DROPS,
    TICK_LATENESS_SECONDS,
    TICK_LATENESS_MAX,
    SIP_EVENTS,
    SIP_OPEN,
    STORE_NODES,
    GATE_REACHED,
)
"""What other parts count for themselves, read when metrics are asked for."""
