"""Layer 1: authenticated encryption at rest: XAES-256-GCM (https://c2sp.org/XAES-256-GCM).

A nonce has 24 bytes. The first 12 choose a derived AES-256 key (two AES-CMAC blocks), the last 12
are the AES-GCM nonce under it. One :class:`Sealer` draws the first half at random and counts in the
second one, so it derives one key, and neither many sealers under one key nor many messages of one
sealer come near a collision.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from cloudconnect.errors import NonceExhausted, StoredDataDamaged
from cloudconnect.keys import Subkey

#: Bytes of a nonce.
NONCE_SIZE: Final = 24
#: Bytes of the part of a nonce that chooses the derived key.
PREFIX_SIZE: Final = 12
#: Bytes of the authentication tag.
TAG_SIZE: Final = 16
#: How much longer sealed bytes are than plain ones.
OVERHEAD: Final = NONCE_SIZE + TAG_SIZE
#: Messages of one Sealer: NIST SP 800-38D's bound for one AES-GCM key, 350 TB of usual chunks.
MESSAGES_MAX: Final = 1 << 32
#: Derived keys that one Opener keeps: a restore meets one for each backup that made its chunks.
KEPT_MAX: Final = 64


def derive(key: Subkey, prefix: bytes) -> AESGCM:
    """The cipher under the key that ``prefix``, 12 bytes, chooses (C2SP, XAES-256-GCM)."""
    octets = b""
    for block in (b"\x00\x01X\x00", b"\x00\x02X\x00"):
        mac = CMAC(AES(key.reveal()))
        mac.update(block + prefix)
        octets += mac.finalize()
    return AESGCM(octets)


class Sealer:
    """Seals messages under one key; safe to use from several threads.

    :param key: used for sealing with XAES-256-GCM only
    """

    def __init__(self, key: Subkey) -> None:
        self._prefix = os.urandom(PREFIX_SIZE)
        self._cipher = derive(key, self._prefix)
        self._lock = threading.Lock()
        self._sealed = 0
        self._process = os.getpid()

    def seal(
        self, plaintext: bytes | bytearray | memoryview, associated: bytes = b""
    ) -> memoryview:
        """``nonce || ciphertext || tag``, 40 bytes longer than ``plaintext``.

        :param associated: bytes that are authenticated with it and must be known to open it
        :raises NonceExhausted: after 2**32 messages, or in a process that was forked off, which
            would count through the same nonces
        """
        with self._lock:
            count = self._sealed
            if count >= MESSAGES_MAX or os.getpid() != self._process:
                raise NonceExhausted("this sealer may not seal anything more")
            self._sealed = count + 1
        counter = count.to_bytes(NONCE_SIZE - PREFIX_SIZE, "big")
        sealed = bytearray(len(plaintext) + OVERHEAD)
        view = memoryview(sealed)
        view[:PREFIX_SIZE] = self._prefix
        view[PREFIX_SIZE:NONCE_SIZE] = counter
        self._cipher.encrypt_into(counter, plaintext, associated, view[NONCE_SIZE:])
        return view.toreadonly()


class Opener:
    """Opens what any :class:`Sealer` sealed under one key; safe to use from several threads.

    :param key: the key of the sealers
    """

    def __init__(self, key: Subkey) -> None:
        self._key = key
        self._lock = threading.Lock()
        self._ciphers: OrderedDict[bytes, AESGCM] = OrderedDict()

    def open(self, sealed: bytes | bytearray | memoryview, associated: bytes = b"") -> bytes:
        """The plain bytes of ``nonce || ciphertext || tag``.

        :raises StoredDataDamaged: not sealed with this key and these associated bytes, or changed
        """
        view = memoryview(sealed)
        if len(view) < OVERHEAD:
            raise StoredDataDamaged(f"{len(view)} bytes are too few for anything sealed")
        cipher = self._cipher(bytes(view[:PREFIX_SIZE]))
        try:
            return cipher.decrypt(view[PREFIX_SIZE:NONCE_SIZE], view[NONCE_SIZE:], associated)
        except InvalidTag:
            raise StoredDataDamaged("sealed bytes do not open: damaged, or changed") from None

    def _cipher(self, prefix: bytes) -> AESGCM:
        with self._lock:
            cipher = self._ciphers.get(prefix)
            if cipher is not None:
                self._ciphers.move_to_end(prefix)
                return cipher
            cipher = self._ciphers[prefix] = derive(self._key, prefix)
            if len(self._ciphers) > KEPT_MAX:
                self._ciphers.popitem(last=False)
            return cipher
