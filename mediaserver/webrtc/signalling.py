"""The bodies of signalling requests, as clients of Pipecat's small-webrtc transport send them. Sans-IO.

An offer creates the call's connection or, with the ``pc_id`` that the first answer gave, changes it; candidates trickle
in behind it. What is wrong with a body is said in the text of a `WebRefusal`, beside the status that answers it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from mediaserver.errors import MediaServerError

MAX_BODY_BYTES = 128 * 1024
MAX_SDP_CHARACTERS = 64 * 1024
MAX_CANDIDATES = 64
MAX_PROBLEMS_NAMED = 3

BodyT = TypeVar("BodyT", bound=BaseModel)


class WebRefusal(MediaServerError):  # noqa: N818 - names the outcome
    """A request that is not granted: the HTTP status, and words for whoever wrote the client."""

    def __init__(
        self, status: int, text: str, *, retry_after_s: int | None = None, location: str | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after_s = retry_after_s
        self.location = location
        """Of 307: the root that the request's path is put behind."""


class _Body(BaseModel):
    # Clients of other versions send more; what is not known here is no concern of ours.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class StartRequest(_Body):
    """``POST /start``: who is to be called. Pipecat's clients put the application's own fields under ``body``."""

    number: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    site_key: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """A tenant's key for its own web pages (`config.site_keys`)."""
    transport: Literal["webrtc"] = "webrtc"

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, data: object) -> object:
        if (
            isinstance(data, dict)
            and not {"number", "site_key"} & data.keys()
            and isinstance(data.get("body"), dict)
        ):
            return {**data, **data["body"]}
        return data

    @model_validator(mode="after")
    def _one_of_both(self) -> StartRequest:
        if (self.number is None) == (self.site_key is None):
            raise ValueError("number or site_key, one of both")
        return self


class Offer(_Body):
    """``POST …/api/offer``."""

    sdp: Annotated[str, StringConstraints(min_length=1, max_length=MAX_SDP_CHARACTERS)]
    type: Literal["offer"]
    pc_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    restart_pc: bool | None = None


class Candidate(_Body):
    """One ICE candidate of the peer; empty: there are no more (RFC 8840 8.2)."""

    candidate: Annotated[str, StringConstraints(max_length=1_024)]


class Candidates(_Body):
    """``PATCH …/api/offer``."""

    pc_id: Annotated[str, StringConstraints(max_length=64)]
    candidates: tuple[Candidate, ...] = Field(max_length=MAX_CANDIDATES, strict=False)


def parse(model: type[BodyT], body: bytes) -> BodyT:
    """Read a request's body. Raises `WebRefusal` that names the field and what is allowed."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WebRefusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise WebRefusal(400, "the body is not a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise WebRefusal(422, _problems(error)) from error


def _problems(error: ValidationError) -> str:
    """The first problems in words. Values are not repeated: they are the stranger's, and may be long."""
    problems = error.errors(include_url=False, include_input=False)
    named = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in problems[:MAX_PROBLEMS_NAMED]
    ]
    if len(problems) > MAX_PROBLEMS_NAMED:
        named.append(f"and {len(problems) - MAX_PROBLEMS_NAMED} more")
    return "; ".join(named)
