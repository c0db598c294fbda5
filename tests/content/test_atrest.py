"""Encryption at rest as a whole: no key in flight opens anything that is stored."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import atrest, slots, subkeys
from cloudconnect.content.atrest import (
    EncryptionMode,
    KeySlot,
    RepositoryDescription,
    RepositoryKeys,
    describe,
    make_slot,
    open_slot,
    unlock,
    verify,
)
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.manifest import EntryDecoder, encode_entry
from cloudconnect.content.points import PointRecord
from cloudconnect.content.runs import Run
from cloudconnect.content.sealing import Opener
from cloudconnect.content.slots import SlotKind
from cloudconnect.errors import CloudConnectError, StoredDataDamaged, WrongPassphrase
from cloudconnect.keys import (
    IntegrityKey,
    KeyA,
    KeyB,
    MasterKey,
    Password,
    Secret,
    Subkey,
    frame_key,
    hkdf,
    hkdf_extract,
    key_b_context,
)
from cloudconnect.wire.schedule import FROM_INITIATOR, FROM_RESPONDER, TrafficSecret
from tests.content.test_points import record
from tests.content.test_slots import CHEAP

REPOSITORY = bytes(range(16))
SESSION = bytes(range(16, 32))
SALTS = bytes(64)
CONTENT = b"what nobody else may read " * 40


class Stored:
    """Everything that a backup leaves with the provider, and the master key behind it.

    :ivar chunk: a chunk of a file
    :ivar manifest: a chunk of a manifest
    :ivar private: the private part of a point's record
    :ivar description: with one key slot
    """

    def __init__(self) -> None:
        self.master = MasterKey.generate()
        self.keys = RepositoryKeys(self.master, REPOSITORY)
        self.chunk = self.keys.seal_blob("chunk", CONTENT, 3, self.keys.chunk_id(CONTENT))
        run = Run(self.chunk.id, 0, len(CONTENT))
        self.entry = Entry(
            b"/srv/plans", EntryType.FILE, 0o600, 0, 0, "", "", 0, len(CONTENT), (run,)
        )
        plain = encode_entry(self.entry)
        self.manifest = self.keys.seal_blob("manifest", plain, 3, self.keys.manifest_id(plain))
        self.point = record(
            private=self.keys.seal_private(b"p" * 16, [b"/srv"]), manifest=(self.manifest.id,)
        )
        self.signature = self.keys.sign(self.point.encode())
        slot = make_slot(self.master, REPOSITORY, Password(b"correct horse"), costs=CHEAP)
        self.description = describe(self.master, REPOSITORY, EncryptionMode.TENANT, (slot,))

    def sealed(self) -> list[bytes]:
        """All sealed bytes."""
        return [bytes(self.chunk.data), bytes(self.manifest.data), self.point.private]


class WholeWayTests(SynchronousTestCase):
    """From the passphrase to the content."""

    def test_new_machine(self) -> None:
        """Description, passphrase and what is stored give back paths and content."""
        stored = Stored()
        description = RepositoryDescription.decode(stored.description.encode())
        master = unlock(description, EncryptionMode.TENANT, Password(b"correct horse"))
        keys = RepositoryKeys(master, description.repository, description.mode)
        encoded = stored.point.encode()
        verify(description.public_key, stored.signature, encoded)
        point = PointRecord.decode(encoded)
        self.assertEqual(keys.open_private(point.point, point.private), (b"/srv",))
        self.assertEqual(point.manifest, (stored.manifest.id,))
        decoder = EntryDecoder()
        (entry,) = decoder.feed(keys.open_blob("manifest", stored.manifest))
        decoder.finish()
        self.assertEqual(entry, stored.entry)
        self.assertEqual(entry.runs[0].id, stored.chunk.id)
        self.assertEqual(keys.open_blob("chunk", stored.chunk), CONTENT)

    def test_nothing_shows(self) -> None:
        """What is stored holds neither content nor names nor any key."""
        stored = Stored()
        everything = [
            *stored.sealed(), stored.point.encode(), stored.signature, stored.description.encode(),
            stored.chunk.id, stored.manifest.id, stored.chunk.digest, stored.manifest.digest,
        ]  # fmt: skip
        for canary in (b"nobody else", b"plans", b"/srv", b"correct", stored.master.reveal()):
            for octets in everything:
                self.assertNotIn(canary, octets)

    def test_exports(self) -> None:
        """The module gives other layers the classes of the three modules behind it."""
        self.assertIs(atrest.RepositoryKeys, subkeys.RepositoryKeys)
        for name in atrest.__all__:
            self.assertTrue(hasattr(atrest, name), name)


class KeysInFlightTests(SynchronousTestCase):
    """Key A, Key B and the integrity key open nothing that is stored."""

    def setUp(self) -> None:
        self.stored = Stored()
        self.in_flight: list[Secret] = [KeyA.generate(), KeyB.generate(), IntegrityKey.generate()]

    def octets_in_flight(self) -> Iterator[bytes]:
        """The octets of each key of a session, and of those that the protocol derives from them."""
        for key in self.in_flight:
            octets = key.reveal()
            yield octets
            yield hkdf(octets, b"cloudconnect/1 confirm")
            yield hkdf_extract(SALTS, octets)
            context = key_b_context(bytes(21), SESSION, "acme", "source-mover>target-mover")
            for direction in (FROM_INITIATOR, FROM_RESPONDER):
                traffic = TrafficSecret(key, context, 0, direction, SALTS)
                for _ in range(2):
                    yield traffic._reveal()
                    yield traffic.record_key().key.reveal()
                    yield traffic.record_key().commitment
                    traffic.advance()
        integrity = IntegrityKey(self.in_flight[2].reveal())
        for direction in (FROM_INITIATOR, FROM_RESPONDER):
            yield frame_key(integrity, SESSION, 0, direction).reveal()

    def opens_something(self, octets: bytes) -> list[str]:
        """What of the store ``octets`` opens, used in every place where a key can be put."""
        stored, opened = self.stored, []

        def attempt(what: str, call: object, *arguments: object) -> None:
            try:
                call(*arguments)  # type: ignore[operator]
            except (CloudConnectError, InvalidTag):
                return
            opened.append(what)

        keys = RepositoryKeys(MasterKey(octets), REPOSITORY)
        attempt("chunk", keys.open_blob, "chunk", stored.chunk)
        attempt("manifest", keys.open_blob, "manifest", stored.manifest)
        attempt("stored chunk", keys.unseal_stored, "chunk", stored.chunk)
        attempt("private", keys.open_private, stored.point.point, stored.point.private)
        attempt("description", stored.description.verify, keys)
        attempt("point", verify, keys.public_key, stored.signature, stored.point.encode())
        blob = stored.chunk
        bound = b"\x05chunk" + blob.id + blob.plain_length.to_bytes(4, "big") + bytes([blob.coding])
        attempt("chunk as subkey", Opener(Subkey(octets)).open, blob.data, bound)
        data = bytes(blob.data)
        attempt("chunk as cipher key", AESGCM(octets).decrypt, data[12:24], data[24:], bound)
        private, where = stored.point.private, stored.point.point + REPOSITORY
        attempt("private as subkey", Opener(Subkey(octets)).open, private, where)
        (slot,) = stored.description.slots
        attempt("slot as passphrase", open_slot, slot, REPOSITORY, Password(octets))
        attempt("slot as key in hex", open_slot, slot, REPOSITORY, Password(octets.hex().encode()))
        wrapped = slot.wrapped
        bound = slots._associated(*attrs.astuple(slot, recurse=False)[:-1], REPOSITORY)
        attempt("slot as wrapping key", AESGCM(octets).decrypt, wrapped[:12], wrapped[12:], bound)
        signing = Ed25519PrivateKey.from_private_bytes(octets).public_key().public_bytes_raw()
        if signing == stored.keys.public_key:
            opened.append("signing key")
        if blake3(CONTENT, key=octets).digest() == blob.id:
            opened.append("chunk id key")
        return opened

    def test_the_right_keys_would(self) -> None:
        """The attempts are in earnest: with the right octets each of them succeeds."""
        master = self.stored.master.reveal()

        def subkey(purpose: bytes) -> bytes:
            return hkdf(master, b"cloudconnect/1 at-rest " + purpose + REPOSITORY)

        self.assertEqual(
            self.opens_something(master),
            ["chunk", "manifest", "stored chunk", "private", "description", "point"],
        )
        for purpose, opened in (
            (b"chunk_data", "chunk as subkey"),
            (b"private", "private as subkey"),
            (b"chunk_ids", "chunk id key"),
            (b"signing", "signing key"),
        ):
            self.assertEqual(self.opens_something(subkey(purpose)), [opened])
        cipher_key = b""
        for block in (b"\0\1X\0", b"\0\2X\0"):
            mac = CMAC(AES(subkey(b"chunk_data")))
            mac.update(block + bytes(self.stored.chunk.data[:12]))
            cipher_key += mac.finalize()
        self.assertEqual(self.opens_something(cipher_key), ["chunk as cipher key"])
        (slot,) = self.stored.description.slots
        wrapping, _ = slots.stretch(Password(b"correct horse"), slot.salt, CHEAP)
        self.assertEqual(self.opens_something(wrapping), ["slot as wrapping key"])
        for passphrase, opened in (
            (b"p" * 32, ["slot as passphrase"]),
            ((b"p" * 32).hex().encode(), ["slot as key in hex"]),
        ):
            slot = make_slot(self.stored.master, REPOSITORY, Password(passphrase), costs=CHEAP)
            self.stored.description = describe(
                self.stored.master, REPOSITORY, EncryptionMode.TENANT, (slot,)
            )
            self.assertEqual(self.opens_something(b"p" * 32), opened)

    def test_no_key_in_flight_opens_anything(self) -> None:
        """No key of a session, nor any key derived from one, opens anything at rest."""
        tried = 0
        for octets in self.octets_in_flight():
            self.assertEqual(self.opens_something(octets), [])
            tried += 1
        self.assertEqual(tried, 3 * 15 + 2)

    def test_no_key_in_flight_is_taken(self) -> None:
        """The classes do not mix: a session's key cannot be put where the master key belongs."""
        for key in self.in_flight:
            self.assertRaises(TypeError, RepositoryKeys, key, REPOSITORY)

    def test_same_octets_by_accident(self) -> None:
        """Even a session key with the octets of the master key derives no key at rest."""
        octets = self.stored.master.reveal()
        self.in_flight = [KeyA(octets), KeyB(octets), IntegrityKey(octets)]
        derived = [each for each in self.octets_in_flight() if each != octets]
        self.assertEqual(len(derived), 3 * 14 + 2)
        for each in derived:
            self.assertEqual(self.opens_something(each), [])


