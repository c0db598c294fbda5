"""Layer 1: the handshake of the Key A tunnel (``docs/protocol.rst``, section 4).

``Noise_NNpsk0_25519_AESGCM_SHA256`` as the Noise Protocol Framework, revision 34, defines it
(https://noiseprotocol.org/noise.html): two messages, authenticated by the pre-shared key, with
forward secrecy from two ephemeral X25519 keys. Only this one pattern is here, so what the framework
leaves open (static keys, messages without a key, other functions) does not exist.

::

    -> psk, e
    <- e, ee
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloudconnect.errors import KeyARejected, KeyForgotten, NonceExhausted, Tampered
from cloudconnect.keys import KEY_SIZE, hkdf_expand, hkdf_extract

Buffer = bytes | bytearray | memoryview

#: The protocol's name: exactly 32 bytes, so it is the first handshake hash as it is.
PROTOCOL_NAME: Final = b"Noise_NNpsk0_25519_AESGCM_SHA256"
#: Largest Noise message, in bytes (revision 34, section 3).
MESSAGE_MAX: Final = 65535
#: Size of an X25519 key, public or private, in bytes.
POINT_SIZE: Final = 32
#: Size of the tag behind each ciphertext, in bytes.
TAG_SIZE: Final = 16
#: Size of the first handshake message with an empty payload, in bytes.
FIRST_MESSAGE_SIZE: Final = POINT_SIZE + TAG_SIZE
#: The last nonce is reserved (revision 34, section 5.1).
NONCE_LIMIT: Final = 2**64 - 1


def x25519(private: X25519PrivateKey, public: bytes) -> bytes:
    """The shared secret of X25519 (RFC 7748, section 6.1), 32 bytes.

    :param private: our key
    :param public: the peer's point, 32 bytes
    :raises KeyARejected: not a point, or one of low order, whose result is zero whatever our key is
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise KeyARejected("the peer's ephemeral key is not a usable X25519 point") from None
    if hmac.compare_digest(shared, bytes(POINT_SIZE)):
        raise KeyARejected("the peer's ephemeral key is not a usable X25519 point")
    return shared


class CipherState:
    """AES-256-GCM with a counter for a nonce (revision 34, sections 5.1 and 12.3).

    :param key: 32 bytes
    :param nonce: the first nonce, 0 to 2**64 - 2
    """

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._aead: AESGCM | None = AESGCM(key)
        self._nonce = nonce

    def encrypt(self, ad: Buffer, plaintext: Buffer) -> bytes:
        """Ciphertext and tag: 16 bytes more than ``plaintext``.

        :param ad: associated data
        :param plaintext: at most 65519 bytes
        :raises NonceExhausted: 2**64 - 1 messages were protected
        :raises ValueError: too long
        """
        if memoryview(plaintext).nbytes > MESSAGE_MAX - TAG_SIZE:
            raise ValueError(f"a Noise message carries at most {MESSAGE_MAX - TAG_SIZE} bytes")
        sealed = self._usable().encrypt(self._octets(), plaintext, ad)
        self._nonce += 1
        return sealed

    def decrypt(self, ad: Buffer, ciphertext: Buffer) -> bytes:
        """The plaintext. A message that does not verify leaves everything as it was.

        :param ad: associated data
        :param ciphertext: with its tag, 16 to 65535 bytes
        :raises Tampered: it does not verify, or cannot be a message by its length
        :raises NonceExhausted: 2**64 - 1 messages were read
        """
        aead, nonce = self._usable(), self._octets()
        if not TAG_SIZE <= memoryview(ciphertext).nbytes <= MESSAGE_MAX:
            raise Tampered("a tunnel message has an impossible length")
        try:
            plaintext = aead.decrypt(nonce, ciphertext, ad)
        except InvalidTag:
            raise Tampered(f"tunnel message {self._nonce} does not verify") from None
        self._nonce += 1
        return plaintext

    def forget(self) -> None:
        """Drop the key; what is asked for later raises KeyForgotten."""
        self._aead = None

    def _usable(self) -> AESGCM:
        if self._aead is None:
            raise KeyForgotten("the key of this direction has been forgotten")
        return self._aead

    def _octets(self) -> bytes:
        if not 0 <= self._nonce < NONCE_LIMIT:
            raise NonceExhausted("this direction of the tunnel is used up: open another one")
        return self._nonce.to_bytes(12, "big")

    def __repr__(self) -> str:
        return f"<CipherState message {self._nonce}>"


