"""What a repository's keys do: names, blobs, private parts, signatures."""

from __future__ import annotations

import itertools
import os
from typing import get_args

import attrs
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import subkeys
from cloudconnect.content.compression import zstd
from cloudconnect.content.subkeys import BlobKind, EncryptionMode, RepositoryKeys, verify
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.keys import KeyA, KeyB, MasterKey, Subkey, hkdf
from cloudconnect.settings import CHUNK_MAX
from cloudconnect.wire import frames
from cloudconnect.wire.frames import Coding, StoredBlob

REPOSITORY = bytes(range(16))
KINDS: tuple[BlobKind, ...] = get_args(BlobKind)
CHUNK_GOLDEN = "ba5cea23a1530bba3997a08bb2be78aa7ed636e9e89a1480fa31457b497b9440"
MANIFEST_GOLDEN = "5201237c2d49e807d571b661ab46321df29359b9540892ff91f4aeec6fe1ef08"
TEXT = b"a line that is much like the next one\n" * 100


def keys_of(mode: EncryptionMode = EncryptionMode.TENANT, octet: int = 1) -> RepositoryKeys:
    """The keys of a repository whose master key is 32 times ``octet``."""
    return RepositoryKeys(MasterKey(bytes([octet]) * 32), REPOSITORY, mode)


def sealed(keys: RepositoryKeys, plain: bytes = TEXT, kind: BlobKind = "chunk") -> StoredBlob:
    """``plain`` as it would be stored."""
    return keys.seal_blob(kind, plain, 3, keys.blob_id(kind, plain))


def redigested(blob: StoredBlob, **changes: object) -> StoredBlob:
    """``blob`` as somebody who can write the store would change it: with a fitting digest."""
    changed = attrs.evolve(blob, **changes)
    return attrs.evolve(changed, digest=blake3(changed.data).digest())


class NameTests(SynchronousTestCase):
    """Ids are keyed."""

    def test_derivation(self) -> None:
        """An id is BLAKE3 keyed with a subkey that HKDF makes of the master key and repository."""
        for kind in KINDS:
            info = b"cloudconnect/1 at-rest " + kind.encode() + b"_ids" + REPOSITORY
            key = hkdf(bytes([1]) * 32, info)
            self.assertEqual(keys_of().blob_id(kind, TEXT), blake3(TEXT, key=key).digest())

    def test_golden(self) -> None:
        """Ids never change: a change would store everything once more."""
        self.assertEqual(
            (keys_of().chunk_id(b"abc").hex(), keys_of().manifest_id(b"abc").hex()),
            (CHUNK_GOLDEN, MANIFEST_GOLDEN),
        )

    def test_shortcuts(self) -> None:
        """Chunks and manifests have ids of their own, from views as well as from bytes."""
        keys = keys_of()
        self.assertEqual(keys.chunk_id(memoryview(TEXT)), keys.blob_id("chunk", TEXT))
        self.assertEqual(keys.manifest_id(bytearray(TEXT)), keys.blob_id("manifest", TEXT))
        self.assertNotEqual(keys.chunk_id(TEXT), keys.manifest_id(TEXT))

    def test_other_master_or_repository(self) -> None:
        """The same content has another id, and another id check, in another repository."""
        there = (
            keys_of(octet=2),
            RepositoryKeys(MasterKey(bytes([1]) * 32), bytes(16), EncryptionMode.TENANT),
        )
        for other in there:
            self.assertNotEqual(keys_of().chunk_id(TEXT), other.chunk_id(TEXT))
            self.assertNotEqual(keys_of().id_check, other.id_check)
            self.assertNotEqual(keys_of().public_key, other.public_key)

    def test_mode_changes_no_name(self) -> None:
        """Names and signatures do not depend on the mode."""
        for mode in EncryptionMode:
            keys = keys_of(mode)
            self.assertEqual(keys.chunk_id(TEXT), keys_of().chunk_id(TEXT))
            self.assertEqual(keys.public_key, keys_of().public_key)
            self.assertEqual(len(keys.id_check), 8)

    def test_subkeys_differ(self) -> None:
        """No two purposes share a subkey."""
        made: list[bytes] = []

        class Recorder(Subkey):
            def __init__(self, octets: bytes) -> None:
                super().__init__(octets)
                made.append(octets)

        self.patch(subkeys, "Subkey", Recorder)
        keys_of()
        self.assertEqual(len(made), 8)
        self.assertEqual(len({*made, bytes([1]) * 32}), 9)


