"""One byte string per configuration: what versions are compared and stored by."""

from __future__ import annotations

import hashlib

import orjson
from pydantic import BaseModel


def canonical_json(config: BaseModel) -> bytes:
    """Dump sorted, compact JSON with every default spelled out: a stored version never changes its meaning."""
    return orjson.dumps(config.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


def content_hash(config: BaseModel) -> str:
    """Compute the SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(config)).hexdigest()
