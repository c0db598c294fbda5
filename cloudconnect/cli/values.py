"""Layer 6: values that people write on a command line."""

from __future__ import annotations

from cloudconnect.errors import UsageError


def parse_size(text: str) -> int:
    """Bytes from ``50GB``, ``20MiB`` or a plain number.

    :raises UsageError: not a size
    """
    cleaned = text.strip().upper().removesuffix("B")
    base = 1000
    if cleaned.endswith("I"):
        cleaned, base = cleaned[:-1], 1024
    unit = cleaned[-1:] if cleaned[-1:].isalpha() else ""
    number = cleaned[: len(cleaned) - len(unit)]
    try:
        if unit not in ("", *"KMGT"):
            raise ValueError
        factor = base ** ("KMGT".index(unit) + 1) if unit else 1
        count = int(float(number) * factor)
        if count < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a size: write 500MB, 50GB or 1TiB") from None
    return count
