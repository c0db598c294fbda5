"""A transport wrapper of one's own: messages sealed with ChaCha20-Poly1305, on a shared secret.

Each side sends 32 random bytes, and makes one key for each direction from the secret and both. Then
come messages: the length of the sealed bytes in four bytes, and the sealed bytes. An empty message
is the authenticated end.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloudconnect.errors import NonceExhausted, Tampered
from cloudconnect.transports import EndingLayer, Recipe

SALT, LENGTH, TAG = 32, 4, 16
PAYLOAD_MAX = 16 << 10
MESSAGES_MAX = 1 << 32


class Direction:
    """A key, and the number of the next message."""

    def __init__(self, key):
        self.cipher = ChaCha20Poly1305(key)
        self.count = 0

    def nonce(self):
        """12 bytes that this key has not been used with."""
        if self.count == MESSAGES_MAX:
            raise NonceExhausted("this key has sealed all the messages that it may")
        self.count += 1
        return self.count.to_bytes(12, "big")


class SealedLayer(EndingLayer):
    """One connection."""

    name = "sealed"

    def __init__(self, protocol, clock, secret, is_client):
        super().__init__(protocol, clock)
        self.secret = secret
        self.is_client = is_client
        self.salt = os.urandom(SALT)
        self.sending = self.receiving = None
        self.buffer = b""
        self.ended = False

    def _opened(self):
        self._write_below(self.salt)

    def _received(self, data):
        self.buffer += data
        if self.sending is None:
            if len(self.buffer) < SALT:
                return
            salt, self.buffer = self.buffer[:SALT], self.buffer[SALT:]
            self.agree(salt)
            self._ready()
        while (size := self.next_size()) is not None and len(self.buffer) >= LENGTH + size:
            message = self.buffer[: LENGTH + size]
            self.buffer = self.buffer[LENGTH + size :]
            payload = self.open(message)
            if payload:
                yield payload
            else:
                self.ended = True
                self._end_came()

    def agree(self, salt):
        """Make both keys."""
        salts = self.salt + salt if self.is_client else salt + self.salt
        keys = HKDF(SHA256(), 64, salts, b"sealed example").derive(self.secret)
        up, down = Direction(keys[:32]), Direction(keys[32:])
        self.sending, self.receiving = (up, down) if self.is_client else (down, up)

    def next_size(self):
        """How many sealed bytes the next message has; looked at before any of them is kept."""
        if len(self.buffer) < LENGTH:
            return None
        size = int.from_bytes(self.buffer[:LENGTH], "big")
        if self.ended or not TAG <= size <= PAYLOAD_MAX + TAG:
            raise Tampered("no message can stand here")
        return size

    def open(self, message):
        """The payload of one message."""
        try:
            return self.receiving.cipher.decrypt(
                self.receiving.nonce(), message[LENGTH:], message[:LENGTH]
            )
        except InvalidTag:
            raise Tampered("a message does not verify") from None

    def seal(self, payload):
        """One message."""
        length = (len(payload) + TAG).to_bytes(LENGTH, "big")
        return length + self.sending.cipher.encrypt(self.sending.nonce(), payload, length)

    def _seal(self, data):
        return b"".join(
            self.seal(data[at : at + PAYLOAD_MAX]) for at in range(0, len(data), PAYLOAD_MAX)
        )

    def _seal_end(self):
        return self.seal(b"")

    def _forget_keys(self):
        self.secret = self.sending = self.receiving = None
        self.buffer = b""


class Sealed(Recipe):
    """How both sides are made: they share ``secret``, 32 bytes that nobody else knows."""

    name = SealedLayer.name

    def __init__(self, secret):
        self.secret = secret

    def layer(self, initiator, protocol, clock):
        """A new connection's layer around ``protocol``."""
        return SealedLayer(protocol, clock, self.secret, initiator)