class StoreChangedTests(SynchronousTestCase):
    """What somebody who writes the store can do in tenant mode: damage, and be found out."""

    def setUp(self) -> None:
        self.stored = Stored()

    def test_swapped(self) -> None:
        """A blob in the place of another one is found out, also of another kind."""
        stored = self.stored
        for kind, blob in (("manifest", stored.chunk), ("chunk", stored.manifest)):
            self.assertRaises(StoredDataDamaged, stored.keys.open_blob, kind, blob)

    def test_other_repository(self) -> None:
        """What one repository of a master key stored does not open in another one."""
        elsewhere = RepositoryKeys(self.stored.master, bytes(16))
        for kind, blob in (("chunk", self.stored.chunk), ("manifest", self.stored.manifest)):
            self.assertRaises(StoredDataDamaged, elsewhere.open_blob, kind, blob)

    def test_foreign_slot(self) -> None:
        """A slot with a master key of somebody else's is opened by its own passphrase only."""
        forged = make_slot(MasterKey.generate(), REPOSITORY, Password(b"forged"), costs=CHEAP)
        self.assertIsInstance(forged, KeySlot)
        self.assertEqual(forged.kind, SlotKind.PASSPHRASE)
        self.assertRaises(
            WrongPassphrase, open_slot, forged, REPOSITORY, Password(b"correct horse")
        )
