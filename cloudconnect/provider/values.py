"""Layer 4: what keeps the provider's own values, as those see it that have some to keep."""

from __future__ import annotations

from typing import Protocol


class Values(Protocol):
    """Keeps values by name (:class:`cloudconnect.provider.accounts.Accounts`); blocks."""

    def value(self, name: str) -> bytes | None:
        """What is kept under ``name``, or None."""

    def keep_value(self, name: str, value: bytes) -> None:
        """Keep something under ``name``, in the place of what is there."""
