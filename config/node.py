"""A node's configuration: where it listens, what it may use, and which tenants it imports at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from config.addresses import MAX_PORT, Host, IpAddress, IpNetwork, Ipv6Address, Port
from config.admin import AdminConfig
from config.tenant import (
    Deepgram,
    EnvironmentVariable,
    HttpUrl,
    OpenAICompatible,
    StrictModel,
    check_prices,
)
from config.trunks import MAX_TRUNKS, TrunkConfig, check_trunks

MAX_THREADS = 64

WebOrigin = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._\[\]:-]{1,253}$")]
"""Scheme, host and, where it is not the scheme's own, port: as a browser's Origin header has it (RFC 6454 7)."""

ANY_HOST = "0.0.0.0"


Codec = Literal["PCMU", "PCMA", "G722", "opus"]
"""A codec of the media engine, as IANA registers its name."""


class SipConfig(StrictModel):
    """The SIP listener. UDP always; RFC 3261 18 asks for TCP as well."""

    host: Host = ANY_HOST
    """An address or a name to listen on; ``::`` is every IPv6 interface, and IPv6 alone."""
    port: Port = 5060
    tcp: bool = True
    advertised_host: Host | None = None
    """What Contact and Via name; unset: the address that a peer reaches us on."""


class MediaConfig(StrictModel):
    """The media engine: its threads, its RTP sockets, and what it agrees to.

    Calls share the sockets, so a handful serves hundreds of calls.
    """

    host: IpAddress = ANY_HOST
    """An IPv4 or IPv6 address of this machine; ``::`` takes both families."""
    first_port: Port = 40_000
    """From here on ``port_count`` even ports, each with the odd one after it for RTCP (RFC 3550 11); 0: any free ones."""
    port_count: int = Field(default=8, ge=1, le=256)
    advertised_host: IpAddress | None = None
    """What SDP names: the public address of a node behind NAT that maps each port to itself."""
    advertised_host_ipv6: Ipv6Address | None = None
    """The same for callers on IPv6, where ``advertised_host`` is the IPv4 address of a node on both."""
    threads: int = Field(default=0, ge=0, le=MAX_THREADS)
    """Media threads; 0: one per core but one, at least one and at most ``port_count``. They may run in real time, so that as many
    as cores leave the rest of the machine what the kernel keeps for it (``kernel.sched_rt_runtime_us``)."""
    realtime: Literal["auto", "off"] = "auto"
    """auto: the threads run under SCHED_FIFO where the system permits it, and say in the log where not."""
    codecs: tuple[Codec, ...] = Field(default=("G722", "opus", "PCMU", "PCMA"), min_length=1, max_length=4)
    """Codecs that calls may use. The order is that of our own offers: wideband, which speech recognition hears better,
    before narrowband, and G.722 first because it costs a fraction of Opus."""
    codec_order: Literal["theirs", "ours"] = "theirs"
    """Whose order decides between the codecs that a caller offers. A gateway puts the one first that it need not
    transcode (RFC 3264 6.1); "ours" is for desk phones that can do wideband and put it last."""
    srtp: Literal["off", "optional", "required"] = "optional"
    """Encryption with keys in SDP (RFC 4568): wherever the caller offers it, or for every call. Over UDP and TCP the
    keys themselves travel in clear."""

    @field_validator("codecs", mode="before")
    @classmethod
    def _spelt_as_registered(cls, value: object) -> object:
        """Take the names in any case (RFC 8866 6.6)."""
        if not isinstance(value, list | tuple):
            return value
        registered = {name.lower(): name for name in get_args(Codec)}
        return tuple(registered.get(name.lower(), name) if isinstance(name, str) else name for name in value)

    @model_validator(mode="after")
    def _consistent(self) -> MediaConfig:
        if len(set(self.codecs)) != len(self.codecs):
            raise ValueError("codecs: each codec may stand there once")
        last = self.first_port + self.first_port % 2 + 2 * self.port_count - 1
        if self.first_port and last > MAX_PORT:
            raise ValueError(
                f"port_count ({self.port_count}) from first_port ({self.first_port}) on, each with one for RTCP, "
                f"would end at {last}; the last port is {MAX_PORT}"
            )
        if self.advertised_host_ipv6 is not None and ":" in (self.advertised_host or ""):
            raise ValueError("advertised_host must be an IPv4 address beside advertised_host_ipv6")
        return self


class OperatorConfig(StrictModel):
    """The HTTP listener for the operator: status and counters, which name every tenant. It has no login."""

    host: Host = "127.0.0.1"
    port: Port | None = None
    """Unset: the port after ``http.port`` (where that is 0: any free one)."""


class HttpConfig(StrictModel):
    """The HTTP listener for callers: the softphone's page, offers, health."""

    host: Host = "127.0.0.1"
    port: Port = 8080
    allowed_origins: tuple[WebOrigin, ...] = Field(default=(), max_length=100)
    """Web pages of other origins that may place calls from a browser; none: only the pages that this server serves."""
    trusted_proxies: tuple[IpNetwork, ...] = Field(default=(), max_length=100)
    """Networks of the proxies before this server, whose ``X-Forwarded-For`` says who a request is from; none: nobody's."""
    waiting_calls_per_source: int = Field(default=8, ge=1, le=10_000)
    """Calls that the browsers of one address (IPv6: one /64) may have waiting for their connection at a time."""
    list_numbers: bool = False
    """Whether the page offers the numbers of all tenants. Off, a page calls the number in its address: ``/?number=+15550100``."""
    operator: OperatorConfig = OperatorConfig()

    @property
    def operator_port(self) -> int:
        """Where the operator's listener is; 0: any free port."""
        if self.operator.port is not None:
            return self.operator.port
        return self.port + 1 if self.port else 0

    @model_validator(mode="after")
    def _room_for_the_operator(self) -> HttpConfig:
        if self.operator_port > MAX_PORT:
            raise ValueError(f"no port comes after port {self.port}: set operator.port")
        return self


