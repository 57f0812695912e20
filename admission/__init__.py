"""Admission: whether a call is taken, and what becomes of it where it is not."""

from admission.capacity import CallKind, slots_for
from admission.gate import AdmissionGate, Admit, Decision, GateSnapshot, Lease, Reject

__all__ = [
    "AdmissionGate",
    "Admit",
    "CallKind",
    "Decision",
    "GateSnapshot",
    "Lease",
    "Reject",
    "slots_for",
]
