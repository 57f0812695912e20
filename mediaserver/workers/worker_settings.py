"""What a worker needs to know of its node. Apart from the worker itself, which imports Pipecat."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import orjson
from pydantic import TypeAdapter

EXIT_NO_MEMORY = 12
"""A worker that ran out of memory ends as a whole: what is left of its objects cannot be relied on."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The same for all workers of a nursery's life."""

    data_dir: str
    models_url: str
    budgets: dict[str, int | None]
    """`Budgets`, by field."""
    memory_mb: int
    """What one worker may allocate; 0: without a limit of ours."""
    log_level: str
    log_format: Literal["text", "json"]
    forbid_core_dumps: bool = False
    """Where the node has a vault: workers have tenants' keys in memory (`vault.process`)."""

    def to_json(self) -> bytes:
        """For the nursery."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> WorkerSettings:
        """The inverse of `to_json`; raises pydantic's `ValidationError`."""
        return _SETTINGS.validate_json(text)


_SETTINGS = TypeAdapter(WorkerSettings)