class _SymmetricState:
    """The chaining key, the handshake hash and the handshake's cipher (section 5.2).

    There is no state without a cipher: the pattern begins with the psk.
    """

    def __init__(self, prologue: bytes, psk: bytes) -> None:
        self._chaining_key = PROTOCOL_NAME
        self.hash = PROTOCOL_NAME
        self.mix_hash(prologue)
        self._chaining_key, mixed, key = self._derive(psk, 3)
        self.mix_hash(mixed)
        self._cipher = CipherState(key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = self._derive(material, 2)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = self._cipher.encrypt(self.hash, plaintext)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plaintext = self._cipher.decrypt(self.hash, sealed)
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        there, back = self._derive(b"", 2)
        return CipherState(there), CipherState(back)

    def _derive(self, material: bytes, count: int) -> list[bytes]:
        # Noise's HKDF (section 4.3) is RFC 5869's with the chaining key as salt and no info.
        octets = hkdf_expand(hkdf_extract(self._chaining_key, material), b"", count * KEY_SIZE)
        return [octets[i : i + KEY_SIZE] for i in range(0, len(octets), KEY_SIZE)]


class NoiseHandshake:
    """One side of the handshake: two messages, one in each direction, then :meth:`split`.

    :param initiator: this side writes first
    :param psk: Key A, 32 bytes
    :param prologue: what both sides must agree on
    :param ephemeral: this side's private key, 32 bytes, for tests only
    :raises ValueError: a key of another size

    A handshake that has failed stays failed and has dropped its keys.
    """

    def __init__(
        self, initiator: bool, psk: bytes, prologue: bytes, ephemeral: bytes | None = None
    ) -> None:
        if len(psk) != KEY_SIZE:
            raise ValueError(f"a pre-shared key has {KEY_SIZE} bytes, not {len(psk)}")
        self._initiator = initiator
        self._state: _SymmetricState | None = _SymmetricState(prologue, psk)
        self._private: X25519PrivateKey | None = (
            X25519PrivateKey.generate()
            if ephemeral is None
            else X25519PrivateKey.from_private_bytes(ephemeral)
        )
        self._peer_point = b""
        self._messages = 0
        self._hash = b""
        self._failed = False

    @property
    def finished(self) -> bool:
        """Whether both messages have passed, and the peer of an initiator has proved itself."""
        return self._messages == 2 and not self._failed

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that name this handshake uniquely, once :attr:`finished` (section 11.2).

        :raises RuntimeError: before that
        """
        if not self.finished:
            raise RuntimeError("the handshake is not finished")
        return self._hash

    def write_message(self, payload: bytes = b"") -> bytes:
        """The next message, with ``payload`` encrypted in it.

        :param payload: at most 65487 bytes
        :raises KeyARejected: the initiator's ephemeral key, read before, cannot be used
        :raises ValueError: payload too long
        :raises RuntimeError: it is the other side's turn
        """
        state, private = self._turn(writing=True)
        if len(payload) > MESSAGE_MAX - FIRST_MESSAGE_SIZE:
            raise ValueError(
                f"a handshake message carries at most {MESSAGE_MAX - FIRST_MESSAGE_SIZE} bytes"
            )
        point = private.public_key().public_bytes_raw()
        try:
            self._mix_point(state, point)
            if not self._initiator:
                state.mix_key(x25519(private, self._peer_point))
        except KeyARejected:
            self._fail()
            raise
        message = point + state.encrypt_and_hash(payload)
        self._advance(state)
        return message

    def read_message(self, message: Buffer) -> bytes:
        """Verify the peer's next message and return its payload.

        :param message: 48 to 65535 bytes
        :raises KeyARejected: it was not made with this psk and prologue, or was changed on the way
        :raises RuntimeError: it is this side's turn
        """
        state, private = self._turn(writing=False)
        message = bytes(message)
        try:
            if not FIRST_MESSAGE_SIZE <= len(message) <= MESSAGE_MAX:
                raise KeyARejected("a handshake message has an impossible length")
            self._peer_point = message[:POINT_SIZE]
            self._mix_point(state, self._peer_point)
            if self._initiator:
                state.mix_key(x25519(private, self._peer_point))
            payload = state.decrypt_and_hash(message[POINT_SIZE:])
        except Tampered:
            self._fail()
            raise KeyARejected(
                "the handshake does not verify: another Key A, another session, "
                "or it was changed on the way"
            ) from None
        except KeyARejected:
            self._fail()
            raise
        self._advance(state)
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers of the tunnel: what this side sends with, and what it receives with.

        :raises RuntimeError: not :attr:`finished`, or called before
        """
        if not self.finished or self._state is None:
            raise RuntimeError("a handshake is split once, when it is finished")
        there, back = self._state.split()
        self._forget()
        return (there, back) if self._initiator else (back, there)

    def forget(self) -> None:
        """Give up: drop the keys, whatever has passed so far."""
        self._forget()

    def _turn(self, writing: bool) -> tuple[_SymmetricState, X25519PrivateKey]:
        if self._failed:
            raise KeyARejected("this handshake has failed before")
        if self._messages == 2 or writing != (self._initiator == (self._messages == 0)):
            raise RuntimeError("a handshake has one message of the initiator, then one back")
        if self._state is None or self._private is None:
            raise KeyForgotten("this handshake has been given up")
        return self._state, self._private

    @staticmethod
    def _mix_point(state: _SymmetricState, point: bytes) -> None:
        # In a handshake with a psk an ephemeral key goes into the key too (section 9.2).
        state.mix_hash(point)
        state.mix_key(point)

    def _advance(self, state: _SymmetricState) -> None:
        self._messages += 1
        if self._messages == 2:
            self._hash = state.hash
            self._private = None

    def _fail(self) -> None:
        self._failed = True
        self._forget()

    def _forget(self) -> None:
        self._state = None
        self._private = None

    def __repr__(self) -> str:
        side = "initiator" if self._initiator else "responder"
        return f"<NoiseHandshake {side} after {self._messages} messages>"
