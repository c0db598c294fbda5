"""Layer 0: how sizes are shown, and the package's small classes, in logs and in tests that fail.

``attrs`` writes a method for each class, and compiles it when the class is imported: a quarter of
what such a class costs, and a command imports a hundred of them. One method serves them all.
"""

from __future__ import annotations

import attrs


class Shown:
    """Base of ``attrs`` classes that are decorated with ``repr=False``: shows them as ``attrs``
    would. A field with ``repr=False`` stays hidden, and one with a function for it is shown by
    that: content, and whatever is long, is only counted."""

    __slots__ = ()

    def __repr__(self) -> str:
        cls: type[attrs.AttrsInstance] = type(self)  # type: ignore[assignment]
        fields = (_field(self, field) for field in attrs.fields(cls) if field.repr)
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(fields)})"


def size_text(count: float) -> str:
    """``count`` bytes in decimal units, for a person."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _field(shown: Shown, field: attrs.Attribute[object]) -> str:
    try:
        value = getattr(shown, field.name)
    except AttributeError:
        return f"{field.name}='not set'"
    return f"{field.name}={field.repr(value) if callable(field.repr) else repr(value)}"
