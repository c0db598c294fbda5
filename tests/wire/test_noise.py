"""The Key A tunnel's handshake: :mod:`cloudconnect.wire.noise`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import NoiseConnection
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.errors import KeyARejected, KeyForgotten, NonceExhausted, Tampered
from cloudconnect.wire.noise import (
    FIRST_MESSAGE_SIZE,
    MESSAGE_MAX,
    PROTOCOL_NAME,
    CipherState,
    NoiseHandshake,
)

PSK = b"A" * 32
PROLOGUE = b"the prologue"

# Points of low order (RFC 7748, section 7; cr.yp.to/ecdh.html#validate): their result is zero.
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def sides(
    psk: bytes = PSK, prologue: bytes = PROLOGUE, **changes: bytes
) -> tuple[NoiseHandshake, NoiseHandshake]:
    """An initiator, and a responder for which something may differ."""
    return (
        NoiseHandshake(True, PSK, PROLOGUE, ephemeral=changes.get("ephemeral")),
        NoiseHandshake(False, psk, prologue),
    )


def fixed() -> tuple[NoiseHandshake, NoiseHandshake]:
    """Two sides whose messages are always the same."""
    return (
        NoiseHandshake(True, PSK, PROLOGUE, ephemeral=b"\x11" * 32),
        NoiseHandshake(False, PSK, PROLOGUE, ephemeral=b"\x22" * 32),
    )


class HandshakeTests(SynchronousTestCase):
    """Two messages, and what follows from them."""

    def test_conversation(self) -> None:
        """After the handshake both agree on the hash, and each reads what the other one writes."""
        ours, theirs = sides()
        first = ours.write_message()
        self.assertEqual(len(first), FIRST_MESSAGE_SIZE)
        self.assertEqual(theirs.read_message(first), b"")
        self.assertFalse(ours.finished or theirs.finished)
        self.assertEqual(ours.read_message(theirs.write_message(b"limits")), b"limits")
        self.assertTrue(ours.finished and theirs.finished)
        self.assertIsNone(ours._private or theirs._private)
        self.assertEqual(ours.handshake_hash, theirs.handshake_hash)
        self.assertEqual(len(ours.handshake_hash), 32)
        (send, receive), (send_back, receive_back) = ours.split(), theirs.split()
        for text in (b"one", b"", b"three"):
            self.assertEqual(receive_back.decrypt(b"", send.encrypt(b"", text)), text)
            self.assertEqual(receive.decrypt(b"", send_back.encrypt(b"", text)), text)

    def test_fresh_ephemeral_keys(self) -> None:
        """Two handshakes with the same psk have nothing in common."""
        one, other = sides()[0], sides()[0]
        self.assertNotEqual(one.write_message()[:32], other.write_message()[:32])

    def test_every_flipped_bit(self) -> None:
        """Each bit of each message counts, for the side that reads it.

        The highest bit of a point too, which X25519 itself ignores (RFC 7748, section 5).
        """
        ours, theirs = fixed()
        first = ours.write_message()
        theirs.read_message(first)
        second = theirs.write_message(b"canary")
        for initiator, message in ((False, first), (True, second)):
            for bit in range(len(message) * 8):
                reader = fixed()[0 if initiator else 1]
                if initiator:
                    reader.write_message()
                changed = bytearray(message)
                changed[bit // 8] ^= 1 << bit % 8
                with self.assertRaises(KeyARejected) as caught:
                    reader.read_message(bytes(changed))
                self.assertNotIn("canary", str(caught.exception))
                self.assertFalse(reader.finished)

    def test_every_cut(self) -> None:
        """A message that is cut, or longer than it was, is refused."""
        ours, theirs = fixed()
        first = ours.write_message()
        for message in (*(first[:length] for length in range(len(first))), first + b"\0"):
            with self.assertRaises(KeyARejected):
                fixed()[1].read_message(message)

    def test_another_psk_or_prologue(self) -> None:
        """The first message already shows that the other side holds something else."""
        for changes in ({"psk": b"B" * 32}, {"prologue": b"another"}, {"prologue": b""}):
            ours, theirs = sides(**changes)
            with self.assertRaises(KeyARejected):
                theirs.read_message(ours.write_message())

    def test_another_responder(self) -> None:
        """An answer by somebody without the psk is refused by the initiator."""
        ours, theirs = sides()
        ours.write_message()
        stranger, false_responder = (NoiseHandshake(i, b"B" * 32, PROLOGUE) for i in (True, False))
        false_responder.read_message(stranger.write_message())
        with self.assertRaises(KeyARejected):
            ours.read_message(false_responder.write_message())

    def test_replayed_answer(self) -> None:
        """An answer to another first message is refused, though the psk is the same."""
        old, theirs = sides()
        theirs.read_message(old.write_message())
        answer = theirs.write_message()
        ours, _ = sides()
        ours.write_message()
        with self.assertRaises(KeyARejected):
            ours.read_message(answer)

    def test_reflected_message(self) -> None:
        """A first message that comes back is no answer."""
        ours, _ = sides()
        with self.assertRaises(KeyARejected):
            ours.read_message(ours.write_message())

    def test_failed_stays_failed(self) -> None:
        """The genuine message does not mend a handshake that has failed."""
        ours, theirs = sides()
        first = ours.write_message()
        with self.assertRaises(KeyARejected):
            theirs.read_message(bytes(48))
        with self.assertRaises(KeyARejected):
            theirs.read_message(first)
        with self.assertRaises(KeyARejected):
            theirs.write_message()
        self.assertFalse(theirs.finished)

    def test_low_order_answer(self) -> None:
        """A responder's point of low order is refused by the initiator."""
        for point in LOW_ORDER:
            ours, _ = sides()
            ours.write_message()
            with self.assertRaises(KeyARejected) as caught:
                ours.read_message(point + bytes(16))
            self.assertIn("X25519", str(caught.exception))

    def test_low_order_first_message(self) -> None:
        """An initiator's point of low order, with a good tag, is refused by the responder."""
        for point in LOW_ORDER:
            ours, theirs = sides()
            assert ours._state is not None
            ours._mix_point(ours._state, point)  # what a peer that holds the psk can do
            theirs.read_message(point + ours._state.encrypt_and_hash(b""))
            with self.assertRaises(KeyARejected):
                theirs.write_message()
            self.assertFalse(theirs.finished)

    def test_turns(self) -> None:
        """Writing or reading out of turn, or a third time, is the caller's mistake."""
        ours, theirs = sides()
        with self.assertRaises(RuntimeError):
            ours.read_message(bytes(48))
        with self.assertRaises(RuntimeError):
            theirs.write_message()
        first = ours.write_message()
        with self.assertRaises(RuntimeError):
            ours.write_message()
        theirs.read_message(first)
        ours.read_message(theirs.write_message())
        for side in (ours, theirs):
            with self.assertRaises(RuntimeError):
                side.write_message()
            with self.assertRaises(RuntimeError):
                side.read_message(bytes(48))

    def test_split_once(self) -> None:
        """There are no ciphers before the end of the handshake, and they are given out once."""
        ours, theirs = sides()
        for side in (ours, theirs):
            with self.assertRaises(RuntimeError):
                side.split()
            with self.assertRaises(RuntimeError):
                side.handshake_hash  # noqa: B018
        theirs.read_message(ours.write_message())
        ours.read_message(theirs.write_message())
        ours.split()
        with self.assertRaises(RuntimeError):
            ours.split()
        self.assertEqual(ours.handshake_hash, theirs.handshake_hash)

    def test_keys_are_dropped(self) -> None:
        """After split, failure or forget nothing secret hangs on the handshake."""
        ours, theirs = sides()
        theirs.read_message(ours.write_message())
        ours.read_message(theirs.write_message())
        ours.split()
        with self.assertRaises(KeyARejected):
            (failed := sides()[1]).read_message(bytes(48))
        (given_up := sides()[0]).forget()
        for side in (ours, failed, given_up):
            self.assertEqual((side._state, side._private), (None, None))
        with self.assertRaises(KeyForgotten):
            given_up.write_message()

    def test_sizes(self) -> None:
        """A psk has 32 bytes; a message at most 65535, whichever side makes it."""
        with self.assertRaises(ValueError):
            NoiseHandshake(True, PSK[:-1], PROLOGUE)
        ours, theirs = sides()
        with self.assertRaises(ValueError):
            ours.write_message(bytes(MESSAGE_MAX - 47))
        payload = bytes(MESSAGE_MAX - 48)
        self.assertEqual(theirs.read_message(ours.write_message(payload)), payload)
        with self.assertRaises(KeyARejected):
            sides()[1].read_message(bytes(MESSAGE_MAX + 1))

    def test_nothing_is_printed(self) -> None:
        """Neither a handshake nor a cipher shows its keys."""
        ours, _ = fixed()
        self.assertEqual(repr(ours), "<NoiseHandshake initiator after 0 messages>")
        self.assertEqual(repr(CipherState(PSK, 3)), "<CipherState message 3>")