class BlobTests(SynchronousTestCase):
    """Sealing a blob and opening it again."""

    @given(st.binary(min_size=1, max_size=2000), st.integers(1, 20), st.integers(0, 19))
    @settings(deadline=None, max_examples=50)
    def test_there_and_back(self, data: bytes, times: int, level: int) -> None:
        """What was sealed opens, in every mode and of every kind, with a true digest."""
        plain = data * times
        for mode in EncryptionMode:
            for kind in KINDS:
                keys = keys_of(mode)
                blob = keys.seal_blob(kind, plain, level, keys.blob_id(kind, plain))
                self.assertEqual(blob.digest, blake3(blob.data).digest())
                self.assertEqual(blob.plain_length, len(plain))
                self.assertEqual(keys_of(mode).open_blob(kind, blob), plain)

    def test_coding(self) -> None:
        """The coding says what was done."""
        noise = os.urandom(1000)
        tenant, provider = keys_of(), keys_of(EncryptionMode.PROVIDER)
        codings = [
            sealed(keys, plain).coding for keys in (tenant, provider) for plain in (TEXT, noise)
        ]
        self.assertEqual(codings, [Coding.SEALED_ZSTD, Coding.SEALED, Coding.ZSTD, Coding.PLAIN])

    def test_fits_a_frame(self) -> None:
        """Sealed blobs of the largest chunk that may be cut fit into a frame."""
        keys = keys_of()
        plain = os.urandom(CHUNK_MAX // 2)
        body = frames.pack_chunk(sealed(keys, plain))
        self.assertEqual(keys.open_blob("chunk", frames.unpack_chunk(body)), plain)

    def test_content_is_hidden(self) -> None:
        """In tenant mode the stored bytes hold nothing of the content; two seals differ."""
        keys = keys_of()
        one, two = (keys.seal_blob("chunk", TEXT, 0, keys.chunk_id(TEXT)) for _ in range(2))
        self.assertNotIn(TEXT[:12], bytes(one.data))
        self.assertNotEqual(one.data, two.data)

    def test_unsealed_is_not_copied(self) -> None:
        """Content that is neither compressed nor sealed goes through as it is."""
        keys = keys_of(EncryptionMode.NONE)
        blob = keys.seal_blob("chunk", TEXT, 0, keys.chunk_id(TEXT))
        self.assertIs(blob.data, TEXT)

    def test_every_bit_counts(self) -> None:
        """A flip of any stored bit is found, also where the digest was made to fit."""
        keys = keys_of()
        blob = sealed(keys, b"some content")
        for bit in range(8 * len(blob.data)):
            data = bytearray(blob.data)
            data[bit // 8] ^= 1 << bit % 8
            bad = attrs.evolve(blob, data=bytes(data))
            self.assertRaises(StoredDataDamaged, keys.open_blob, "chunk", bad)
            self.assertRaises(StoredDataDamaged, keys.open_blob, "chunk", redigested(bad))

    def test_every_bit_counts_without_a_seal(self) -> None:
        """Where nothing is sealed the keyed name still tells a change."""
        for plain in (TEXT, b"some content"):
            keys = keys_of(EncryptionMode.NONE)
            blob = sealed(keys, plain)
            for bit in range(8 * len(blob.data)):
                data = bytearray(blob.data)
                data[bit // 8] ^= 1 << bit % 8
                bad = redigested(blob, data=bytes(data))
                try:
                    opened = keys.open_blob("chunk", bad)
                except StoredDataDamaged:
                    continue
                # Some bits of a Zstandard frame mean nothing; the content is what counts.
                self.assertEqual((opened, blob.coding), (plain, Coding.ZSTD))

    def test_digested(self) -> None:
        """Who has compared the digest can say so; seal and name are checked all the same."""
        for mode in EncryptionMode:
            keys = keys_of(mode)
            good = keys.seal_blob("chunk", TEXT, 1, keys.chunk_id(TEXT))
            wrong = attrs.evolve(good, digest=bytes(32))
            self.assertRaises(StoredDataDamaged, keys.open_blob, "chunk", wrong)
            self.assertEqual(keys.open_blob("chunk", wrong, digested=True), TEXT)
            changed = bytearray(good.data)
            changed[-1] ^= 1
            for bad in (
                attrs.evolve(good, data=bytes(changed)),
                attrs.evolve(good, id=bytes(32)),
            ):
                with self.assertRaises(StoredDataDamaged):
                    keys.open_blob("chunk", bad, digested=True)

    def test_wrong_digest(self) -> None:
        """Good bytes with another digest are refused."""
        keys = keys_of()
        blob = attrs.evolve(sealed(keys), digest=bytes(32))
        self.assertRaises(StoredDataDamaged, keys.open_blob, "chunk", blob)

    def test_fields_are_bound(self) -> None:
        """Name, length, coding and kind cannot be exchanged, in any mode."""
        noise = os.urandom(len(TEXT))
        for mode, plain in itertools.product(EncryptionMode, (TEXT, noise)):
            keys = keys_of(mode)
            blob = sealed(keys, plain)
            other = sealed(keys, plain + b"more")
            for bad in (
                attrs.evolve(blob, id=other.id),
                attrs.evolve(blob, plain_length=blob.plain_length + 1),
                attrs.evolve(blob, plain_length=blob.plain_length - 1),
                attrs.evolve(blob, plain_length=CHUNK_MAX + 1),
                attrs.evolve(blob, coding=blob.coding ^ 1),
                attrs.evolve(blob, coding=blob.coding ^ 2),
                attrs.evolve(blob, coding=blob.coding ^ 0x10),
                attrs.evolve(other, id=blob.id),
            ):
                self.assertRaises(StoredDataDamaged, keys.open_blob, "chunk", bad)
            self.assertRaises(StoredDataDamaged, keys.open_blob, "manifest", blob)

    def test_no_unsealed_blob_in_tenant_mode(self) -> None:
        """A blob without a seal is refused in tenant mode, even with a true name."""
        blob = sealed(keys_of(EncryptionMode.NONE))
        self.assertEqual(keys_of(EncryptionMode.NONE).open_blob("chunk", blob), TEXT)
        error = self.assertRaises(StoredDataDamaged, keys_of().open_blob, "chunk", blob)
        self.assertIn("mode", str(error))

    def test_other_master(self) -> None:
        """Another master key opens nothing, and calls nothing the same."""
        for mode in EncryptionMode:
            blob = sealed(keys_of(mode))
            self.assertRaises(StoredDataDamaged, keys_of(mode, octet=2).open_blob, "chunk", blob)

    def test_bomb(self) -> None:
        """A blob that decompresses to more than it says is refused."""
        keys = keys_of(EncryptionMode.NONE)
        plain = bytes(1 << 20)
        frame = zstd.compress(plain)
        for length in (10, CHUNK_MAX):
            bomb = StoredBlob(
                keys.chunk_id(plain), length, Coding.ZSTD, blake3(frame).digest(), frame
            )
            self.assertRaises(StoredDataDamaged, keys.open_blob, "chunk", bomb)


class StoredSealTests(SynchronousTestCase):
    """The provider's mover seals what came without a seal."""

    def setUp(self) -> None:
        self.tenant = keys_of(EncryptionMode.PROVIDER)
        self.mover = RepositoryKeys(MasterKey.generate(), REPOSITORY)

    def test_there_and_back(self) -> None:
        """What the mover sealed comes back as it came, and the tenant opens it."""
        for kind in KINDS:
            for plain in (TEXT, os.urandom(100)):
                blob = sealed(self.tenant, plain, kind)
                stored = self.mover.seal_stored(kind, blob)
                self.assertEqual(stored.coding, blob.coding | frames.SEALED)
                self.assertEqual(stored.digest, blake3(stored.data).digest())
                self.assertEqual((stored.id, stored.plain_length), (blob.id, blob.plain_length))
                self.assertNotIn(bytes(blob.data), bytes(stored.data))
                back = self.mover.unseal_stored(kind, stored)
                self.assertEqual(back, blob)
                self.assertEqual(self.tenant.open_blob(kind, back), plain)

    def test_once_only(self) -> None:
        """What is sealed already is not sealed again, and what is not sealed does not open."""
        blob = sealed(self.tenant)
        stored = self.mover.seal_stored("chunk", blob)
        self.assertRaises(ValueError, self.mover.seal_stored, "chunk", stored)
        self.assertRaises(StoredDataDamaged, self.mover.unseal_stored, "chunk", blob)

    def test_changes_are_found(self) -> None:
        """Changed bytes, fields and kinds do not open, also where the digest was made to fit."""
        stored = self.mover.seal_stored("chunk", sealed(self.tenant))
        data = bytearray(stored.data)
        data[-1] ^= 1
        changed = attrs.evolve(stored, data=bytes(data))
        for bad in (
            changed,
            redigested(changed),
            attrs.evolve(stored, id=bytes(32)),
            attrs.evolve(stored, plain_length=1),
            attrs.evolve(stored, coding=stored.coding ^ 1),
        ):
            self.assertRaises(StoredDataDamaged, self.mover.unseal_stored, "chunk", bad)
        self.assertRaises(StoredDataDamaged, self.mover.unseal_stored, "manifest", stored)


class PrivateTests(SynchronousTestCase):
    """What of a point's record only the tenant reads."""

    paths = (b"/srv/plans", b"/home/\xff\n")

    def test_there_and_back(self) -> None:
        """The paths come back, and the sealed bytes do not show them, in any mode."""
        for mode in EncryptionMode:
            private = keys_of(mode).seal_private(bytes(16), self.paths)
            self.assertNotIn(b"plans", private)
            self.assertEqual(keys_of(mode).open_private(bytes(16), private), self.paths)

    def test_bound_to_the_point(self) -> None:
        """The private part of one point does not open in another one or with another key."""
        private = keys_of().seal_private(bytes(16), self.paths)
        for keys, point in ((keys_of(), b"\1" * 16), (keys_of(octet=2), bytes(16))):
            self.assertRaises(StoredDataDamaged, keys.open_private, point, private)

    def test_every_bit_counts(self) -> None:
        """A flip of any bit is found."""
        private = keys_of().seal_private(bytes(16), self.paths)
        for bit in range(8 * len(private)):
            changed = bytearray(private)
            changed[bit // 8] ^= 1 << bit % 8
            self.assertRaises(StoredDataDamaged, keys_of().open_private, bytes(16), bytes(changed))

    def test_bounded(self) -> None:
        """As many paths as are allowed come back; more are refused before anything is sealed."""
        most = [b"/%d" % i for i in range(subkeys.PATHS_MAX)]
        private = keys_of().seal_private(bytes(16), most)
        self.assertEqual(list(keys_of().open_private(bytes(16), private)), most)
        self.assertRaises(ValueError, keys_of().seal_private, bytes(16), [*most, b"/"])


class SignatureTests(SynchronousTestCase):
    """Ed25519 over what the tenant publishes."""

    def test_holds(self) -> None:
        """A signature holds under the public key."""
        keys = keys_of()
        signature = keys.sign(b"record")
        self.assertEqual(len(signature), 64)
        verify(keys.public_key, signature, b"record")

    def test_every_bit_counts(self) -> None:
        """A flip of any bit of signature, key or data is found."""
        keys = keys_of()
        signature = keys.sign(b"record")
        verify(keys.public_key, signature, b"record")
        parts = (keys.public_key, signature, b"record")
        for index, part in enumerate(parts):
            for bit in range(8 * len(part)):
                changed = bytearray(part)
                changed[bit // 8] ^= 1 << bit % 8
                bad = [*parts[:index], bytes(changed), *parts[index + 1 :]]
                self.assertRaises(StoredDataDamaged, verify, *bad)

    def test_purpose(self) -> None:
        """A signature for one purpose does not serve another one."""
        keys = keys_of()
        signature = keys.sign(b"record", b"description")
        verify(keys.public_key, signature, b"record", b"description")
        self.assertRaises(StoredDataDamaged, verify, keys.public_key, signature, b"record")

    def test_wrong_sizes(self) -> None:
        """Keys and signatures of impossible sizes are refused like wrong ones."""
        keys = keys_of()
        for public, signature in (
            (b"", keys.sign(b"")),
            (keys.public_key, b""),
            (keys.public_key * 2, keys.sign(b"")),
            (keys.public_key, keys.sign(b"") + b"\0"),
        ):
            self.assertRaises(StoredDataDamaged, verify, public, signature, b"")


class ConstructionTests(SynchronousTestCase):
    """What the keys are made of."""

    def test_master_only(self) -> None:
        """Only a master key is taken: no key of a session, no subkey, no octets."""
        for wrong in (KeyA.generate(), KeyB.generate(), Subkey.generate(), bytes(32)):
            self.assertRaises(TypeError, RepositoryKeys, wrong, REPOSITORY)

    def test_repository_size(self) -> None:
        """A repository's name of another size is refused, because labels and names are joined."""
        for size in (0, 15, 17):
            self.assertRaises(ValueError, RepositoryKeys, MasterKey.generate(), bytes(size))

    def test_master_may_be_forgotten(self) -> None:
        """The master key is not needed once the keys are made."""
        master = MasterKey(bytes([1]) * 32)
        keys = RepositoryKeys(master, REPOSITORY)
        master.forget()
        self.assertEqual(keys.open_blob("chunk", sealed(keys_of())), TEXT)

    def test_repr(self) -> None:
        """It shows the repository and no key."""
        keys = keys_of()
        self.assertEqual(repr(keys), f"<RepositoryKeys of {REPOSITORY.hex()}, tenant>")
