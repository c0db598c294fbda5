"""A repository's keys over time."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import generations
from cloudconnect.content.description import (
    PREVIOUS_MAX,
    REVISION_MAX,
    SLOTS_MAX,
    PreviousMaster,
    RepositoryDescription,
    describe,
    unlock,
    unlock_slot,
)
from cloudconnect.content.generations import (
    add_slot,
    find_slot,
    keys_of,
    new_master,
    remove_slot,
    replace_slot,
)
from cloudconnect.content.slots import make_open_slot
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.errors import NotFound, StoredDataDamaged, UsageError, WrongPassphrase
from cloudconnect.keys import MasterKey, Password
from tests.content.test_slots import REPOSITORY, cheap_slot

TENANT = EncryptionMode.TENANT


class SlotTests(SynchronousTestCase):
    """The same master key, other ways to it."""

    def setUp(self) -> None:
        self.master = MasterKey.generate()
        self.slot = cheap_slot(self.master, b"first")
        self.description = describe(self.master, REPOSITORY, TENANT, (self.slot,))
        self.keys = RepositoryKeys(self.master, REPOSITORY)

    def opens(self, description: RepositoryDescription, passphrase: bytes) -> bool:
        """Whether a new machine gets the master key from what was stored."""
        stored = RepositoryDescription.decode(description.encode())
        try:
            return unlock(stored, TENANT, Password(passphrase)) == self.master
        except WrongPassphrase:
            return False

    def test_add(self) -> None:
        """Both passphrases open; each change counts one revision."""
        changed = add_slot(self.description, self.keys, cheap_slot(self.master, b"second"))
        self.assertEqual((self.description.revision, changed.revision), (0, 1))
        self.assertTrue(self.opens(changed, b"first") and self.opens(changed, b"second"))
        self.assertFalse(self.opens(self.description, b"second"))

    def test_too_many(self) -> None:
        """One slot more than there can be is refused in words."""
        description = self.description
        for _ in range(SLOTS_MAX - 1):
            description = add_slot(description, self.keys, cheap_slot(self.master))
        self.assertRaises(UsageError, add_slot, description, self.keys, cheap_slot(self.master))

    def test_remove(self) -> None:
        """A removed passphrase opens no more; the last one stays."""
        second = cheap_slot(self.master, b"second")
        both = add_slot(self.description, self.keys, second)
        changed = remove_slot(both, self.keys, self.slot.identifier[:6])
        self.assertFalse(self.opens(changed, b"first"))
        self.assertTrue(self.opens(changed, b"second"))
        self.assertRaises(UsageError, remove_slot, changed, self.keys, second.identifier)

    def test_replace(self) -> None:
        """Another passphrase in the same place, and the same master key."""
        both = add_slot(self.description, self.keys, cheap_slot(self.master, b"second"))
        new = cheap_slot(self.master, b"new")
        changed = replace_slot(both, self.keys, self.slot, new)
        self.assertEqual(changed.slots, (new, both.slots[1]))
        self.assertFalse(self.opens(changed, b"first"))
        self.assertTrue(self.opens(changed, b"new") and self.opens(changed, b"second"))
        self.assertRaises(NotFound, replace_slot, changed, self.keys, self.slot, new)

    def test_which_slot(self) -> None:
        """Unlocking tells which slot has opened."""
        second = cheap_slot(self.master, b"second")
        both = add_slot(self.description, self.keys, second)
        self.assertEqual(unlock_slot(both, TENANT, Password(b"second")), (self.master, second))

    def test_find(self) -> None:
        """A slot is named by the beginning of its identifier, where that names one."""
        one = attrs.evolve(self.slot, identifier="aabb")
        two = attrs.evolve(self.slot, identifier="aabbcc")
        both = attrs.evolve(self.description, slots=(one, two))
        self.assertEqual(find_slot(both, "aabbc"), two)
        self.assertEqual(find_slot(both, "aabb"), one)
        for wrong in ("aa", "", "b", "aabbccd"):
            self.assertRaises(NotFound, find_slot, both, wrong)

    def test_version_1(self) -> None:
        """What an older release described becomes version 2 with its first change."""
        old = attrs.evolve(self.description, version=1).signed(self.keys)
        changed = add_slot(old, self.keys, cheap_slot(self.master, b"second"))
        self.assertEqual((changed.version, changed.revision), (2, 1))
        self.assertTrue(self.opens(changed, b"first"))

    def test_last_revision(self) -> None:
        """There is no revision behind the last one."""
        last = attrs.evolve(self.description, revision=REVISION_MAX)
        self.assertRaises(UsageError, add_slot, last, self.keys, cheap_slot(self.master))


class MasterTests(SynchronousTestCase):
    """New master keys."""

    def setUp(self) -> None:
        self.masters = [MasterKey.generate()]
        slot = cheap_slot(self.masters[0], b"0")
        self.description = describe(self.masters[0], REPOSITORY, TENANT, (slot,))

    def renew(self, count: int) -> None:
        """So many new master keys, each with its number as passphrase."""
        for _ in range(count):
            fresh, number = MasterKey.generate(), len(self.masters)
            slots = (cheap_slot(fresh, b"%d" % number),)
            self.description = new_master(self.description, self.masters[-1], fresh, slots)
            self.masters.append(fresh)

    def stored(self) -> RepositoryDescription:
        return RepositoryDescription.decode(self.description.encode())

    def test_all_generations(self) -> None:
        """The newest passphrase gives the keys of every master key so far, the newest on top."""
        self.renew(3)
        master = unlock(self.stored(), TENANT, Password(b"3"))
        keys = keys_of(self.stored(), master)
        expected = [RepositoryKeys(m, REPOSITORY) for m in self.masters]
        self.assertEqual(
            [k.public_key for k in (*keys.older, keys)], [k.public_key for k in expected]
        )
        self.assertEqual(self.stored().public_keys, tuple(k.public_key for k in expected))
        self.assertEqual(self.stored().revision, 3)
        for number, old in enumerate(expected):
            signer = keys.signer(b"record", old.sign(b"record"))
            self.assertEqual(signer.public_key, old.public_key)
            blob = old.seal_blob("chunk", b"content %d" % number, 3, old.chunk_id(b"content"))
            with self.assertRaises(StoredDataDamaged):  # another name than its content has
                signer.open_blob("chunk", blob)
            name = old.chunk_id(b"content")
            self.assertEqual(
                signer.open_blob("chunk", old.seal_blob("chunk", b"content", 3, name)), b"content"
            )

    def test_old_passphrases(self) -> None:
        """What opened an older master key does not open the new one."""
        self.renew(2)
        for old in (b"0", b"1"):
            self.assertRaises(WrongPassphrase, unlock, self.stored(), TENANT, Password(old))

    def test_old_master(self) -> None:
        """Whoever has an older master key gets no newer one, and reads nothing made since."""
        self.renew(1)
        self.assertRaises(StoredDataDamaged, keys_of, self.stored(), self.masters[0])
        thief = RepositoryKeys(self.masters[0], REPOSITORY)
        keys = keys_of(self.stored(), self.masters[1])
        for previous in self.description.previous:
            with self.assertRaises(StoredDataDamaged):
                thief.open_previous(previous.wrapped, previous.public_key)
        name = keys.chunk_id(b"since then")
        self.assertNotEqual(thief.chunk_id(b"since then"), name)
        blob = keys.seal_blob("chunk", b"since then", 3, name)
        self.assertRaises(StoredDataDamaged, thief.open_blob, "chunk", blob)
        private = keys.seal_private(bytes(16), [b"/path"])
        self.assertRaises(StoredDataDamaged, thief.open_private, bytes(16), private)
        self.assertRaises(StoredDataDamaged, thief.signer, b"x", keys.sign(b"x"))

    def test_all_modes(self) -> None:
        """Where the provider may read, an open slot opens all generations too."""
        for mode in (EncryptionMode.PROVIDER, EncryptionMode.NONE):
            old, fresh = MasterKey.generate(), MasterKey.generate()
            description = describe(old, REPOSITORY, mode, (make_open_slot(old),))
            changed = new_master(description, old, fresh, (make_open_slot(fresh),))
            keys = keys_of(changed, unlock(changed, mode, None))
            self.assertEqual([k.mode for k in (*keys.older, keys)], [mode, mode])

    def test_changed(self) -> None:
        """An entry that was changed or exchanged is found out."""
        self.renew(2)
        first, second = self.description.previous
        newest = RepositoryKeys(self.masters[-1], REPOSITORY)
        for previous in (
            (second, first),
            (first,),
            (attrs.evolve(first, wrapped=second.wrapped), second),
            (attrs.evolve(first, id_check=bytes(8)), second),
        ):
            bad = attrs.evolve(self.description, previous=previous)
            self.assertRaises(StoredDataDamaged, keys_of, bad, self.masters[-1])
        # Also where the newest key itself signed it: it names another master key than it holds.
        wrapped = newest.seal_previous(self.masters[1], first.public_key)
        lying = (PreviousMaster(first.public_key, first.id_check, wrapped), second)
        bad = attrs.evolve(self.description, previous=lying).signed(newest)
        self.assertRaises(StoredDataDamaged, keys_of, bad, self.masters[-1])

    def test_not_the_newest(self) -> None:
        """A new master key comes from the newest one only."""
        self.renew(1)
        self.assertRaises(
            StoredDataDamaged,
            new_master,
            self.description,
            self.masters[0],
            MasterKey.generate(),
            (),
        )

    def test_most(self) -> None:
        """There are as many master keys as fit; after that the text says what to do."""
        self.patch(generations, "PREVIOUS_MAX", 2)
        self.assertGreater(PREVIOUS_MAX, 2)
        self.renew(2)
        with self.assertRaises(UsageError) as caught:
            self.renew(1)
        self.assertIn("3 master keys", str(caught.exception))

    def test_no_secret_inside(self) -> None:
        """No master key stands in the description in clear."""
        self.renew(2)
        encoded = self.description.encode()
        for master in self.masters:
            self.assertNotIn(master.reveal(), encoded)
            self.assertNotIn(master.reveal().hex(), repr(self.description))

    @given(st.lists(st.sampled_from(["add", "remove", "replace", "master"]), max_size=12))
    @settings(deadline=None, max_examples=25)
    def test_any_history(self, steps: list[str]) -> None:
        """After any history exactly the passphrases that were left open, to all generations."""
        masters = [MasterKey.generate()]
        passphrases = [b"0"]
        description = describe(masters[0], REPOSITORY, TENANT, (cheap_slot(masters[0], b"0"),))
        gone: list[bytes] = []
        for number, step in enumerate(steps, 1):
            keys = keys_of(description, masters[-1])
            new = b"%d" % number
            slot = cheap_slot(masters[-1], new)
            if step == "add":
                description = add_slot(description, keys, slot)
                passphrases.append(new)
            elif step == "replace":
                description = replace_slot(description, keys, description.slots[0], slot)
                gone.append(passphrases[0])
                passphrases[0] = new
            elif step == "master":
                fresh = MasterKey.generate()
                slots = (cheap_slot(fresh, new),)
                description = new_master(description, masters[-1], fresh, slots)
                masters.append(fresh)
                gone += passphrases
                passphrases = [new]
            elif len(passphrases) > 1:
                description = remove_slot(description, keys, description.slots[-1].identifier)
                gone.append(passphrases.pop())
            else:
                continue
        stored = RepositoryDescription.decode(description.encode())
        for passphrase in passphrases:
            self.assertEqual(unlock(stored, TENANT, Password(passphrase)), masters[-1])
        for passphrase in gone:
            self.assertRaises(WrongPassphrase, unlock, stored, TENANT, Password(passphrase))
        self.assertEqual(len(keys_of(stored, masters[-1]).older), len(masters) - 1)
