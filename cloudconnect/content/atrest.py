"""Layer 1: encryption at rest, whole (``docs/repository-format.rst``).

In three modules: :mod:`~cloudconnect.content.subkeys` (what a repository's keys do),
:mod:`~cloudconnect.content.slots` (how the master key is wrapped) and
:mod:`~cloudconnect.content.description` (what the provider keeps for a new machine). This one
exports what other layers need of them.
"""

from __future__ import annotations

from cloudconnect.content.description import RepositoryDescription, describe, unlock
from cloudconnect.content.slots import (
    Argon2Costs,
    KeySlot,
    SlotKind,
    make_open_slot,
    make_slot,
    open_slot,
)
from cloudconnect.content.subkeys import BlobKind, EncryptionMode, RepositoryKeys, verify

__all__ = [
    "Argon2Costs",
    "BlobKind",
    "EncryptionMode",
    "KeySlot",
    "RepositoryDescription",
    "RepositoryKeys",
    "SlotKind",
    "describe",
    "make_open_slot",
    "make_slot",
    "open_slot",
    "unlock",
    "verify",
]
