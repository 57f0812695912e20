"""The built-in receptionist as a link of the reply chain: it never fails and needs nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from pipecat.processors.aggregators.llm_context import LLMContext

from config.tenant import TenantConfig
from mediaserver.providers.breaker import BreakerKey
from mediaserver.receptionist import Action, ConversationState, Receptionist, Reply


class ReceptionistReplier:
    """Answers from the tenant's configuration, keeping the state of the conversation.

    An answer to a turn that may not be over changes nothing before `keep`: then the state moves on and the actions are done.
    """

    name = "receptionist"
    breaker: BreakerKey | None = None
    last_resort = True
    key_ref = None
    """It changes the state of the conversation: it is asked when its answer is the one that is said."""

    def __init__(
        self,
        config: TenantConfig,
        clock: Callable[[], datetime],
        on_action: Callable[[Action], None],
        *,
        is_settled: Callable[[LLMContext], bool],
        on_state: Callable[[str], None],
        state: ConversationState | None = None,
    ) -> None:
        self._receptionist = Receptionist(config)
        self._state = state or ConversationState()
        self._clock = clock
        self._on_action = on_action
        self._on_state = on_state
        self._is_settled = is_settled
        self._unsettled: tuple[LLMContext, Reply] | None = None

    async def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """Answer the caller's last words; an utterance that was not recognised counts as silence."""
        reply = self._receptionist.reply(self._state, last_caller_words(context), self._clock())
        self._unsettled = (context, reply)
        self.keep()
        yield reply.text

    def keep(self) -> None:
        """The turn is over: what was answered to it counts."""
        if self._unsettled is not None and self._is_settled(self._unsettled[0]):
            reply, self._unsettled = self._unsettled[1], None
            self._state = reply.state
            self._on_state(reply.state.to_json())
            for action in reply.actions:
                self._on_action(action)

    def drop(self) -> None:
        """The turn was not over: the answer was never given."""
        self._unsettled = None


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
