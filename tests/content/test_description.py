"""A repository's description, which the provider keeps and hands out."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.description import (
    DESCRIPTION_MAX,
    PREVIOUS_MAX,
    REVISION_MAX,
    SLOTS_MAX,
    PreviousMaster,
    RepositoryDescription,
    describe,
    unlock,
)
from cloudconnect.content.slots import KeySlot, make_open_slot
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.errors import (
    ContextMismatch,
    ProtocolViolation,
    StoredDataDamaged,
    WrongPassphrase,
)
from cloudconnect.keys import MasterKey, Password
from cloudconnect.wire import canonical
from tests.content.test_slots import REPOSITORY, cheap_slot

TENANT = EncryptionMode.TENANT
PASSPHRASE = Password(b"correct horse")


def described(master: MasterKey, *more: KeySlot) -> RepositoryDescription:
    """The description of a repository in tenant mode."""
    return describe(master, REPOSITORY, TENANT, (cheap_slot(master), *more))


class UnlockTests(SynchronousTestCase):
    """From a description to the master key."""

    def setUp(self) -> None:
        self.master = MasterKey.generate()
        self.description = described(self.master)

    def test_unlocks(self) -> None:
        """A new machine gets the master key from the encoded description and the passphrase."""
        description = RepositoryDescription.decode(self.description.encode())
        self.assertEqual(unlock(description, TENANT, PASSPHRASE), self.master)

    def test_second_slot(self) -> None:
        """Each slot opens with its own passphrase."""
        description = described(self.master, cheap_slot(self.master, b"second"))
        for passphrase in (PASSPHRASE, Password(b"second")):
            self.assertEqual(unlock(description, TENANT, passphrase), self.master)

    def test_wrong_passphrase(self) -> None:
        """A passphrase that opens no slot is refused by name, and so is a missing one."""
        for wrong in (Password(b"wrong"), None):
            self.assertRaises(WrongPassphrase, unlock, self.description, TENANT, wrong)

    def test_no_slots(self) -> None:
        """A description without slots opens with nothing."""
        bare = describe(self.master, REPOSITORY, TENANT, ())
        self.assertRaises(WrongPassphrase, unlock, bare, TENANT, PASSPHRASE)

    def test_other_modes(self) -> None:
        """Where the provider may read, an open slot serves without a passphrase."""
        for mode in (EncryptionMode.PROVIDER, EncryptionMode.NONE):
            description = describe(self.master, REPOSITORY, mode, (make_open_slot(self.master),))
            back = RepositoryDescription.decode(description.encode())
            self.assertEqual(unlock(back, mode, None), self.master)

    def test_no_other_mode_than_chosen(self) -> None:
        """A provider cannot talk a machine out of the mode that its tenant chose."""
        master = MasterKey.generate()
        for mode in (EncryptionMode.PROVIDER, EncryptionMode.NONE):
            forged = describe(master, REPOSITORY, mode, (make_open_slot(master),))
            self.assertRaises(ContextMismatch, unlock, forged, TENANT, PASSPHRASE)

    def test_no_open_slot_in_tenant_mode(self) -> None:
        """A provider cannot slip in a master key that it knows, as an open slot."""
        forged = MasterKey.generate()
        with self.assertRaises(ValueError):
            describe(forged, REPOSITORY, TENANT, (make_open_slot(forged),))
        fields = {**canonical.decode(self.description.encode())}
        fields["slots"] = [make_open_slot(forged).as_map()]
        self.assertRaises(ProtocolViolation, RepositoryDescription.decode, canonical.encode(fields))

    def test_every_field_is_signed(self) -> None:
        """A description that was changed in any field is found out when it is unlocked."""
        other = RepositoryKeys(MasterKey.generate(), REPOSITORY)
        changes: list[dict[str, Any]] = [
            {"chunking": ChunkingParameters(seed=1)},
            {"id_check": bytes(8)},
            {"public_key": other.public_key},
            {"public_key": other.public_key, "id_check": other.id_check},
            {"slots": (*self.description.slots, cheap_slot(self.master))},
            {"slots": (cheap_slot(self.master),)},
            {"signature": bytes(64)},
            {"signature": b""},
            {"revision": 1},
            {"previous": (PreviousMaster(bytes(32), bytes(8), bytes(72)),)},
            {"version": 1},
        ]
        for change in changes:
            bad = attrs.evolve(self.description, **change)
            with self.assertRaises(StoredDataDamaged, msg=str(change)):
                unlock(bad, TENANT, PASSPHRASE)
        moved = attrs.evolve(self.description, repository=bytes(16))
        self.assertRaises(WrongPassphrase, unlock, moved, TENANT, PASSPHRASE)

    def test_signed_by_another_key(self) -> None:
        """A description that another master key signed, with a genuine slot, is refused."""
        forged = describe(MasterKey.generate(), REPOSITORY, TENANT, self.description.slots)
        self.assertRaises(StoredDataDamaged, unlock, forged, TENANT, PASSPHRASE)

    def test_mode_is_signed(self) -> None:
        """A description whose mode was changed does not hold its signature."""
        keys = RepositoryKeys(self.master, REPOSITORY, EncryptionMode.PROVIDER)
        changed = attrs.evolve(self.description, mode=EncryptionMode.PROVIDER)
        self.assertRaises(StoredDataDamaged, changed.verify, keys)

    def test_change_of_slots(self) -> None:
        """The holder of the master key changes slots and signs again."""
        changed = attrs.evolve(self.description, slots=(cheap_slot(self.master, b"new"),))
        changed = changed.signed(RepositoryKeys(self.master, REPOSITORY))
        self.assertEqual(unlock(changed, TENANT, Password(b"new")), self.master)
        self.assertRaises(WrongPassphrase, unlock, changed, TENANT, PASSPHRASE)


class EncodingTests(SynchronousTestCase):
    """The bytes that the provider stores."""

    def setUp(self) -> None:
        self.description = described(MasterKey.generate())
        self.encoded = self.description.encode()
        self.fields = canonical.decode(self.encoded)

    def refused(self, encoded: bytes) -> None:
        """Assert that ``encoded`` is no description."""
        self.assertRaises(ProtocolViolation, RepositoryDescription.decode, encoded)

    def test_there_and_back(self) -> None:
        """It comes back as it was, and one description has one encoding."""
        back = RepositoryDescription.decode(self.encoded)
        self.assertEqual(back, self.description)
        self.assertEqual(back.encode(), self.encoded)

    def test_most_slots(self) -> None:
        """As many slots as are allowed fit; one more is refused on both sides."""
        master = MasterKey.generate()
        slots = tuple(cheap_slot(master) for _ in range(SLOTS_MAX))
        full = describe(master, REPOSITORY, TENANT, slots)
        self.assertLess(len(full.encode()), DESCRIPTION_MAX)
        self.assertEqual(RepositoryDescription.decode(full.encode()), full)
        self.assertRaises(
            ValueError, describe, master, REPOSITORY, TENANT, (*slots, cheap_slot(master))
        )
        fields = canonical.decode(full.encode())
        fields["slots"].append(fields["slots"][0])
        self.refused(canonical.encode(fields))

    def test_newer_version(self) -> None:
        """A version that this release does not know is refused, not guessed at."""
        for version in (0, 3, True, "1"):
            self.refused(canonical.encode({**self.fields, "version": version}))

    def test_version_1(self) -> None:
        """What an older release has stored is read, holds, and encodes to the same bytes."""
        keys = RepositoryKeys(MasterKey(bytes(32)), REPOSITORY)
        old = attrs.evolve(described(MasterKey(bytes(32))), version=1).signed(keys)
        encoded = old.encode()
        fields = canonical.decode(encoded)
        self.assertEqual(set(self.fields) - set(fields), {"revision", "previous"})
        back = RepositoryDescription.decode(encoded)
        self.assertEqual((back, back.encode()), (old, encoded))
        self.assertEqual(unlock(back, TENANT, PASSPHRASE), MasterKey(bytes(32)))
        self.refused(canonical.encode({**fields, "revision": 0, "previous": []}))
        self.refused(canonical.encode({**fields, "version": 2}))
        self.assertRaises(ValueError, attrs.evolve, old, revision=1)

    def test_revisions(self) -> None:
        """A revision fits into 8 hexadecimal digits."""
        self.refused(canonical.encode({**self.fields, "revision": 1 << 32}))
        encoded = canonical.encode({**self.fields, "revision": REVISION_MAX})
        self.assertEqual(RepositoryDescription.decode(encoded).revision, REVISION_MAX)

    def test_previous(self) -> None:
        """As many earlier master keys as are allowed fit beside all slots; one more is refused,
        and so is one that is named twice or has fields of another size."""
        master = MasterKey.generate()
        full = describe(
            master, REPOSITORY, TENANT, tuple(cheap_slot(master) for _ in range(SLOTS_MAX))
        )
        previous = tuple(
            PreviousMaster(bytes([n]) * 32, bytes(8), bytes(72)) for n in range(PREVIOUS_MAX)
        )
        full = attrs.evolve(full, previous=previous, revision=REVISION_MAX)
        encoded = full.encode()
        self.assertLess(len(encoded), DESCRIPTION_MAX)
        self.assertEqual(RepositoryDescription.decode(encoded), full)
        self.assertEqual(len(full.public_keys), PREVIOUS_MAX + 1)
        fields = canonical.decode(encoded)
        one = fields["previous"][0]
        more = {**one, "public_key": bytes([99]) * 32}
        for bad in (
            [*fields["previous"], more],
            [one, one],
            [{**one, "public_key": fields["public_key"]}],
            [{**one, "wrapped": bytes(71)}],
            [{**one, "more": 1}],
            [{"public_key": bytes(32)}],
            [5],
            [None],
        ):
            self.refused(canonical.encode({**fields, "previous": bad}))

    def test_fields(self) -> None:
        """Missing, unknown and impossible fields are refused."""
        for name in self.fields:
            self.refused(
                canonical.encode({key: self.fields[key] for key in self.fields if key != name})
            )
            for value in (None, 5, "", b"", [], [5], {}, {"a": 1}, -1, 1.5):
                if value != self.fields[name] and (name, value) not in (
                    ("slots", []),
                    ("signature", b""),
                    ("revision", 5),
                ):
                    self.refused(canonical.encode({**self.fields, name: value}))
        self.refused(canonical.encode({**self.fields, "more": 1}))

    def test_cut(self) -> None:
        """A description that was cut anywhere, or has more behind it, is refused."""
        for length in range(len(self.encoded)):
            self.refused(self.encoded[:length])
        self.refused(self.encoded + b"\0")

    def test_not_canonical(self) -> None:
        """A second encoding of the same value is refused."""
        self.refused(b"\xbf" + self.encoded[1:] + b"\xff")
        swapped = dict(reversed(list(self.fields.items())))
        self.refused(canonical.cbor2.dumps(swapped))

    def test_bombs(self) -> None:
        """Deep nesting, huge lengths and much too many bytes are refused at once."""
        for bomb in (
            b"\x81" * 10000,
            b"\xa1\x61a" * 5000,
            b"\x9b" + b"\xff" * 8,
            b"\xbb" + b"\x7f" * 8,
            b"\x5b" + b"\x7f" * 8,
            b"\xa1\x67version\x9a\xff\xff\xff\xff",
            bytes(DESCRIPTION_MAX + 1),
            b"",
        ):
            self.refused(bomb)

    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_anything(self, data: bytes) -> None:
        """Random bytes are refused and nothing else happens."""
        self.refused(data)

    @given(st.data())
    @settings(deadline=None, max_examples=200)
    def test_mutations(self, data: st.DataObject) -> None:
        """A changed byte is refused, or gives a description that does not hold."""
        master = MasterKey(bytes(32))
        encoded = bytearray(described(master).encode())
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] ^= data.draw(st.integers(1, 255))
        try:
            changed = RepositoryDescription.decode(bytes(encoded))
        except ProtocolViolation:
            return
        if changed.mode is TENANT and changed.repository == REPOSITORY:
            self.assertRaises(StoredDataDamaged, changed.verify, RepositoryKeys(master, REPOSITORY))

    def test_no_secret_inside(self) -> None:
        """In tenant mode the stored description does not hold the master key."""
        master = MasterKey.generate()
        self.assertNotIn(master.reveal(), described(master).encode())
