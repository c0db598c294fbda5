"""Layer 1: the key schedule of a record stream (``docs/protocol.rst``, section 5).

From one shared secret and two salts come two chains of traffic secrets, one for each direction;
from each link of a chain come the key, the nonce base and the commitment of one epoch.
"""

from __future__ import annotations

from typing import Final

import attrs

from cloudconnect.errors import KeyForgotten, NonceExhausted
from cloudconnect.keys import KEY_SIZE, Secret, Subkey, hkdf_expand, hkdf_extract
from cloudconnect.settings import EPOCH_MAX
from cloudconnect.shown import Shown

#: Size of each side's salt, in bytes.
SALT_SIZE: Final = 32
#: Size of a commitment, in bytes.
COMMITMENT_SIZE: Final = 32
#: Size of a nonce and of its base, in bytes (AES-GCM, NIST SP 800-38D, 8.2.1).
IV_SIZE: Final = 12

#: The direction from the initiator to the responder.
FROM_INITIATOR: Final = 0
#: The direction back.
FROM_RESPONDER: Final = 1


@attrs.frozen(eq=False, repr=False)
class RecordKey(Shown):
    """What protects the records of one epoch in one direction.

    :ivar key: the AES-256-GCM key
    :ivar iv: 12 bytes that each record's sequence number is XORed into
    :ivar commitment: 32 bytes that commit to the key and say nothing of it
    """

    key: Subkey
    iv: bytes = attrs.field(repr=False)
    commitment: bytes = attrs.field(repr=False)


class TrafficSecret:
    """The chain of one direction: the current epoch's secret, and no earlier one.

    :param secret: the shared secret (Key B, or any other); only read here, never kept
    :param context: what the keys are bound to (:func:`cloudconnect.keys.key_b_context`, or any
        bytes that both sides agree on)
    :param connection: the connection's number, 0 to 2**32 - 1
    :param direction: :data:`FROM_INITIATOR` or :data:`FROM_RESPONDER`
    :param salts: the initiator's salt and then the responder's, 32 bytes each
    :raises ValueError: a number or the salts out of bounds
    """

    def __init__(
        self, secret: Secret, context: bytes, connection: int, direction: int, salts: bytes
    ) -> None:
        if len(salts) != 2 * SALT_SIZE:
            raise ValueError(f"two salts have {2 * SALT_SIZE} bytes, not {len(salts)}")
        if direction not in (FROM_INITIATOR, FROM_RESPONDER):
            raise ValueError("a direction is 0 or 1")
        if not 0 <= connection < 1 << 32:
            raise ValueError("a connection's number has 32 bits")
        info = context + connection.to_bytes(4, "big") + bytes((direction,))
        self._secret: bytes | None = hkdf_expand(hkdf_extract(salts, secret.reveal()), info)
        #: The current epoch, 0 to 65535.
        self.epoch = 0

    def record_key(self) -> RecordKey:
        """The key, nonce base and commitment of the current epoch.

        :raises KeyForgotten: after :meth:`forget`
        """
        octets = hkdf_expand(
            self._reveal(), b"cloudconnect/1 record", KEY_SIZE + IV_SIZE + COMMITMENT_SIZE
        )
        return RecordKey(
            Subkey(octets[:KEY_SIZE]),
            octets[KEY_SIZE : KEY_SIZE + IV_SIZE],
            octets[KEY_SIZE + IV_SIZE :],
        )

    def advance(self) -> None:
        """Go on to the next epoch and drop this one's secret.

        :raises NonceExhausted: this was the last epoch
        :raises KeyForgotten: after :meth:`forget`
        """
        if self.epoch >= EPOCH_MAX:
            raise NonceExhausted("this connection is in its last epoch: end it, open another one")
        self._secret = hkdf_expand(self._reveal(), b"cloudconnect/1 rekey")
        self.epoch += 1

    def forget(self) -> None:
        """Drop the secret; may be called again."""
        self._secret = None

    def _reveal(self) -> bytes:
        if self._secret is None:
            raise KeyForgotten("this direction's secret has been forgotten")
        return self._secret

    def __repr__(self) -> str:
        return f"<TrafficSecret epoch {self.epoch}>"
