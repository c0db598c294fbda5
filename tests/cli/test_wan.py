"""Tests of :mod:`cloudconnect.cli.wan`."""

from __future__ import annotations

import itertools
from typing import Any

import attrs

from cloudconnect.cli.line import Line
from cloudconnect.cli.tenant import resolve
from cloudconnect.cli.wan import (
    STREAMS,
    WAN,
    decide,
    foreseen_streams,
    wanted_beside,
)
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import UsageError
from cloudconnect.settings import LONG_LINE_SECONDS
from cloudconnect.tenant.control import Account
from tests.cli.commands import CommandCase
from tests.cli.test_tenant import NOTHING

PROVIDER, REPOSITORY = b"p" * 16, b"r" * 16
#: Ways there and back, in seconds; None: not known.
WAYS = (None, 0.0, LONG_LINE_SECONDS / 2, LONG_LINE_SECONDS, 0.1)
SAVED = {
    "bytes_before": 10_000_000,
    "bytes_after": 1_000_000,
    "saved_by_reference": 8_000_000,
    "saved_by_delta": 0,
    "saved_by_compression": 999_000,
}


class _Manager:
    """As much of a job manager as a decision wants."""

    def __init__(self, round_trip: float | None) -> None:
        self.round_trip = round_trip


class _Settings:
    """As much of a command's settings."""

    retry = 0.0


def line(offered: bool, way: float | None = 0.1) -> Line:
    """A line to a provider that offers acceleration, or does not."""
    manager: Any = _Manager(way)
    settings: Any = _Settings()
    account = Account(PROVIDER, b"", ("tenant", "provider", "none"), offered)
    return Line(None, manager, account, settings)


class DecisionTests(CommandCase):
    """What becomes of ``--wan``."""

    def test_every_case(self) -> None:
        """``off`` never; ``on`` always where it is offered; ``auto`` where it is, the mode lets
        accelerators see content, and the line is not known to be short."""
        for mode, way in itertools.product(EncryptionMode, WAYS):
            plain = mode is not EncryptionMode.TENANT
            short = way is not None and way < LONG_LINE_SECONDS
            used = {
                choice: decide(line(True, way), mode, choice).used
                for choice in ("auto", "on", "off")
            }
            expected = {"auto": plain and not short, "on": True, "off": False}
            self.assertEqual(expected, used, (mode, way))
            self.assertFalse(decide(line(False, way), mode, "auto").used)
            self.assertFalse(decide(line(False, way), mode, "off").used)

    def test_wanted_beside(self) -> None:
        """Whatever may be used is wanted, and what cannot be is not."""
        for mode, choice in itertools.product(EncryptionMode, ("auto", "on", "off")):
            may_be = any(decide(line(True, way), mode, choice).used for way in WAYS)
            wanted = wanted_beside(mode, choice)
            self.assertEqual(may_be, "cloudconnect.accelerator.source" in wanted, (mode, choice))

    def test_foreseen(self) -> None:
        """Before the log-in it is foreseen that what will be decided at a provider that offers it;
        not with a shared accelerator, which may not be there."""
        for mode, way, choice in itertools.product(EncryptionMode, WAYS, ("auto", "on", "off")):
            settings = resolve(**NOTHING | {"encryption": mode.value})
            streams = foreseen_streams(settings, choice, way)
            used = decide(line(True, way), mode, choice).used
            self.assertEqual(STREAMS if used else 0, streams, (mode, way, choice))
            profile = attrs.evolve(settings.profile, wan_accelerator="localhost:6181")
            shared = attrs.evolve(settings, profile=profile)
            self.assertEqual(None if used else 0, foreseen_streams(shared, choice, way))

    def test_not_offered(self) -> None:
        """``on`` at a provider without acceleration is refused, and says what to do."""
        for mode in EncryptionMode:
            error = self.assertRaises(UsageError, decide, line(False), mode, "on")
            self.assertIn("--wan auto or off", str(error))

    def test_may_be_left_out(self) -> None:
        """Only what nobody insisted on may go on without when accelerators are gone."""
        provider = EncryptionMode.PROVIDER
        self.assertTrue(decide(line(True), provider, "auto").optional)
        self.assertFalse(decide(line(True), provider, "on").optional)

    def test_uncompressed(self) -> None:
        """Chunks travel uncompressed to accelerators that see content, and only to those."""
        for mode, choice in itertools.product(EncryptionMode, ("auto", "on", "off")):
            decided = decide(line(True), mode, choice)
            self.assertEqual(decided.used and mode is not EncryptionMode.TENANT, decided.plain)

    def test_reasons(self) -> None:
        """Each decision says why, so that a person can change it."""
        tenant, provider = EncryptionMode.TENANT, EncryptionMode.PROVIDER
        for decided, word in (
            (decide(line(True), tenant, "on"), "sealed"),
            (decide(line(True), tenant, "auto"), "sealed"),
            (decide(line(True), provider, "off"), "not wanted"),
            (decide(line(False), provider, "auto"), "offers none"),
            (decide(line(True, 0.0001), provider, "auto"), "short"),
            (decide(line(True), provider, "auto"), "encryption mode provider"),
            (decide(line(True), EncryptionMode.NONE, "on"), "encryption mode none"),
        ):
            self.assertIn(word, decided.why)


class TextTests(CommandCase):
    """What people and programs are told of it."""

    def test_text(self) -> None:
        """A line names the bytes before and after, and each way in which any were saved."""
        text = WAN(used=True, why="why", plain=True).text(SAVED)
        self.assertEqual(
            "\nWAN acceleration: 10.0 MB as 1.0 MB; saved 8.0 MB by reference, 999.0 kB by "
            "compression",
            text,
        )

    def test_nothing_saved(self) -> None:
        """Where nothing was saved, nothing is claimed; in mode tenant the line says why."""
        nothing = dict.fromkeys(SAVED, 0) | {"bytes_before": 500, "bytes_after": 510}
        text = WAN(used=True, why="because it is sealed").text(nothing)
        self.assertEqual("\nWAN acceleration: 500 B as 510 B (because it is sealed)", text)

    def test_without(self) -> None:
        """A session without acceleration has no line, and its summary says why."""
        self.assertEqual("", WAN(why="why").text({}))
        self.assertEqual({"used": False, "why": "why"}, WAN(why="why").summary({}))

    def test_lost(self) -> None:
        """Where an accelerator was lost before it said what it had saved there is no line, and no
        empty one."""
        moved = {"line_sent": 5, "line_received": 7}
        self.assertEqual("", WAN(used=True, why="why", plain=True).text(moved))

    def test_summary(self) -> None:
        """The summary says why, which is the mode's effect, and has the accelerator's counts."""
        summary = WAN(used=True, why="why", plain=True).summary(SAVED)
        self.assertEqual({"used": True, "why": "why", **SAVED}, summary)
