"""What tests of tenants' keys in a whole node need."""

from __future__ import annotations

from tests.telemetry.conftest import logs_to

__all__ = ["logs_to"]
