"""Layer 0: how the package's small classes are shown, in logs and in tests that fail.

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


def _field(shown: Shown, field: attrs.Attribute[object]) -> str:
    try:
        value = getattr(shown, field.name)
    except AttributeError:
        return f"{field.name}='not set'"
    return f"{field.name}={field.repr(value) if callable(field.repr) else repr(value)}"
