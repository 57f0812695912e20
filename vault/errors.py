"""What the vault package raises.

VaultError
├── BadInput             a name, an actor, a time or a secret is not of the allowed form
├── SecretMissing        the tenant never had a key of this name
├── SecretRevoked        it had one; it was revoked
├── SealBroken           sealed bytes are damaged, or belong to another tenant, name or version
├── VaultFull            the tenant has as many names as it may have
├── Conflict             somebody else changed the same thing meanwhile; nothing was done
├── AuditBroken          the audit trail was tampered with: nothing is added to it
├── MoveRefused          a vault is not brought to another store; it is where it was
│   └── OtherVault       there is a vault with another root key there
├── KeyEncryptionError
│   ├── KekMissing       the key-encryption key that is needed is not here; ``kek_id`` says which
│   ├── KekUnusable      a key-encryption key cannot be taken from where it should be
│   ├── KekDenied        the key service refuses us
│   └── KekUnavailable   the key service does not answer, is sealed, or answers with something else
└── VaultStoreError
    ├── VaultStoreLocked       another program holds the file or the row; trying again may help
    ├── VaultStoreUnavailable  the database server cannot be reached; trying again helps when it can
    ├── VaultStoreFull         no room is left to write
    ├── VaultElsewhere         the vault was brought to another store, or not yet to this one
    └── VaultStoreCorrupt      the file is damaged, or holds what this program did not write

No text of an error holds a secret, a data key, a token, or a part of what a key service answered.
"""

from __future__ import annotations


class VaultError(Exception):
    """The root of this package's errors."""


class BadInput(VaultError):  # noqa: N818
    """Something that was given is not of the allowed form; the text says what is allowed."""


class SecretMissing(VaultError):  # noqa: N818
    """The tenant never had a key of this name."""


class SecretRevoked(VaultError):  # noqa: N818
    """The tenant's key of this name was revoked."""


class SealBroken(VaultError):  # noqa: N818
    """Sealed bytes do not open: damaged, or of another tenant, name or version."""


class VaultFull(VaultError):  # noqa: N818
    """The tenant has as many names as it may have."""


class Conflict(VaultError):  # noqa: N818
    """Somebody else changed the same thing meanwhile. Nothing was done."""


class AuditBroken(VaultError):  # noqa: N818
    """The audit trail or its head was tampered with; nothing is added to it until that is looked into."""


class MoveRefused(VaultError):  # noqa: N818
    """A vault is not brought to another store: the text says why. It is where it was."""


class OtherVault(MoveRefused):
    """Where it should come to, there is a vault with another root key."""


class KeyEncryptionError(VaultError):
    """A key-encryption key cannot be used."""


class KekMissing(KeyEncryptionError):  # noqa: N818
    """The key-encryption key that is needed is not here."""

    def __init__(self, kek_id: str, text: str) -> None:
        super().__init__(text)
        self.kek_id = kek_id
        """Which one is missing."""


class KekUnusable(KeyEncryptionError):  # noqa: N818
    """A key-encryption key cannot be taken from its file, variable or key service as it is."""


class KekDenied(KeyEncryptionError):  # noqa: N818
    """The key service refuses us."""


class KekUnavailable(KeyEncryptionError):  # noqa: N818
    """The key service does not answer in time, is sealed or overloaded, or answers with something else."""


class VaultStoreError(VaultError):
    """The vault's database cannot be opened, read or written; the text names the file or the server."""


class VaultStoreLocked(VaultStoreError):  # noqa: N818
    """Another program holds the file or the row; trying again may help."""


class VaultStoreUnavailable(VaultStoreError):  # noqa: N818
    """The database server cannot be reached; trying again helps when it can."""


class VaultStoreFull(VaultStoreError):  # noqa: N818
    """No room is left to write; what was there can be read."""


class VaultElsewhere(VaultStoreError):  # noqa: N818
    """The vault is in another store: it was brought there, or not yet here to the end."""


class VaultStoreCorrupt(VaultStoreError):  # noqa: N818
    """The file is damaged, or holds what this program did not write."""
