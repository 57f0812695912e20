"""A secret that shows itself to nobody who does not ask for it by name. Sans-IO.

Its text in logs, tracebacks, debuggers, JSON and pickles is a placeholder or an error. Against whoever can read the
process's memory it protects nothing: Python cannot wipe a string.
"""

from __future__ import annotations

import hmac
from typing import Final, NoReturn, Self

from vault.errors import BadInput

SECRET_BYTES_MAX: Final = 8_192
"""Of its UTF-8. Longer than any API key, and enough for a service account's JSON file."""
HIDDEN: Final = "Secret(…)"


class Secret:
    """A key of a tenant, 1 to `SECRET_BYTES_MAX` bytes of UTF-8.

    Raises:
        BadInput: it is empty, too long or no encodable text.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        problem = _problem(value)
        self.__value = value
        # Tracebacks with local variables show those of this frame too.
        del value
        if problem is not None:
            raise BadInput(problem)

    def reveal(self) -> str:
        """The value, for the client that sends it and nobody else."""
        return self.__value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    __hash__ = None  # type: ignore[assignment]
    """Nothing to look up by: a hash of a secret that somebody keeps is a part of the secret."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def _problem(value: str) -> str | None:
    # Looked for before encoding: the codec's own error would carry the text along.
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "a secret must be text that UTF-8 can encode: it has half a surrogate pair"
    size = len(value.encode())
    if not 1 <= size <= SECRET_BYTES_MAX:
        return f"a secret must have 1 to {SECRET_BYTES_MAX} bytes of UTF-8; this one has {size}"
    return None
