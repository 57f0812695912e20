"""The built-in receptionist as a link of the reply chain: it never fails and needs nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from pipecat.processors.aggregators.llm_context import LLMContext

from config.tenant import TenantConfig
from mediaserver.receptionist import Action, ConversationState, Receptionist


class ReceptionistReplier:
    """Answers from the tenant's configuration, keeping the state of the conversation."""

    name = "receptionist"

    def __init__(
        self,
        config: TenantConfig,
        clock: Callable[[], datetime],
        on_action: Callable[[Action], None],
        on_state: Callable[[str], None],
        state: ConversationState | None = None,
    ) -> None:
        self._receptionist = Receptionist(config)
        self._state = state or ConversationState()
        self._clock = clock
        self._on_action = on_action
        self._on_state = on_state

    async def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """Answer the caller's last words; an utterance that was not recognised counts as silence."""
        reply = self._receptionist.reply(self._state, last_caller_words(context), self._clock())
        self._state = reply.state
        self._on_state(reply.state.to_json())
        for action in reply.actions:
            self._on_action(action)
        yield reply.text


def last_caller_words(context: LLMContext) -> str:
    """What the caller said last: the trailing user messages; empty after Pipecat's note of an unheard turn."""
    words: list[str] = []
    for message in reversed(context.get_messages()):
        if not isinstance(message, dict) or message.get("role") != "user":
            break
        content = message.get("content")
        if isinstance(content, str):
            words.append(content)
    return " ".join(reversed(words))