class CapacityConfig(StrictModel):
    """How many calls the node takes."""

    slots: int | None = Field(default=None, ge=1, le=100_000)
    """Calls at a time; unset: derived from the cores and the kind of calls (`admission.capacity`)."""


def _kind(step: object) -> object:
    """The kind of a provider; OpenAI's where none is given."""
    given = step.get("kind", "openai") if isinstance(step, Mapping) else getattr(step, "kind", None)
    return given if isinstance(given, str) else None


PlatformListener = Annotated[
    Annotated[OpenAICompatible, Tag("openai")] | Annotated[Deepgram, Tag("deepgram")], Discriminator(_kind)
]


class PlatformProviders(StrictModel):
    """Providers for tenants that bring none of their own, best first. The embedded models always follow."""

    stt: tuple[PlatformListener, ...] = Field(default=(), max_length=4)
    llm: tuple[OpenAICompatible, ...] = Field(default=(), max_length=4)
    tts: tuple[OpenAICompatible, ...] = Field(default=(), max_length=4)

    @model_validator(mode="after")
    def _charged_by_what_they_do(self) -> PlatformProviders:
        check_prices(stt=self.stt, llm=self.llm, tts=self.tts)
        return self

    @field_validator("stt", "llm", "tts")
    @classmethod
    def _no_tenant_s_key(
        cls, chain: tuple[OpenAICompatible | Deepgram, ...]
    ) -> tuple[OpenAICompatible | Deepgram, ...]:
        if any(step.key is not None for step in chain):
            raise ValueError("the vault holds tenants' keys: the platform's are named by api_key_env")
        return chain


class ModelsConfig(StrictModel):
    """The process with the embedded models."""

    url: HttpUrl | None = None
    """API root of one that runs already; unset: the node starts its own."""
    start_timeout_s: int = Field(default=120, ge=1, le=3_600)


class WorkersConfig(StrictModel):
    """The processes that run the calls' pipelines."""

    count: int | None = Field(default=None, ge=0, le=256)
    """Call workers; unset: one per core; 0: the pipelines run in the edge's own process, whose faults they then share."""
    memory_mb: int = Field(default=4_096, ge=0, le=1_048_576)
    """What one worker may allocate before it is ended and its calls go elsewhere; 0: without a limit."""
    suspect_ms: int = Field(default=140, ge=100, le=10_000)
    """A worker that has not answered for so long: its callers are told to wait."""
    lost_ms: int = Field(default=350, ge=200, le=60_000)
    """A worker that has not answered for so long is ended, and its calls go elsewhere."""

    @model_validator(mode="after")
    def _suspect_before_lost(self) -> WorkersConfig:
        if self.suspect_ms >= self.lost_ms:
            raise ValueError(f"suspect_ms ({self.suspect_ms}) must be below lost_ms ({self.lost_ms})")
        return self


class BudgetsConfig(StrictModel):
    """How long a provider may take before the next of the chain is asked."""

    stt_final_ms: int = Field(default=4_000, ge=100, le=60_000)
    llm_first_token_ms: int = Field(default=3_000, ge=100, le=60_000)
    tts_first_audio_ms: int = Field(default=3_000, ge=100, le=60_000)
    stt_hedge_ms: int | None = Field(default=None, ge=0, le=60_000)
    """Silence after which the next provider is asked as well and the first to answer is taken, where a chain has two
    besides the embedded models. Unset: half the budget; 0: never."""
    llm_hedge_ms: int | None = Field(default=None, ge=0, le=60_000)
    """The same for replies."""
    tts_hedge_ms: int | None = Field(default=None, ge=0, le=60_000)
    """The same for speech."""