class CipherStateTests(SynchronousTestCase):
    """Messages after the handshake."""

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.binary(max_size=50), st.binary(max_size=300)), max_size=6))
    def test_there_and_back(self, messages: list[tuple[bytes, bytes]]) -> None:
        """What was encrypted is decrypted, with the same associated data, in the same order."""
        send, receive = CipherState(PSK), CipherState(PSK)
        for ad, text in messages:
            self.assertEqual(receive.decrypt(ad, send.encrypt(ad, text)), text)

    def test_every_flipped_bit(self) -> None:
        """A changed message is refused; the genuine one can still be read after it."""
        sealed = CipherState(PSK).encrypt(b"ad", b"canary")
        receive = CipherState(PSK)
        for bit in range(len(sealed) * 8):
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(Tampered) as caught:
                receive.decrypt(b"ad", changed)
            self.assertNotIn("canary", str(caught.exception))
        with self.assertRaises(Tampered):
            receive.decrypt(b"another", sealed)
        self.assertEqual(receive.decrypt(b"ad", sealed), b"canary")

    def test_order(self) -> None:
        """A message that is repeated or comes too early is refused."""
        send, receive = CipherState(PSK), CipherState(PSK)
        first, second = send.encrypt(b"", b"1"), send.encrypt(b"", b"2")
        with self.assertRaises(Tampered):
            receive.decrypt(b"", second)
        receive.decrypt(b"", first)
        with self.assertRaises(Tampered):
            receive.decrypt(b"", first)

    def test_nonces_do_not_wrap(self) -> None:
        """2**64 - 2 is the last nonce, for both sides."""
        send, receive = CipherState(PSK, 2**64 - 2), CipherState(PSK, 2**64 - 2)
        self.assertEqual(receive.decrypt(b"", send.encrypt(b"", b"last")), b"last")
        with self.assertRaises(NonceExhausted):
            send.encrypt(b"", b"x")
        with self.assertRaises(NonceExhausted):
            receive.decrypt(b"", bytes(17))

    def test_sizes(self) -> None:
        """A message has at most 65535 bytes and at least its tag."""
        send, receive = CipherState(PSK), CipherState(PSK)
        longest = bytes(MESSAGE_MAX - 16)
        self.assertEqual(receive.decrypt(b"", send.encrypt(b"", longest)), longest)
        with self.assertRaises(ValueError):
            send.encrypt(b"", longest + b"\0")
        for size in (0, 15, MESSAGE_MAX + 1):
            with self.assertRaises(Tampered):
                receive.decrypt(b"", bytes(size))

    def test_forget(self) -> None:
        """A cipher that has forgotten its key does nothing."""
        cipher = CipherState(PSK)
        cipher.forget()
        with self.assertRaises(KeyForgotten):
            cipher.encrypt(b"", b"x")
        with self.assertRaises(KeyForgotten):
            cipher.decrypt(b"", bytes(17))


