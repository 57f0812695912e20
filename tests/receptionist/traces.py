"""Golden dialogues: text files of what the caller said and what must come back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from config.loader import load_tenant_config
from config.tenant import TenantConfig
from mediaserver.receptionist import ConversationState, Receptionist
from tests.receptionist.tenants import DENTAL, PLUMBER

DEMO = Path(__file__).parents[2] / "config" / "demo"
FOLDER = Path(__file__).parents[1] / "traces" / "receptionist"


def tenant(name: str) -> TenantConfig:
    """The tenant that a trace names: a fixture, or one of the demo files."""
    fixtures = {"dental": DENTAL, "plumber": PLUMBER}
    return fixtures.get(name) or load_tenant_config(DEMO / name)


@dataclass(frozen=True, slots=True)
class Trace:
    """A dialogue: its tenant, its time, and its lines in order."""

    config: TenantConfig
    now: datetime
    lines: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Trace:
        """Read ``kind: words`` lines; ``#`` begins a comment."""
        fields: dict[str, str] = {}
        lines: list[tuple[str, str]] = []
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            kind, _, words = line.partition(":")
            if kind in ("tenant", "now"):
                fields[kind] = words.strip()
            else:
                lines.append((kind, words.strip()))
        return cls(tenant(fields["tenant"]), datetime.fromisoformat(fields["now"]), tuple(lines))

    def replay(self) -> tuple[tuple[str, str], ...]:
        """What the receptionist makes of the caller's lines, its state journalled after each."""
        receptionist = Receptionist(self.config)
        state = ConversationState()
        lines: list[tuple[str, str]] = []
        for kind, words in self.lines:
            if kind != "caller":
                continue
            reply = receptionist.reply(ConversationState.from_json(state.to_json()), words, self.now)
            state = reply.state
            lines += [("caller", words), ("receptionist", reply.text)]
            lines += [("action", str(action)) for action in reply.actions]
        return tuple(lines)
