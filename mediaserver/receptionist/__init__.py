"""The deterministic receptionist: replies from a tenant's configuration alone, without any language model."""

from __future__ import annotations

from mediaserver.receptionist.phrases import Phrases, first_message
from mediaserver.receptionist.prompt import system_prompt
from mediaserver.receptionist.receptionist import MAX_REPLY_CHARS, Receptionist
from mediaserver.receptionist.state import (
    Action,
    ConversationState,
    EndCall,
    HumanRequested,
    MessageTaken,
    Reply,
    UnreadableState,
)
from mediaserver.receptionist.topics import Topic

__all__ = [
    "MAX_REPLY_CHARS",
    "Action",
    "ConversationState",
    "EndCall",
    "HumanRequested",
    "MessageTaken",
    "Phrases",
    "Receptionist",
    "Reply",
    "Topic",
    "UnreadableState",
    "first_message",
    "system_prompt",
]
