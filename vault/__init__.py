"""Tenants' keys: sealed, kept, rotated, accounted for, and which of them a call uses."""

from vault.audit import Action, Entry, Finding, Head
from vault.composite import CompositeKeyEncryption
from vault.errors import (
    AuditBroken,
    BadInput,
    Conflict,
    KekDenied,
    KekMissing,
    KekUnavailable,
    KekUnusable,
    KeyEncryptionError,
    MoveRefused,
    OtherVault,
    SealBroken,
    SecretMissing,
    SecretRevoked,
    VaultElsewhere,
    VaultError,
    VaultFull,
    VaultStoreCorrupt,
    VaultStoreError,
    VaultStoreFull,
    VaultStoreLocked,
    VaultStoreUnavailable,
)
from vault.facade import SecretInfo, Vault
from vault.kek import (
    KeyEncryption,
    LocalKek,
    LocalKeyEncryption,
    kek_from_environment,
    kek_from_file,
)
from vault.process import CoreDumps, CoreDumpsPossible, forbid_core_dumps
from vault.records import SecretStore
from vault.resolver import KeyRef, KeyResolver, KeyState, Origin, Outcome, Resolution, Service, Step, classify
from vault.rotation import DataKeyRotation, Failure, KekRotation
from vault.secret import Secret
from vault.sqlite import SqliteStore
from vault.transit import TransitKeyEncryption, TransitSettings, token_from_file

__all__ = [
    "Action",
    "AuditBroken",
    "BadInput",
    "CompositeKeyEncryption",
    "Conflict",
    "CoreDumps",
    "CoreDumpsPossible",
    "DataKeyRotation",
    "Entry",
    "Failure",
    "Finding",
    "Head",
    "KekDenied",
    "KekMissing",
    "KekRotation",
    "KekUnavailable",
    "KekUnusable",
    "KeyEncryption",
    "KeyEncryptionError",
    "KeyRef",
    "KeyResolver",
    "KeyState",
    "LocalKek",
    "LocalKeyEncryption",
    "MoveRefused",
    "Origin",
    "OtherVault",
    "Outcome",
    "Resolution",
    "SealBroken",
    "Secret",
    "SecretInfo",
    "SecretMissing",
    "SecretRevoked",
    "SecretStore",
    "Service",
    "SqliteStore",
    "Step",
    "TransitKeyEncryption",
    "TransitSettings",
    "Vault",
    "VaultElsewhere",
    "VaultError",
    "VaultFull",
    "VaultStoreCorrupt",
    "VaultStoreError",
    "VaultStoreFull",
    "VaultStoreLocked",
    "VaultStoreUnavailable",
    "classify",
    "forbid_core_dumps",
    "kek_from_environment",
    "kek_from_file",
    "token_from_file",
]
