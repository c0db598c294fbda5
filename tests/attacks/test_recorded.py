"""The campaigns over recorded sessions in their short form, and that they can fail."""

from __future__ import annotations

import random
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.wire import protection
from tests.attacks import recorded_campaigns
from tests.attacks.fields import Way
from tests.attacks.recorded import Judgement, Recorded
from tests.crash.stage import Failed

#: However slow the machine: the numbers end these, not the time.
FOREVER = 1800.0


class RecordedTests(SynchronousTestCase):
    """A recorded session, changed."""

    def counts(self, name: str, most: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        getattr(recorded_campaigns, f"run_{name}")(7, FOREVER, counts, most)
        return counts

    def test_unchanged(self) -> None:
        """Unchanged recordings are received whole, in both directions of every connection."""
        for leg in Recorded(random.Random(1)).legs:
            for way in Way:
                verdict = leg.receive(way, leg.sent[way])
                self.assertIs(Judgement.CLEAN, verdict.judgement, leg.name)
                self.assertEqual(leg.clear[way], verdict.delivered, leg.name)

    def test_flips(self) -> None:
        """One bit anywhere: refused; only a length, or a preamble, may show as something else."""
        counts = self.counts("flips", 2000)
        self.assertEqual(2000, counts["positions"])
        self.assertGreater(counts["positions that there are"], 100_000)
        self.assertGreater(counts["refused"], 1900)
        self.assertEqual(0, counts["clean"])

    def test_cuts(self) -> None:
        """A cut at any offset: truncated; nobody knows whose a preamble was that is cut."""
        counts = self.counts("cuts", 1000)
        self.assertGreaterEqual(counts["offsets that there are"], 64 << 10)
        self.assertEqual(1000, counts["truncated"] + counts["stranger"])
        self.assertLess(counts["stranger"], 22)

    def test_splices(self) -> None:
        """Swaps, duplicates, drops, splices, reflections: all detected."""
        counts = self.counts("splices", 2000)
        self.assertEqual(0, counts["clean"])
        for kind in ("session", "direction", "hop or connection"):
            self.assertGreater(counts[f"of another {kind}"], 100)

    def test_prefixes(self) -> None:
        """No prefix of what was recorded is accepted by whoever comes next."""
        counts = self.counts("prefixes", 1200)
        self.assertEqual(1200, counts["prefixes"])
        self.assertGreater(counts["refused"], 800)

    def test_nonces(self) -> None:
        """No key has the same nonce twice: not over connections, hops, directions and epochs."""
        counts = self.counts("nonces", 10_000)
        self.assertEqual(counts["records"], counts["keys and nonces"])
        self.assertGreater(counts["changes of keys"], 0)
        self.assertEqual(16, counts["directions"])

    def test_a_change_is_seen(self) -> None:
        """The judge finds a receiver that does not verify, and one key for every hop."""
        self.patch(protection.RecordOpener, "open", _without_looking)
        self.assertRaises(Failed, self.counts, "flips", 400)

    def test_a_repeated_nonce_is_seen(self) -> None:
        """The bookkeeper finds a counter that stands still."""
        self.patch(protection._Direction, "_count", lambda self, kind, size: None)
        self.assertRaises(Failed, self.counts, "nonces", 100)


def _without_looking(self: protection.RecordOpener, header: bytes, sealed: bytes) -> bytes:
    """As a receiver that decrypts and does not verify; it knows the plaintext's length only."""
    kind, length = self.header(header)
    payload = bytes(length - protection.TAG_SIZE)
    if kind is protection.RecordType.END:
        payload = protection.TOTALS.pack(self.data_bytes, self.data_records)
    self._accept(kind, payload)
    return payload
