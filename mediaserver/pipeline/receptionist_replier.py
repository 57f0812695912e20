"""The built-in receptionist as a link of the reply chain: it never fails and needs nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from pipecat.processors.aggregators.llm_context import LLMContext

from config.tenant import TenantConfig
from mediaserver.providers.breaker import BreakerKey
from mediaserver.receptionist import Action, ConversationState, Receptionist


class ReceptionistReplier:
    """Answers from the tenant's configuration, keeping the state of the conversation."""

    name = "receptionist"
    breaker: BreakerKey | None = None
    last_resort = True
    """It changes the state of the conversation: it is asked when its answer is the one that is said."""

    def __init__(
        self,
        config: TenantConfig,
        clock: Callable[[], datetime],
        on_action: Callable[[Action], None],
    ) -> None:
        self._receptionist = Receptionist(config)
        self._state = ConversationState()
        self._clock = clock
        self._on_action = on_action

    async def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """Answer the caller's last words; an utterance that was not recognised counts as silence."""
        reply = self._receptionist.reply(self._state, last_caller_words(context), self._clock())
        self._state = reply.state
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
