"""XAES-256-GCM: sealing at rest."""

from __future__ import annotations

import os
import threading
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import sealing
from cloudconnect.content.sealing import OVERHEAD, Opener, Sealer, derive
from cloudconnect.errors import NonceExhausted, StoredDataDamaged
from cloudconnect.keys import Subkey


class VectorTests(SynchronousTestCase):
    """The published vectors of https://c2sp.org/XAES-256-GCM."""

    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    plaintext = b"XAES-256-GCM"
    # (key octet, associated data, ciphertext with tag): one for each value of the bit that decides
    # how the CMAC subkey is made.
    vectors = (
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (
            3,
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    )

    def test_encrypt(self) -> None:
        """The derived cipher gives the published ciphertexts."""
        for octet, associated, expected in self.vectors:
            cipher = derive(Subkey(bytes([octet]) * 32), self.nonce[:12])
            sealed = cipher.encrypt(self.nonce[12:], self.plaintext, associated)
            self.assertEqual(sealed.hex(), expected)

    def test_open(self) -> None:
        """An opener opens the published ciphertexts behind their nonces."""
        for octet, associated, expected in self.vectors:
            opener = Opener(Subkey(bytes([octet]) * 32))
            sealed = self.nonce + bytes.fromhex(expected)
            self.assertEqual(opener.open(sealed, associated), self.plaintext)


class SealerTests(SynchronousTestCase):
    """Sealing and opening."""

    def setUp(self) -> None:
        self.key = Subkey.generate()
        self.sealer = Sealer(self.key)
        self.opener = Opener(self.key)

    @given(st.binary(max_size=300), st.binary(max_size=40))
    @settings(deadline=None)
    def test_there_and_back(self, plaintext: bytes, associated: bytes) -> None:
        """What was sealed opens, and is as much longer as it says."""
        key = Subkey.generate()
        sealed = Sealer(key).seal(plaintext, associated)
        self.assertEqual(len(sealed), len(plaintext) + OVERHEAD)
        self.assertEqual(Opener(key).open(sealed, associated), plaintext)

    def test_every_bit_counts(self) -> None:
        """A flip of any bit, of nonce, ciphertext or tag, does not open."""
        sealed = bytes(self.sealer.seal(b"some content", b"name"))
        for bit in range(8 * len(sealed)):
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            self.assertRaises(StoredDataDamaged, self.opener.open, changed, b"name")

    def test_every_length_counts(self) -> None:
        """Nothing that was cut or lengthened opens."""
        sealed = bytes(self.sealer.seal(b"some content", b"name"))
        for length in range(len(sealed)):
            self.assertRaises(StoredDataDamaged, self.opener.open, sealed[:length], b"name")
        self.assertRaises(StoredDataDamaged, self.opener.open, sealed + b"\0", b"name")

    def test_associated(self) -> None:
        """Sealed bytes open under their own associated bytes only."""
        sealed = self.sealer.seal(b"some content", b"name")
        for other in (b"", b"nam", b"name\0", b"Name"):
            self.assertRaises(StoredDataDamaged, self.opener.open, sealed, other)

    def test_other_key(self) -> None:
        """Sealed bytes open under their own key only."""
        sealed = self.sealer.seal(b"some content")
        self.assertRaises(StoredDataDamaged, Opener(Subkey.generate()).open, sealed)

    def test_nonces_differ(self) -> None:
        """No nonce comes twice, neither from one sealer nor from two of one key."""
        sealers = [Sealer(self.key) for _ in range(20)]
        nonces = [bytes(sealer.seal(b"")[:24]) for sealer in sealers for _ in range(50)]
        self.assertEqual(len(set(nonces)), 1000)
        self.assertEqual(len({nonce[:12] for nonce in nonces}), 20)

    def test_nonces_differ_between_threads(self) -> None:
        """Threads that share a sealer never share a nonce."""
        nonces: list[bytes] = []

        def work() -> None:
            nonces.extend(bytes(self.sealer.seal(b"x" * 3000)[:24]) for _ in range(300))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(nonces)), 1200)

    def test_exhausted(self) -> None:
        """After its last message a sealer refuses for good."""
        with mock.patch.object(sealing, "MESSAGES_MAX", 2):
            self.sealer.seal(b"")
            self.sealer.seal(b"")
            self.assertRaises(NonceExhausted, self.sealer.seal, b"")
            self.assertRaises(NonceExhausted, self.sealer.seal, b"")

    def test_forked(self) -> None:
        """A forked process refuses: it would count through the nonces of its parent."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.sealer.seal(b"")
                os.write(writer, b"sealed")
            except NonceExhausted:
                os.write(writer, b"refused")
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        self.assertEqual(os.read(reader, 100), b"refused")
        os.close(reader)
        self.assertEqual(self.opener.open(self.sealer.seal(b"parent")), b"parent")

    def test_sealed_is_read_only(self) -> None:
        """What was sealed cannot be changed by accident."""
        with self.assertRaises(TypeError):
            self.sealer.seal(b"some content")[0] = 0

    def test_no_secrets_shown(self) -> None:
        """Neither repr nor error shows key or content."""
        sealed = bytes(self.sealer.seal(b"some content"))
        error = self.assertRaises(StoredDataDamaged, self.opener.open, sealed, b"other")
        for text in (repr(self.sealer), repr(self.opener), str(error), repr(error)):
            self.assertNotIn(self.key.reveal().hex(), text)
            self.assertNotIn(repr(self.key.reveal()), text)
            self.assertNotIn("some content", text)


class OpenerCacheTests(SynchronousTestCase):
    """The derived keys that an opener keeps."""

    def test_bounded(self) -> None:
        """It keeps so many and no more, and still opens what it has dropped."""
        key = Subkey.generate()
        opener = Opener(key)
        messages = [Sealer(key).seal(b"%d" % i) for i in range(sealing.KEPT_MAX + 10)]
        for _ in range(2):
            for i, message in enumerate(messages):
                self.assertEqual(opener.open(message), b"%d" % i)
        self.assertEqual(len(opener._ciphers), sealing.KEPT_MAX)

    def test_reused(self) -> None:
        """The messages of one sealer cost one derivation, also between those of others."""
        key = Subkey.generate()
        one, other = Sealer(key), Sealer(key)
        opener = Opener(key)
        with mock.patch.object(sealing, "derive", wraps=derive) as counted:
            for _ in range(10):
                opener.open(one.seal(b""))
                opener.open(other.seal(b""))
        self.assertEqual(counted.call_count, 2)

    def test_the_oldest_goes(self) -> None:
        """What was used last is kept: the messages of one sealer cost one derivation."""
        key = Subkey.generate()
        opener = Opener(key)
        often = Sealer(key)
        with mock.patch.object(sealing, "derive", wraps=derive) as counted:
            for _ in range(2 * sealing.KEPT_MAX):
                opener.open(often.seal(b""))
                sealed = Sealer(key).seal(b"")
                counted.reset_mock()
                opener.open(sealed)
                self.assertEqual(counted.call_count, 1)
            counted.reset_mock()
            opener.open(often.seal(b""))
        self.assertEqual(counted.call_count, 0)