class PostgresConfig(StrictModel):
    """A Postgres database, and how much of it this node uses."""

    url_env: str = Field(default="MEDIASERVER_POSTGRES_URL", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")
    """The environment variable with the URL, ``postgresql://role:password@host:5432/database``. The role must not be able
    to pass over row-level security, and owns the tables."""
    connections_kept: int = Field(default=2, ge=1, le=500)
    """Connections that stay open."""
    connections_max: int = Field(default=10, ge=1, le=500)
    """Connections at most; who finds none free waits for ``wait_ms`` and is told that the database is busy."""
    wait_ms: int = Field(default=5_000, ge=100, le=60_000)
    """How long to wait for a connection or a lock; a statement may take twice that."""

    @model_validator(mode="after")
    def _kept_within_max(self) -> PostgresConfig:
        if self.connections_kept > self.connections_max:
            raise ValueError(
                f"connections_kept ({self.connections_kept}) must not exceed connections_max ({self.connections_max})"
            )
        return self


class GateConfig(StrictModel):
    """When ``mediaserver doctor`` says that it is time to go from SQLite to Postgres: bounds of what a node measures each minute.

    A criterion is reached when its bound was met in ``share`` of the last ``window_min`` minutes: a peak is none.
    """

    window_min: int = Field(default=60, ge=1, le=1_440)
    """An hour: a move takes minutes, and is not to follow a burst."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Half of it: office hours are up and down."""
    calls_share: float = Field(default=0.7, gt=0, le=1)
    """Calls in progress (the minute's 95th percentile) as a share of the node's slots. Above it a lost or busy core leaves no
    room, so a second node is due; two nodes need a store in common."""
    nodes: int = Field(default=2, ge=2, le=10_000)
    """Nodes that have the store open, or that tenants of it have moved to. SQLite's files are one machine's."""
    write_wait_ms: int = Field(default=50, ge=1, le=5_000)
    """What the 95th percentile of a minute's writes waited before they began; a write itself takes about 1 ms, so fifty are
    waiting in line. A write that was given up (`StoreLocked`) counts as 5,000."""
    cross_tenant_ms: int = Field(default=1_000, ge=1, le=60_000)
    """Time of a minute that queries over many tenants' files took. Each opens a file of every tenant, which takes the place of
    a file that a call needs (``max_open_shards``); in Postgres it is one query."""


class StoreConfig(StrictModel):
    """Where tenants, their configurations and their calls are kept."""

    kind: Literal["sqlite", "postgres"] = "sqlite"
    """sqlite: files in ``data_dir``. postgres: a server, for several nodes."""
    max_open_shards: int = Field(default=256, ge=1, le=10_000)
    """Tenants' SQLite files open at a time; each takes up to three file descriptors and a thread."""
    gate: GateConfig = GateConfig()
    postgres: PostgresConfig | None = None
    """Beside ``kind: sqlite``: where ``mediaserver migrate sqlite-to-postgres`` brings tenants, whose calls this node goes on
    to take, and the vault, whose keys it goes on to read."""

    @property
    def postgres_or_default(self) -> PostgresConfig:
        """The Postgres section, or what it is where it is left out."""
        return PostgresConfig() if self.postgres is None else self.postgres


class TenantFolderConfig(StrictModel):
    """A folder of tenants' files that is watched: what changes there is in use at the next call."""

    path: Path = Field(validate_default=False)
    """Its ``*.yaml`` and ``*.yml``; at most 10,000 files of 1 MiB. Relative to this file."""
    poll_ms: int = Field(default=400, ge=100, le=60_000)
    """Between two looks. A file is read when it has looked the same twice running."""


KekLabel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
"""What a key-encryption key is called, for good: what it wraps names it. 1 to 40 letters, digits, ``.``, ``_``, ``-``."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        # Without what is there: it may be the key itself.
        raise ValueError("must be an absolute path such as '/etc/mediaserver/kek'")
    return path


PrivatePath = Annotated[Path, AfterValidator(_absolute)]
"""An absolute path of a file that nobody but the server's user (or root) can read: mode 0600 or 0400."""


class FileKek(StrictModel):
    """A key-encryption key in a file: 32 random bytes as base64 or hexadecimal (``openssl rand -base64 32``)."""

    source: Literal["file"]
    label: KekLabel = "node"
    path: PrivatePath


class EnvironmentKek(StrictModel):
    """A key-encryption key in a variable of the server's environment, which child processes inherit: a file is better."""

    source: Literal["env"]
    label: KekLabel = "node"
    variable: EnvironmentVariable


class TransitKek(StrictModel):
    """A key-encryption key in a key service: the transit engine of HashiCorp Vault or OpenBao."""

    source: Literal["transit"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+/?$", max_length=2_000)]
    """``https://host:port``; plain HTTP to this machine alone."""
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")]
    """The name of the transit key; it must exist."""
    mount: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/-]{0,255}$")] = "transit"
    token_file: PrivatePath
    """Read anew for each request: an agent renews it."""
    namespace: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_/-]{1,255}$")] | None = None
    timeout_ms: int = Field(default=5_000, ge=100, le=60_000)