class VectorTests(SynchronousTestCase):
    """Published test vectors for this very protocol."""

    def test_vectors(self) -> None:
        """All messages, in both directions, and the handshake hash are those of the vector."""
        directory = os.environ.get("CLOUDCONNECT_VECTORS")
        if not directory:
            raise SkipTest("CLOUDCONNECT_VECTORS does not name the directory of the vectors")
        path = Path(directory, "noise_nnpsk0_25519_aesgcm_sha256.json")
        vectors = json.loads(path.read_text())["vectors"]
        self.assertEqual(len(vectors), 1)
        for vector in vectors:
            self.assertEqual(vector["protocol_name"].encode(), PROTOCOL_NAME)
            ours, theirs = (
                NoiseHandshake(
                    initiator,
                    bytes.fromhex(vector[f"{side}_psks"][0]),
                    bytes.fromhex(vector[f"{side}_prologue"]),
                    bytes.fromhex(vector[f"{side}_ephemeral"]),
                )
                for initiator, side in ((True, "init"), (False, "resp"))
            )
            messages = [
                (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
                for message in vector["messages"]
            ]
            for writer, reader, (payload, message) in (
                (ours, theirs, messages[0]),
                (theirs, ours, messages[1]),
            ):
                self.assertEqual(writer.write_message(payload), message)
                self.assertEqual(reader.read_message(message), payload)
            for side in (ours, theirs):
                self.assertEqual(side.handshake_hash.hex(), vector["handshake_hash"])
            (send, receive), (send_back, receive_back) = ours.split(), theirs.split()
            self.assertGreater(len(messages), 2)
            for number, (payload, message) in enumerate(messages[2:]):
                out, into = (send, receive_back) if number % 2 == 0 else (send_back, receive)
                self.assertEqual(out.encrypt(b"", payload), message)
                self.assertEqual(into.decrypt(b"", message), payload)


class InteroperationTests(SynchronousTestCase):
    """With PyPI ``noiseprotocol``, which shares no code with ours."""

    def _stranger(self, initiator: bool) -> NoiseConnection:
        other = NoiseConnection.from_name(PROTOCOL_NAME)
        other.set_psks(psk=PSK)
        other.set_prologue(PROLOGUE)
        if initiator:
            other.set_as_initiator()
        else:
            other.set_as_responder()
        other.start_handshake()
        return other

    def _converse(self, ours: NoiseHandshake, other: NoiseConnection) -> None:
        self.assertTrue(ours.finished and other.handshake_finished)
        self.assertEqual(ours.handshake_hash, other.get_handshake_hash())
        send, receive = ours.split()
        for text in (b"one", b"", bytes(MESSAGE_MAX - 16)):
            self.assertEqual(other.decrypt(send.encrypt(b"", text)), text)
            self.assertEqual(receive.decrypt(b"", other.encrypt(text)), text)

    def test_we_begin(self) -> None:
        """Our initiator talks with its responder."""
        ours, other = NoiseHandshake(True, PSK, PROLOGUE), self._stranger(False)
        self.assertEqual(other.read_message(ours.write_message(b"ours")), b"ours")
        self.assertEqual(ours.read_message(bytes(other.write_message(b"theirs"))), b"theirs")
        self._converse(ours, other)

    def test_they_begin(self) -> None:
        """Its initiator talks with our responder."""
        ours, other = NoiseHandshake(False, PSK, PROLOGUE), self._stranger(True)
        self.assertEqual(ours.read_message(bytes(other.write_message(b"theirs"))), b"theirs")
        self.assertEqual(other.read_message(ours.write_message(b"ours")), b"ours")
        self._converse(ours, other)
