"""Layer 6: values that people write on a command line."""

from __future__ import annotations

import datetime

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


def parse_rate(text: str | None) -> int:
    """Bytes a second from ``5MB`` or ``5MB/s``; 0, no limit, for None.

    :raises UsageError: not a rate
    """
    if text is None:
        return 0
    rate = parse_size(text.strip().removesuffix("/s"))
    if rate <= 0:
        raise UsageError(f"{text!r} is not a rate: write 500kB or 5MB")
    return rate


def parse_duration(text: str) -> float:
    """Seconds from ``90s``, ``10m``, ``26h``, ``7d`` or a plain number of seconds.

    :raises UsageError: not a time
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * factor
        if not 0 <= seconds < 1e9:
            raise ValueError
    except ValueError:
        raise UsageError(f"{text!r} is not a time: write 90s, 10m or 26h") from None
    return seconds


def parse_time(text: str) -> float:
    """Seconds since 1970 from ``2026-11-23``, ``2026-11-23 14:30`` and so on, in the local zone.

    A day without a time means its end.

    :raises UsageError: not a time
    """
    written = text.strip()
    try:
        try:
            day = datetime.date.fromisoformat(written)
        except ValueError:
            moment = datetime.datetime.fromisoformat(written)
        else:
            moment = datetime.datetime.combine(day, datetime.time.max)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a time: write 2026-11-23 or 2026-11-23T14:30") from None
