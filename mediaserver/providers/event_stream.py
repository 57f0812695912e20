"""Server-sent events (WHATWG HTML, 9.2.6), as far as answers of models use them: the data of each event."""

from __future__ import annotations

from mediaserver.providers.failures import AnswerTooLarge

MAX_EVENT_BYTES = 256 * 1024


class EventStream:
    """Takes a body in any pieces; gives the data of the events that they complete.

    Names, ids and retry times of events are left out, and so is an event that the body ends in (as the standard has it).
    """

    def __init__(self) -> None:
        self._open = bytearray()
        """The last line, which may go on."""
        self._data: list[bytes] = []
        """The lines of data of the present event."""
        self._held_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        r"""Take a piece; the data of complete events. Lines end in ``\n`` or ``\r\n``: a lone ``\r`` is seen nowhere.

        Raises:
            AnswerTooLarge: an event goes past `MAX_EVENT_BYTES`.
        """
        self._open += piece
        events = []
        if b"\n" in piece:
            *lines, self._open = self._open.split(b"\n")
            for line in lines:
                if not line.removesuffix(b"\r"):
                    if self._data:
                        events.append(b"\n".join(self._data))
                        self._data.clear()
                        self._held_bytes = 0
                elif line.startswith(b"data:"):
                    data = bytes(line.removesuffix(b"\r")[5:].removeprefix(b" "))
                    self._data.append(data)
                    self._held_bytes += len(data)
        if self._held_bytes + len(self._open) > MAX_EVENT_BYTES:
            raise AnswerTooLarge(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return events
