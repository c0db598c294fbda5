"""How small classes are shown."""

from __future__ import annotations

import importlib
import re

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.shown import Shown
from cloudconnect.wire.bodies import Coding, StoredBlob
from cloudconnect.wire.frames import Frame, FrameKind
from tests.test_layers import our_modules


@attrs.frozen(repr=False)
class Point(Shown):
    """Two numbers and a secret."""

    x: int
    y: object = None
    secret: bytes = attrs.field(default=b"hidden", repr=False)
    content: bytes = attrs.field(default=b"long", repr=lambda value: f"<{len(value)} bytes>")

    @attrs.frozen(repr=False)
    class Inner(Shown):
        """A class inside another one."""

        text: str


@attrs.frozen
class Written:
    """The same, as attrs shows it."""

    x: int
    y: object = None
    secret: bytes = attrs.field(default=b"hidden", repr=False)
    content: bytes = attrs.field(default=b"long", repr=lambda value: f"<{len(value)} bytes>")


class ShownTests(SynchronousTestCase):
    """As attrs would show them."""

    def test_as_attrs(self) -> None:
        """Names and values, but not what is hidden."""
        self.assertEqual(
            "Point(x=1, y=Point(x=2, y='a', content=<4 bytes>), content=<4 bytes>)",
            repr(Point(1, Point(2, "a"))),
        )
        for values in ((1,), (2, "a"), (3, [None], b"another")):
            expected = repr(Written(*values)).replace("Written", "Point")
            self.assertEqual(expected, repr(Point(*values)))

    def test_names(self) -> None:
        """A class inside another is named with it, one inside a function without."""

        @attrs.frozen(repr=False)
        class Local(Shown):
            x: int

        self.assertEqual("Point.Inner(text='t')", repr(Point.Inner("t")))
        self.assertEqual("Local(x=1)", repr(Local(1)))

    def test_content(self) -> None:
        """What goes over the wire, and what is backed up, is counted and not shown: it may be
        anybody's secret, and a mebibyte of it."""
        canary = b"canary"
        frame = Frame(FrameKind.CHUNK, 0, 0, 1, canary)
        blob = StoredBlob(bytes(32), len(canary), Coding.PLAIN, bytes(32), canary)
        for shown in (frame, blob):
            self.assertIn("<6 bytes>", repr(shown))
            self.assertNotIn("canary", repr(shown))

    def test_unfinished(self) -> None:
        """One whose fields are not set yet can be shown: a debugger may do so."""
        self.assertIn("not set", repr(Point.__new__(Point)))

    def test_slots(self) -> None:
        """It adds no dictionary to objects of which there may be many."""
        self.assertFalse(hasattr(Point(1), "__dict__"))

    def test_shown_at_all(self) -> None:
        """No class of ours leaves its display to attrs' switch and forgets this one."""
        for module, path in our_modules():
            for part in path.read_text("utf-8").split("\n@attrs.")[1:]:
                decorator, _, rest = part.partition("\nclass ")
                if "repr=False" in decorator:
                    name = re.match(r"\w+", rest)
                    assert name is not None
                    cls = getattr(importlib.import_module(module), name[0])
                    self.assertIs(cls.__repr__, Shown.__repr__, f"{module}.{name[0]}")
