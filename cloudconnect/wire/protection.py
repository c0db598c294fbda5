"""Layer 1: one direction of a record stream, sealed and opened (``docs/protocol.rst``, section 6).

AES-256-GCM records with an implicit sequence number, a header that is associated data, a new key
for each epoch, and an authenticated END. Nothing here holds payload: the caller brings the buffers,
and a record is sealed or opened from one into the other without a further copy. The conversation of
both directions is in :mod:`cloudconnect.wire.records`.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloudconnect.errors import (
    CloudConnectError,
    KeyForgotten,
    NonceExhausted,
    ProtocolViolation,
    Tampered,
)
from cloudconnect.settings import (
    EPOCH_BYTES_MAX,
    EPOCH_MAX,
    RECORD_PAYLOAD_MAX,
    REKEY_BYTES,
    REKEY_SECONDS,
)
from cloudconnect.wire.schedule import IV_SIZE, RecordKey, TrafficSecret

Buffer = bytes | bytearray | memoryview

#: type u8, flags u8, epoch u16, length of the ciphertext with its tag u32; all associated data.
HEADER: Final = struct.Struct(">BBHI")
#: Size of a record's header, in bytes.
HEADER_SIZE: Final = HEADER.size
#: Size of the tag that ends a ciphertext, in bytes (AES-GCM's full tag).
TAG_SIZE: Final = 16
#: The body of END: payload bytes u64 and DATA records u64 of this direction.
TOTALS: Final = struct.Struct(">QQ")


class RecordType(enum.IntEnum):
    """What a record is for."""

    DATA = 1
    REKEY = 2
    END = 3
    ABORT = 4
    PING = 5
    PONG = 6


#: Fewest and most payload bytes of each type.
_PAYLOAD_SIZES: Final = {
    RecordType.DATA: (1, RECORD_PAYLOAD_MAX),
    RecordType.REKEY: (0, 0),
    RecordType.END: (TOTALS.size, TOTALS.size),
    RecordType.ABORT: (2, 2),
    RecordType.PING: (8, 8),
    RecordType.PONG: (8, 8),
}
_TYPES: Final = {int(kind): kind for kind in RecordType}
#: What may come after END of the same direction.
_AFTER_END: Final = frozenset(
    {RecordType.REKEY, RecordType.ABORT, RecordType.PING, RecordType.PONG}
)


class RecordCipher:
    """AES-256-GCM with the nonces of one epoch: the base XOR the record's sequence number.

    :param key: key (32 bytes) and nonce base (12 bytes) of the epoch
    """

    __slots__ = ("_aead", "_base")

    def __init__(self, key: RecordKey) -> None:
        self._aead = AESGCM(key.key.reveal())
        self._base = int.from_bytes(key.iv, "big")

    def _nonce(self, sequence: int) -> bytes:
        if sequence >> 64:
            raise NonceExhausted("an epoch has no more than 2**64 records")
        return (self._base ^ sequence).to_bytes(IV_SIZE, "big")

    def seal_into(self, sequence: int, header: bytes, payload: Buffer, out: memoryview) -> None:
        """Fill ``out``, 16 bytes longer than ``payload``, with ciphertext and tag.

        :param sequence: the record's number in its epoch, 0 to 2**64 - 1
        :param header: its 8 bytes, the associated data
        """
        self._aead.encrypt_into(self._nonce(sequence), payload, header, out)

    def open_into(self, sequence: int, header: Buffer, sealed: Buffer, out: memoryview) -> None:
        """Fill ``out``, 16 bytes shorter than ``sealed``; on InvalidTag it is wiped.

        :param sequence: the record's number in its epoch, 0 to 2**64 - 1
        :param header: its 8 bytes, the associated data
        """
        try:
            self._aead.decrypt_into(self._nonce(sequence), sealed, header, out)
        except InvalidTag:
            out[:] = bytes(len(out))  # OpenSSL has decrypted before it compared
            raise

    def open(self, sequence: int, header: Buffer, sealed: Buffer) -> bytes:
        """The payload as fresh bytes, or InvalidTag.

        :param sequence: the record's number in its epoch, 0 to 2**64 - 1
        :param header: its 8 bytes, the associated data
        :param sealed: ciphertext and tag
        """
        return self._aead.decrypt(self._nonce(sequence), sealed, header)


class _Direction:
    """What sealing and opening share: the chain of keys, the counters, the end."""

    def __init__(self, traffic: TrafficSecret) -> None:
        self._traffic = traffic
        self._cipher: RecordCipher | None = None
        self._sequence = 0
        self._epoch_bytes = 0
        #: The commitment of the current epoch, 32 bytes.
        self.commitment = b""
        #: Whether END has been sealed, or opened.
        self.ended = False
        #: The code of the ABORT that was sealed, or opened.
        self.abort_code: int | None = None
        #: Payload bytes of DATA so far.
        self.data_bytes = 0
        #: DATA records so far.
        self.data_records = 0
        #: Records of any type so far: the number of the next one.
        self.records = 0
        self._start_epoch()

    @property
    def epoch(self) -> int:
        """The epoch of the next record."""
        return self._traffic.epoch

    def forget(self) -> None:
        """Drop the keys; what is asked for later raises KeyForgotten."""
        self._cipher = None
        self._traffic.forget()

    def _start_epoch(self) -> None:
        key = self._traffic.record_key()
        self._cipher = RecordCipher(key)
        self.commitment = key.commitment
        self._sequence = 0
        self._epoch_bytes = 0
        key.key.forget()

    def _usable_cipher(self) -> RecordCipher:
        if self._cipher is None:
            raise KeyForgotten("the keys of this record stream have been forgotten")
        return self._cipher

    def _count(self, kind: RecordType, size: int) -> None:
        self.records += 1
        self._sequence += 1
        if kind is RecordType.DATA:
            self.data_records += 1
            self.data_bytes += size
            self._epoch_bytes += size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} epoch {self.epoch} record {self.records}>"


class RecordSealer(_Direction):
    """Seals one direction's records.

    :param traffic: the direction's secret, in epoch 0; owned by the sealer from here on
    :param rekey_bytes: a new key is due after this many payload bytes of one epoch
    :param rekey_seconds: or after this many seconds
    :param epoch_bytes_max: DATA beyond this many payload bytes of one epoch is refused, as the peer
        would refuse it
    :ivar ended: END has been sealed
    """

    def __init__(
        self,
        traffic: TrafficSecret,
        *,
        rekey_bytes: int = REKEY_BYTES,
        rekey_seconds: float = REKEY_SECONDS,
        epoch_bytes_max: int = EPOCH_BYTES_MAX,
    ) -> None:
        super().__init__(traffic)
        self._rekey_bytes = rekey_bytes
        self._rekey_seconds = rekey_seconds
        self._epoch_bytes_max = epoch_bytes_max
        self._now: float | None = None
        self._epoch_since: float | None = None

    def rekey_due(self, now: float | None = None) -> bool:
        """Whether :meth:`rekey` should come before the next DATA.

        :param now: the caller's monotonic clock, in seconds. The first epoch's age counts from the
            first call, a later one's from the last call before it. Without a clock only the bytes
            count.
        """
        if now is not None:
            self._now = now
            if self._epoch_since is None:
                self._epoch_since = now
            if now - self._epoch_since >= self._rekey_seconds:
                return True
        return self._epoch_bytes >= self._rekey_bytes

    def seal_into(self, kind: RecordType, payload: Buffer, out: memoryview) -> int:
        """Seal one record into the beginning of ``out``.

        :param kind: DATA, ABORT, PING or PONG (:meth:`rekey` and :meth:`end` make the others)
        :param payload: DATA 1 byte to 1 MiB, ABORT 2 bytes, PING and PONG 8 bytes
        :param out: bytes, at least ``HEADER_SIZE + len(payload) + TAG_SIZE`` of them; must not
            overlap ``payload``
        :return: how many bytes were written
        :raises ValueError: a size that this kind cannot have, or ``out`` too small
        :raises RuntimeError: this kind cannot follow what was sealed before
        :raises NonceExhausted: the key has served enough
        :raises KeyForgotten: after :meth:`forget`
        """
        if kind is RecordType.REKEY or kind is RecordType.END:
            raise ValueError(f"{kind.name} is not made from a payload")
        return self._seal_into(kind, payload, out)

    def seal(self, kind: RecordType, payload: Buffer) -> bytes:
        """As :meth:`seal_into`, into fresh bytes.

        :param kind: as there
        :param payload: as there
        :raises ValueError: as there; and so are the other errors
        """
        if kind is RecordType.REKEY or kind is RecordType.END:
            raise ValueError(f"{kind.name} is not made from a payload")
        return self._seal(kind, payload)

    def rekey(self) -> bytes:
        """The REKEY record; what is sealed after it is of the next epoch.

        :raises NonceExhausted: this is the last epoch; only END is left to send
        :raises RuntimeError: after ABORT
        """
        if self.epoch >= EPOCH_MAX:
            raise NonceExhausted("this connection is in its last epoch: end it, open another one")
        record = self._seal(RecordType.REKEY, b"")
        self._traffic.advance()
        self._start_epoch()
        self._epoch_since = self._now
        return record

    def end(self) -> bytes:
        """The END record, with the totals; no DATA may follow.

        :raises RuntimeError: END was sealed before, or ABORT
        """
        record = self._seal(RecordType.END, TOTALS.pack(self.data_bytes, self.data_records))
        self.ended = True
        return record

    def _seal(self, kind: RecordType, payload: Buffer) -> bytes:
        record = bytearray(HEADER_SIZE + memoryview(payload).nbytes + TAG_SIZE)
        self._seal_into(kind, payload, memoryview(record))
        return bytes(record)

    def _seal_into(self, kind: RecordType, payload: Buffer, out: memoryview) -> int:
        size = memoryview(payload).nbytes
        least, most = _PAYLOAD_SIZES[kind]
        if not least <= size <= most:
            raise ValueError(f"{kind.name} has {least} to {most} bytes of payload, not {size}")
        if self.abort_code is not None or (self.ended and kind not in _AFTER_END):
            raise RuntimeError(f"{kind.name} cannot follow the end of this direction")
        if kind is RecordType.DATA and self._epoch_bytes + size > self._epoch_bytes_max:
            raise NonceExhausted("this epoch's key has served as many bytes as it may")
        whole = HEADER_SIZE + size + TAG_SIZE
        if len(out) < whole:
            raise ValueError(f"a record of {whole} bytes does not fit into {len(out)}")
        header = HEADER.pack(kind, 0, self._traffic.epoch, size + TAG_SIZE)
        cipher = self._usable_cipher()
        cipher.seal_into(self._sequence, header, payload, out[HEADER_SIZE:whole])
        out[:HEADER_SIZE] = header
        self._count(kind, size)
        if kind is RecordType.ABORT:
            self.abort_code = int.from_bytes(payload, "big")
        return whole


class RecordOpener(_Direction):
    """Opens one direction's records; the first bad one is the last.

    :param traffic: the direction's secret, in epoch 0; owned by the opener from here on
    :param epoch_bytes_max: one epoch may carry this many payload bytes
    :ivar ended: END has been verified
    :ivar failure: the error that everything asked for later raises again, or None
    """

    def __init__(self, traffic: TrafficSecret, *, epoch_bytes_max: int = EPOCH_BYTES_MAX) -> None:
        super().__init__(traffic)
        self._epoch_bytes_max = epoch_bytes_max
        self.failure: CloudConnectError | None = None

    def header(self, data: Buffer) -> tuple[RecordType, int]:
        """Check a record's header, before anything of the record is buffered.

        :param data: exactly 8 bytes
        :return: the type, and the length of the ciphertext with its tag, 16 to 2**20 + 16 bytes;
            neither is authentic before the record has been opened
        :raises Tampered: unknown type, flags, wrong epoch, impossible length, or not in its place
        :raises KeyForgotten: after :meth:`forget`
        """
        if self.failure is not None:
            raise self.failure
        self._usable_cipher()
        number, flags, epoch, length = HEADER.unpack(data)
        kind = _TYPES.get(number)
        if kind is None:
            self._refuse("is of an unknown type")
        if flags:
            self._refuse("has flags that version 1 does not know")
        if epoch != self._traffic.epoch:
            self._refuse(f"claims epoch {epoch}")
        least, most = _PAYLOAD_SIZES[kind]
        if not least + TAG_SIZE <= length <= most + TAG_SIZE:
            self._refuse(f"claims an impossible length of {length} bytes")
        if self.abort_code is not None or (self.ended and kind not in _AFTER_END):
            self._refuse("comes after the end of this direction")
        if kind is RecordType.REKEY and epoch >= EPOCH_MAX:
            self._refuse("leaves the last epoch")
        return kind, length

    def open_into(self, header: Buffer, ciphertext: Buffer, out: memoryview) -> int:
        """Verify one record and decrypt it into the beginning of ``out``.

        :param header: its 8 bytes
        :param ciphertext: as many bytes as the header says
        :param out: bytes, at least ``len(ciphertext) - TAG_SIZE`` of them; must not overlap
            ``ciphertext``. Nothing in it is valid when an error is raised.
        :return: how many payload bytes were written
        :raises Tampered: the record does not verify, or END's totals are not what came
        :raises ProtocolViolation: more bytes in one epoch than the peer may send
        :raises ValueError: ``ciphertext`` or ``out`` of another size than the caller promised
        """
        kind, size = self._expect(header, ciphertext)
        if len(out) < size:
            raise ValueError(f"a payload of {size} bytes does not fit into {len(out)}")
        try:
            self._usable_cipher().open_into(self._sequence, header, ciphertext, out[:size])
        except InvalidTag:
            self._refuse("does not verify")
        self._accept(kind, out[:size])
        return size

    def open(self, header: Buffer, ciphertext: Buffer) -> bytes:
        """As :meth:`open_into`, into fresh bytes.

        :param header: 8 bytes
        :param ciphertext: with its tag, as long as the header says
        """
        kind, _ = self._expect(header, ciphertext)
        try:
            payload = self._usable_cipher().open(self._sequence, header, ciphertext)
        except InvalidTag:
            self._refuse("does not verify")
        self._accept(kind, payload)
        return payload

    def _expect(self, header: Buffer, ciphertext: Buffer) -> tuple[RecordType, int]:
        kind, length = self.header(header)
        given = memoryview(ciphertext).nbytes
        if given != length:
            raise ValueError(f"the header says {length} bytes of ciphertext, not {given}")
        return kind, length - TAG_SIZE

    def _accept(self, kind: RecordType, payload: Buffer) -> None:
        self._count(kind, len(payload))
        if kind is RecordType.DATA:
            if self._epoch_bytes > self._epoch_bytes_max:
                self._fail(ProtocolViolation("the peer has used one key for too many bytes"))
        elif kind is RecordType.REKEY:
            self._traffic.advance()
            self._start_epoch()
        elif kind is RecordType.END:
            if TOTALS.unpack(payload) != (self.data_bytes, self.data_records):
                self._refuse("ends with totals that are not what was received", passed=1)
            self.ended = True
        elif kind is RecordType.ABORT:
            self.abort_code = int.from_bytes(payload, "big")

    def _refuse(self, what: str, passed: int = 0) -> NoReturn:
        number = self.records - passed
        self._fail(Tampered(f"record {number} of epoch {self.epoch} {what}"))

    def _fail(self, error: CloudConnectError) -> NoReturn:
        self.failure = error
        self.forget()
        raise error
