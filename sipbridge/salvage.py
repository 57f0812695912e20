"""What can still be answered of a request that cannot be parsed.

RFC 3261 8.2 and 18.3 want 400 for a request that is broken or cut off, and a response needs no more of it than the
headers that it copies (8.2.6.2). They are read here as leniently as they are written, and put into a request that the
strict parser then has to accept: what it does not is not answered.
"""

from __future__ import annotations

import re

from mediaserver._native import SipMessage, SipParseError

MAX_HEAD_BYTES = 4096
"""Of the headers that are copied: the answer is never much longer than what provoked it."""
_FOLD = re.compile(rb"\r?\n[ \t]+")
_COPIED = {
    b"via": b"Via",
    b"v": b"Via",
    b"from": b"From",
    b"f": b"From",
    b"to": b"To",
    b"t": b"To",
    b"call-id": b"Call-ID",
    b"i": b"Call-ID",
    b"cseq": b"CSeq",
}


def salvage(data: bytes) -> SipMessage | None:
    """Return a request with the method, Via, From, To, Call-ID and CSeq of a broken one; None where they are not to be had.

    None as well for an ACK, which is never answered.
    """
    head, blank, _ = data.partition(b"\r\n\r\n")
    lines = _FOLD.sub(b" ", head).replace(b"\r\n", b"\n").split(b"\n")
    if not blank:
        # Cut off: the last line may be the beginning of a longer one.
        lines.pop()
    words = lines[0].split() if lines else []
    if len(words) < 3 or words[-1] != b"SIP/2.0" or words[0] == b"ACK" or not words[0].isalpha():
        return None
    rows = [b"%s sip:malformed.invalid SIP/2.0" % words[0]]
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        copied = _COPIED.get(name.strip().lower()) if colon else None
        if copied is not None:
            rows.append(b"%s: %s" % (copied, value.strip()))
    rows += [b"Max-Forwards: 0", b"Content-Length: 0", b"", b""]
    request = b"\r\n".join(rows)
    if len(request) > MAX_HEAD_BYTES:
        return None
    try:
        message = SipMessage.parse(request)
    except SipParseError:
        return None
    return None if any(not tolerable for _, _, tolerable in message.problems()) else message