Kek = Annotated[FileKek | EnvironmentKek | TransitKek, Field(discriminator="source")]


class VaultConfig(StrictModel):
    """Tenants' own provider keys, sealed in ``vault.db`` in ``data_dir``, or in the database where the store is Postgres.

    With a vault the server's processes leave no core dumps, and profilers and debuggers of the same user cannot attach to
    them (`vault.process`).
    """

    kek: Kek
    """The key-encryption key that wraps from now on."""
    older: tuple[Kek, ...] = Field(default=(), max_length=15)
    """Key-encryption keys, of any source, that still open what ``mediaserver keys rotate --kek`` has not yet wrapped anew.
    Older versions of a key service's key are not listed: the service keeps them itself."""

    @model_validator(mode="after")
    def _transit_keys_apart(self) -> VaultConfig:
        # What they wrap names mount and key, and not the service.
        names = [
            f"{kek.mount.strip('/')}/{kek.key}" for kek in (self.kek, *self.older) if kek.source == "transit"
        ]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"older: the key service's key {twice} is listed twice; a key service keeps older versions of its key"
                " itself, and keys of one mount and name in two services cannot be told apart"
            )
        return self


class NodeConfig(StrictModel):
    """Everything that an operator decides about one node.

    Environment variables that override a field are listed in `config.loader.OVERRIDES`.
    """

    schema_version: Literal[1] = 1
    sip: SipConfig = SipConfig()
    trunks: tuple[TrunkConfig, ...] = Field(default=(), max_length=MAX_TRUNKS)
    """Who sends calls. None: one trunk, ``any``, that takes them from everywhere and is read as ``+15550100``, ``0015550100`` or
    ``15550100``; a node that lists a trunk has no ``any``, and refuses calls from elsewhere."""
    media: MediaConfig = MediaConfig()
    http: HttpConfig = HttpConfig()
    data_dir: Path = Field(default=Path("var/node"), validate_default=False)
    """shared.db, tenant shards, phrase cache. Relative to the working directory: this file's may be read-only."""
    store: StoreConfig = StoreConfig()
    capacity: CapacityConfig = CapacityConfig()
    providers: PlatformProviders = PlatformProviders()
    tenants: tuple[Path, ...] = Field(default=(), max_length=1_000)
    """Tenant files, or folders of ``*.yaml``, imported at start. Relative to this file."""
    tenant_folder: TenantFolderConfig | None = None
    """A folder whose changes are followed while the node runs. A file that goes leaves its tenant as it is."""
    models: ModelsConfig = ModelsConfig()
    budgets: BudgetsConfig = BudgetsConfig()
    workers: WorkersConfig = WorkersConfig()
    vault: VaultConfig | None = None
    """Absent: tenants bring no keys of their own but what the environment has."""
    admin: AdminConfig | None = None
    """Absent: no admin API, and no listener for it."""
    drain_s: int = Field(default=60, ge=0, le=3_600)
    """How long calls may go on when the node is told to stop (SIGTERM); then they are ended politely."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    """text: for people; json: one document a line."""

    @field_validator("trunks")
    @classmethod
    def _trunks_apart(cls, trunks: tuple[TrunkConfig, ...]) -> tuple[TrunkConfig, ...]:
        check_trunks(trunks)
        return trunks

    @property
    def admin_port(self) -> int:
        """Where the admin API's listener is; 0: any free port."""
        if self.admin is not None and self.admin.port is not None:
            return self.admin.port
        return self.http.operator_port + 1 if self.http.operator_port else 0

    @model_validator(mode="after")
    def _room_for_the_admin_api(self) -> NodeConfig:
        if self.admin is not None and self.admin_port > MAX_PORT:
            raise ValueError(f"no port comes after the operator's, {self.http.operator_port}: set admin.port")
        return self
