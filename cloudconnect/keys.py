"""Layer 0: keys as opaque objects, and the derivations that start from them.

Python cannot wipe memory, so a key lives in exactly one object of one of the classes here, which
cannot be printed, pickled, copied or compared in variable time, and which forgets its octets as
soon as they have served. HKDF is RFC 5869 with SHA-256, from ``cryptography``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import ClassVar, NoReturn, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from cloudconnect.errors import KeyForgotten

#: Size of every symmetric key, in bytes: the product promises AES-256.
KEY_SIZE = 32


def lp(octets: bytes) -> bytes:
    """``octets`` behind one byte that says how many they are (``docs/protocol.rst``, notation).

    :raises ValueError: more than 255 bytes
    """
    return bytes((len(octets),)) + octets


def hkdf(ikm: bytes, info: bytes, length: int = KEY_SIZE, salt: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869), extract and expand, to ``length`` bytes."""
    return HKDF(hashes.SHA256(), length, salt or None, info).derive(ikm)


def hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869, section 2.2): 32 bytes."""
    return hmac.digest(salt or bytes(KEY_SIZE), ikm, "sha256")


def hkdf_expand(secret: bytes, info: bytes, length: int = KEY_SIZE) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869, section 2.3) to ``length`` bytes."""
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)


class Secret:
    """Octets that leave this object only through :meth:`reveal`.

    :param octets: the secret, exactly :attr:`size` bytes where a size is set
    :raises ValueError: wrong size
    :cvar size: size in bytes, or None for any
    """

    size: ClassVar[int | None] = KEY_SIZE
    __slots__ = ("_identifier", "_octets")

    def __init__(self, octets: bytes | bytearray | memoryview) -> None:
        octets = bytes(octets)
        if self.size is not None and len(octets) != self.size:
            raise ValueError(f"a {type(self).__name__} has {self.size} bytes, not {len(octets)}")
        self._octets: bytes | None = octets
        self._identifier: str | None = None

    @classmethod
    def generate(cls) -> Self:
        """A fresh one from the operating system's generator."""
        return cls(os.urandom(cls.size or KEY_SIZE))

    def reveal(self) -> bytes:
        """The octets, for the cipher or derivation that needs them now.

        :raises KeyForgotten: after :meth:`forget`
        """
        if self._octets is None:
            raise KeyForgotten(f"this {type(self).__name__} has been forgotten")
        return self._octets

    def forget(self) -> None:
        """Drop the octets; may be called again. The identifier stays known if it was asked for."""
        self._octets = None

    @property
    def forgotten(self) -> bool:
        """Whether :meth:`forget` was called."""
        return self._octets is None

    @property
    def identifier(self) -> str:
        """16 hexadecimal digits that name this key in logs and timelines: a hash commitment.

        SHA-256 over a label, the class name and the octets, cut to 8 bytes: tells keys apart and
        says nothing of either (both have 256 random bits). Not for passwords or passphrases.
        """
        if self._identifier is None:
            name = type(self).__name__.encode()
            digest = hashlib.sha256(b"cloudconnect/1 key-id" + lp(name) + self.reveal())
            self._identifier = digest.hexdigest()[:16]
        return self._identifier

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' (forgotten)' if self.forgotten else ''}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    __hash__ = None  # type: ignore[assignment]

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not copied, pickled or serialised")

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _refuse


class KeyA(Secret):
    """Key A: made by the Cloud Connect service, one for each target role, used once, for 60 s."""

    __slots__ = ()


class KeyB(Secret):
    """Key B: made by the job manager for one session; every hop's keys are derived from it."""

    __slots__ = ()


class IntegrityKey(Secret):
    """Made beside Key B and given to the two movers only: the key of the frame tags."""

    __slots__ = ()


class EnrollmentToken(Secret):
    """Made by the provider for one node, which proves by it once that it may be one."""

    __slots__ = ()


class MasterKey(Secret):
    """The random root key of everything that is stored; wrapped by a passphrase or key file."""

    __slots__ = ()


class Subkey(Secret):
    """A key that was derived from another one for a single purpose."""

    __slots__ = ()


class Password(Secret):
    """A login password or provider-made token, or an encryption passphrase: any length."""

    size = None
    __slots__ = ()

    @property
    def identifier(self) -> str:
        """Refused: a hash of something guessable is a guess away from it."""
        raise TypeError("a password has no identifier")


def key_b_confirmation(
    key_b: KeyB, handshake_hash: bytes, role: str, delivery_digest: bytes
) -> bytes:
    """What a target role answers to ``DeliverKeyB`` (``docs/protocol.rst``, section 4): 32 bytes.

    :param key_b: the key as it was received
    :param handshake_hash: the Noise handshake hash of the Key A tunnel, 32 bytes
    :param role: the role's name, such as ``target-mover``
    :param delivery_digest: SHA-256 of the exact bytes of the ``DeliverKeyB`` box
    """
    key = hkdf(key_b.reveal(), b"cloudconnect/1 confirm")
    return hmac.digest(key, handshake_hash + lp(role.encode()) + delivery_digest, "sha256")


def frame_key(integrity_key: IntegrityKey, session: bytes, stream: int, direction: int) -> Subkey:
    """The key of one direction's frame tags on one stream (``docs/protocol.rst``, section 7).

    :param session: the session's 16 bytes
    :param stream: stream number, 0 to 65535
    :param direction: 0 from the initiator of the session (the tenant's mover), 1 back
    """
    info = b"cloudconnect/1 frame" + session + stream.to_bytes(2, "big") + bytes((direction,))
    return Subkey(hkdf(integrity_key.reveal(), info))


def key_b_context(preamble: bytes, session: bytes, tenant: str, hop: str) -> bytes:
    """What the keys of one hop are bound to, beside Key B (``docs/protocol.rst``, section 5).

    The record handshake appends the connection number and the direction.

    :param preamble: the 21 bytes that began the connection
    :param session: the session's 16 bytes
    :param hop: such as ``source-mover>target-mover``
    """
    where = hashlib.sha256(preamble + session + lp(tenant.encode())).digest()
    return b"cloudconnect/1 key-b" + where + lp(hop.encode())
