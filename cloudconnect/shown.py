"""Layer 0: how the package's small classes are shown, in logs and in tests that fail.

``attrs`` writes a method for each class, and compiles it when the class is imported: a quarter of
what such a class costs, and a command imports a hundred of them. One method serves them all.
"""

from __future__ import annotations

import attrs


class Shown:
    """Base of ``attrs`` classes that are decorated with ``repr=False``: shows them as ``attrs``
    would. A field with ``repr=False`` stays hidden."""

    __slots__ = ()

    def __repr__(self) -> str:
        cls: type[attrs.AttrsInstance] = type(self)  # type: ignore[assignment]
        fields = (
            f"{field.name}={getattr(self, field.name, 'not set')!r}"
            for field in attrs.fields(cls)
            if field.repr
        )
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(fields)})"
