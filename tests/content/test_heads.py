"""The chain of heads."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.heads import (
    HEAD_MAX,
    NOTHING,
    NUMBER_MAX,
    Chain,
    HeadEntry,
    HeadKind,
    SignedHead,
    first_chain,
)
from cloudconnect.content.subkeys import RepositoryKeys
from cloudconnect.errors import ProtocolViolation, StoredDataDamaged
from cloudconnect.keys import MasterKey
from cloudconnect.wire import canonical
from tests.content.test_slots import REPOSITORY


def keys_from(octet: int) -> RepositoryKeys:
    """The keys of a made-up master key."""
    return RepositoryKeys(MasterKey(bytes([octet]) * 32), REPOSITORY)


KEYS, FRESH = keys_from(1), keys_from(2)


def point_id(number: int) -> bytes:
    """A made-up id."""
    return number.to_bytes(16, "big")


def grown(count: int, keys: RepositoryKeys = KEYS) -> tuple[Chain, list[SignedHead]]:
    """A chain of so many points, and its entries."""
    chain, heads = first_chain(keys), []
    for number in range(count):
        head = chain.next_point(keys, point_id(number), b"record %d" % number)
        chain = chain.follow(head)
        heads.append(head)
    return chain, heads


class ChainTests(SynchronousTestCase):
    """What continues a chain, and what does not."""

    def test_grows(self) -> None:
        """Each entry names the one before it, the first one nothing."""
        chain, heads = grown(3)
        entries = [head.entry for head in heads]
        self.assertEqual([entry.number for entry in entries], [1, 2, 3])
        self.assertEqual(
            [entry.previous for entry in entries], [NOTHING, heads[0].value, heads[1].value]
        )
        self.assertEqual([entry.point for entry in entries], [point_id(n) for n in range(3)])
        self.assertEqual(entries[1].digest, hashlib.sha256(b"record 1").digest())
        self.assertEqual((chain.number, chain.value), (3, heads[2].value))
        self.assertEqual(heads[2].value, hashlib.sha256(heads[2].encoded).digest())

    def refused(self, chain: Chain, head: SignedHead) -> None:
        self.assertRaises(StoredDataDamaged, chain.follow, head)

    def test_order(self) -> None:
        """An entry that is left out, repeated, or of another past does not continue a chain."""
        chain, heads = grown(3)
        start = first_chain(KEYS)
        self.refused(start, heads[1])
        self.refused(start.follow(heads[0]), heads[0])
        self.refused(start.follow(heads[0]), heads[2])
        other = start.follow(start.next_point(KEYS, point_id(9), b"another record"))
        self.refused(other, heads[1])
        self.refused(chain, other.next_point(KEYS, point_id(4), b"x"))

    def test_other_repository(self) -> None:
        """Nor does one of another repository under the same master key."""
        moved = RepositoryKeys(MasterKey(bytes([1]) * 32), bytes(16))
        head = first_chain(moved).next_point(moved, point_id(0), b"x")
        self.refused(first_chain(KEYS), head)

    def test_other_key(self) -> None:
        """Nor does one that somebody else signed, or signed for another purpose."""
        start = first_chain(KEYS)
        self.refused(start, start.next_point(FRESH, point_id(0), b"x"))
        head = start.next_point(KEYS, point_id(0), b"x")
        self.refused(start, SignedHead(head.encoded, KEYS.sign(head.encoded)))
        self.refused(start, SignedHead(head.encoded, b""))

    def test_new_master(self) -> None:
        """Behind the entry of a description with another key, only that key continues."""
        chain, _ = grown(2)
        head = chain.next_description(KEYS, b"described", FRESH.public_key)
        after = chain.follow(head)
        self.assertEqual(after.description, hashlib.sha256(b"described").digest())
        self.assertEqual(after.key, FRESH.public_key)
        self.refused(after, after.next_point(KEYS, point_id(7), b"by who has the old key"))
        self.assertEqual(after.follow(after.next_point(FRESH, point_id(7), b"x")).number, 4)
        self.refused(chain, chain.next_description(FRESH, b"described", FRESH.public_key))

    def test_oldest_generation_signs_first(self) -> None:
        """A chain that is read from its beginning begins with the oldest key."""
        _, heads = grown(1)
        ring = RepositoryKeys(MasterKey(bytes([2]) * 32), REPOSITORY, older=[KEYS])
        self.assertEqual(first_chain(ring).follow(heads[0]).number, 1)
        self.refused(first_chain(FRESH), heads[0])

    @given(st.integers(0, 5), st.data())
    @settings(deadline=None, max_examples=100)
    def test_mutations(self, at: int, data: st.DataObject) -> None:
        """A changed byte in any entry or signature breaks the chain there."""
        _, heads = grown(6)
        octets = bytearray(heads[at].encoded + heads[at].signature)
        place = data.draw(st.integers(0, len(octets) - 1))
        octets[place] ^= data.draw(st.integers(1, 255))
        chain = first_chain(KEYS)
        for head in heads[:at]:
            chain = chain.follow(head)
        bad = SignedHead(bytes(octets[:-64]), bytes(octets[-64:]))
        with self.assertRaises((StoredDataDamaged, ProtocolViolation)):
            chain.follow(bad)

    @given(st.permutations(range(5)), st.integers(0, 5))
    @settings(deadline=None, max_examples=50)
    def test_any_order(self, order: list[int], count: int) -> None:
        """Only the entries in their order make the chain, up to where they differ."""
        _, heads = grown(5)
        chain = first_chain(KEYS)
        for place, number in enumerate(order[:count]):
            if number != place:
                self.refused(chain, heads[number])
                return
            chain = chain.follow(heads[number])
        self.assertEqual(chain.number, count)


class EntryTests(SynchronousTestCase):
    """Entries that somebody else stored."""

    def setUp(self) -> None:
        self.encoded = first_chain(KEYS).next_point(KEYS, point_id(1), b"x").encoded
        self.fields: dict[str, Any] = canonical.decode(self.encoded)

    def refused(self, encoded: bytes) -> None:
        self.assertRaises(ProtocolViolation, HeadEntry.decode, encoded)

    def test_there_and_back(self) -> None:
        """An entry of either kind comes back as it was, and is short."""
        chain, _ = grown(1)
        for head in (
            chain.next_point(KEYS, point_id(2), b"x"),
            attrs.evolve(chain, number=NUMBER_MAX - 1).next_description(KEYS, b"x", bytes(32)),
        ):
            self.assertEqual(head.entry.encode(), head.encoded)
            self.assertLess(len(head.encoded), HEAD_MAX)

    def test_fields(self) -> None:
        """Missing, unknown and impossible fields are refused."""
        for name in self.fields:
            rest = {key: value for key, value in self.fields.items() if key != name}
            self.refused(canonical.encode(rest))
            for value in (None, 0, 2, -1, True, "", "point ", b"", b"x", [], {}, 1.5, 1 << 60):
                self.refused(canonical.encode({**self.fields, name: value} | {"more": 1}))
                if value != self.fields[name]:
                    self.refused(canonical.encode({**self.fields, name: value}))

    def test_kinds(self) -> None:
        """A point names no key, a description no point."""
        for changes in (
            {"key": bytes(32)},
            {"kind": "description"},
            {"kind": "description", "key": bytes(32)},
            {"kind": "description", "point": b"", "key": b""},
            {"previous": bytes([1]) * 32},
            {"number": 2},
        ):
            self.refused(canonical.encode({**self.fields, **changes}))
        good = {**self.fields, "kind": "description", "point": b"", "key": bytes(32)}
        self.assertEqual(HeadEntry.decode(canonical.encode(good)).kind, HeadKind.DESCRIPTION)

    def test_too_long(self) -> None:
        """More bytes than a head can have are refused at once."""
        self.refused(bytes(HEAD_MAX + 1))

    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_anything(self, data: bytes) -> None:
        """Random bytes are refused and nothing else happens."""
        self.refused(data)
