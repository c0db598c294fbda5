"""Key slots: the master key, wrapped."""

from __future__ import annotations

import os

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import slots
from cloudconnect.content.slots import (
    Argon2Costs,
    KeySlot,
    SlotKind,
    make_open_slot,
    make_slot,
    open_slot,
)
from cloudconnect.errors import ProtocolViolation, WrongPassphrase
from cloudconnect.keys import MasterKey, Password
from cloudconnect.wire import canonical

REPOSITORY = bytes(range(16))
#: The least that Argon2id allows: tests check what it is used for, not how long it takes.
CHEAP = Argon2Costs(iterations=1, lanes=1, memory_kib=8)


def cheap_slot(master: MasterKey, passphrase: bytes = b"correct horse") -> KeySlot:
    """``master`` in a slot that costs next to nothing."""
    return make_slot(master, REPOSITORY, Password(passphrase), costs=CHEAP)


class SlotTests(SynchronousTestCase):
    """Wrapping and unwrapping."""

    def setUp(self) -> None:
        self.master = MasterKey.generate()
        self.slot = cheap_slot(self.master)
        self.passphrase = Password(b"correct horse")

    def test_opens(self) -> None:
        """The passphrase gives the master key back."""
        self.assertEqual(open_slot(self.slot, REPOSITORY, self.passphrase), self.master)

    def test_default_costs(self) -> None:
        """Unless told otherwise a slot has the costs of RFC 9106's second recommendation."""
        slot = make_slot(self.master, REPOSITORY, self.passphrase)
        assert slot.argon2 is not None
        self.assertEqual(attrs.astuple(slot.argon2), (3, 4, 65536))
        self.assertEqual(open_slot(slot, REPOSITORY, self.passphrase), self.master)

    def test_key_file(self) -> None:
        """The content of a key file serves like a passphrase, whatever octets it has."""
        content = Password(os.urandom(4000))
        slot = make_slot(self.master, REPOSITORY, content, SlotKind.KEY_FILE, CHEAP)
        self.assertEqual(slot.kind, SlotKind.KEY_FILE)
        self.assertEqual(open_slot(slot, REPOSITORY, content), self.master)

    def test_wrong_passphrase(self) -> None:
        """Any other passphrase, and none at all, is refused by name."""
        for wrong in (b"", b"correct hors", b"correct horse ", b"Correct horse"):
            self.assertRaises(WrongPassphrase, open_slot, self.slot, REPOSITORY, Password(wrong))
        self.assertRaises(WrongPassphrase, open_slot, self.slot, REPOSITORY, None)

    def test_other_repository(self) -> None:
        """A slot that was moved to another repository does not open."""
        self.assertRaises(WrongPassphrase, open_slot, self.slot, bytes(16), self.passphrase)

    def test_every_bit_counts(self) -> None:
        """A flip of any bit of salt, commitment or wrapped key does not open."""
        for name in ("salt", "commitment", "wrapped"):
            octets = getattr(self.slot, name)
            for bit in range(8 * len(octets)):
                changed = bytearray(octets)
                changed[bit // 8] ^= 1 << bit % 8
                bad = attrs.evolve(self.slot, **{name: bytes(changed)})
                self.assertRaises(WrongPassphrase, open_slot, bad, REPOSITORY, self.passphrase)

    def test_other_fields_count(self) -> None:
        """Identifier, kind and costs cannot be exchanged."""
        for bad in (
            attrs.evolve(self.slot, identifier="0" * 16),
            attrs.evolve(self.slot, kind=SlotKind.KEY_FILE),
            attrs.evolve(self.slot, argon2=Argon2Costs(2, 1, 8)),
        ):
            self.assertRaises(WrongPassphrase, open_slot, bad, REPOSITORY, self.passphrase)

    def test_commitment_is_checked(self) -> None:
        """A slot whose wrapping would open under a second passphrase too does not.

        AES-GCM does not commit to its key, so the commitment must be what decides. Here it belongs
        to another passphrase, and everything else fits.
        """
        salt, nonce = bytes(16), bytes(12)
        key, _ = slots.stretch(self.passphrase, salt, CHEAP)
        _, other = slots.stretch(Password(b"another"), salt, CHEAP)
        associated = slots._associated("id", SlotKind.PASSPHRASE, CHEAP, salt, other, REPOSITORY)
        wrapped = nonce + slots.AESGCM(key).encrypt(nonce, self.master.reveal(), associated)
        bad = KeySlot("id", SlotKind.PASSPHRASE, CHEAP, salt, other, wrapped)
        self.assertRaises(WrongPassphrase, open_slot, bad, REPOSITORY, self.passphrase)

    def test_two_slots(self) -> None:
        """Two slots of the same key and passphrase have nothing in common."""
        one, two = cheap_slot(self.master), cheap_slot(self.master)
        for name in ("identifier", "salt", "commitment", "wrapped"):
            self.assertNotEqual(getattr(one, name), getattr(two, name))

    def test_open_slot_kind(self) -> None:
        """An open slot gives the master key to anybody."""
        slot = make_open_slot(self.master)
        self.assertEqual(open_slot(slot, REPOSITORY, None), self.master)

    def test_nothing_shown(self) -> None:
        """Neither repr nor error shows the master key, an open slot's wrapping or a passphrase."""
        error = self.assertRaises(
            WrongPassphrase, open_slot, self.slot, REPOSITORY, Password(b"battery staple")
        )
        octets = self.master.reveal()
        for text in (repr(self.slot), repr(make_open_slot(self.master)), str(error), repr(error)):
            for secret in (octets.hex(), repr(octets)[2:-1], "battery", "correct horse"):
                self.assertNotIn(secret, text)


class MapTests(SynchronousTestCase):
    """Slots that somebody else stored."""

    def setUp(self) -> None:
        self.slot = cheap_slot(MasterKey.generate())

    def test_there_and_back(self) -> None:
        """A slot comes back from its map, through canonical CBOR, as it was."""
        for slot in (self.slot, make_open_slot(MasterKey.generate())):
            self.assertEqual(
                KeySlot.from_map(canonical.decode(canonical.encode(slot.as_map()))), slot
            )

    def test_costs_are_bounded(self) -> None:
        """Costs that would stop a machine are refused before anything is computed."""
        costs = {"iterations": 1, "lanes": 1, "memory_kib": 8}
        for name, value in (
            ("iterations", 0),
            ("iterations", 65),
            ("lanes", 0),
            ("lanes", 65),
            ("memory_kib", 7),
            ("memory_kib", (1 << 20) + 1),
            ("memory_kib", 1 << 62),
            ("iterations", -1),
            ("iterations", True),
            ("iterations", 1.0),
            ("memory_kib", "8"),
            ("more", 1),
        ):
            fields = {**self.slot.as_map(), "argon2": {**costs, name: value}}
            with self.assertRaises(ProtocolViolation, msg=f"{name} {value}"):
                KeySlot.from_map(fields)

    def test_highest_costs(self) -> None:
        """The highest costs that are allowed are read back."""
        costs = Argon2Costs(iterations=64, lanes=64, memory_kib=1 << 20)
        slot = attrs.evolve(self.slot, argon2=costs)
        self.assertEqual(KeySlot.from_map(slot.as_map()).argon2, costs)

    @given(st.integers(), st.integers(), st.integers())
    @settings(deadline=None)
    def test_any_costs(self, iterations: int, lanes: int, memory_kib: int) -> None:
        """Whatever passes is within the bounds."""
        try:
            costs = Argon2Costs(iterations, lanes, memory_kib)
        except ValueError:
            return
        self.assertTrue(1 <= costs.iterations <= 64 and 1 <= costs.lanes <= 64)
        self.assertTrue(8 * costs.lanes <= costs.memory_kib <= 1 << 20)

    def test_refused(self) -> None:
        """A map with unknown, missing or impossible values is refused."""
        good = self.slot.as_map()
        bad = [
            {**good, "kind": "retina"},
            {**good, "kind": "open"},
            {**good, "kind": []},
            {**good, "argon2": None},
            {**good, "argon2": 5},
            {**good, "argon2": {}},
            {**good, "salt": b""},
            {**good, "salt": "x" * 16},
            {**good, "commitment": bytes(31)},
            {**good, "wrapped": bytes(61)},
            {**good, "wrapped": None},
            {**good, "identifier": ""},
            {**good, "identifier": "x" * 33},
            {**good, "identifier": b"0" * 16},
            {**good, "more": 1},
            {name: value for name, value in good.items() if name != "salt"},
            {},
        ]
        for fields in bad:
            with self.assertRaises(ProtocolViolation, msg=str(fields)):
                KeySlot.from_map(fields)
        for fields in (None, [], 5, b""):
            with self.assertRaises(ProtocolViolation, msg=str(fields)):
                KeySlot.from_map(fields)  # type: ignore[arg-type]
