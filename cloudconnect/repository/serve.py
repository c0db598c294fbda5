"""Layer 3: the target mover's side of the dialogue of frames (``docs/protocol.rst``, section 7).

One call serves one stream of one session, blocking, in a worker thread. Every request that can fail
by itself (an id that is damaged, a point that is not there) is answered with a FAIL of its number
and the dialogue goes on; anything else ends it with a FAIL of number 0.

Answers to a GET come in the order of its ids, one frame for each: its CHUNK, or in its place a FAIL
with the number of the GET.

Where an accelerator stands on the way, unsealed chunks come and go uncompressed (``docs/wan.rst``,
what to feed it): what comes is compressed here before it is stored, and decompressed when it goes
back, so that its CHUNK is byte for byte the one that came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any, Final

import attrs

from cloudconnect.content.atrest import BlobKind, EncryptionMode, RepositoryKeys
from cloudconnect.content.heads import NUMBER_MAX
from cloudconnect.content.points import PointRecord
from cloudconnect.content.recoding import compressed, plain
from cloudconnect.content.sealing import OVERHEAD
from cloudconnect.errors import (
    Busy,
    CloudConnectError,
    ContextMismatch,
    DigestMismatch,
    HeadMoved,
    NotFound,
    ProtocolViolation,
    QuotaUsed,
    Refused,
    SecurityError,
    StoredDataDamaged,
)
from cloudconnect.repository.heads import ABOUT_MAX, head_in
from cloudconnect.repository.packs import ENTRY_SIZE
from cloudconnect.repository.references import ReferenceWriter
from cloudconnect.repository.store import Repository
from cloudconnect.settings import (
    CHUNK_MAX,
    FRAME_BODY_MAX,
    IDS_MAX,
    PROTOCOL_VERSIONS,
    VERIFY_IDS_MAX,
)
from cloudconnect.wire.channel import FrameChannel, raise_failure
from cloudconnect.wire.frames import (
    FLAG_MANIFEST,
    FLAG_PART,
    SEALED,
    Coding,
    Frame,
    FrameKind,
    StoredBlob,
    decode_body,
    encode_body,
    join_ids,
    pack_bitmap,
    split_ids,
    unpack_chunk,
)

#: Restore points of one session: a backup makes one.
POINTS_MAX: Final = 16
#: CHUNKs are sent when so many bytes of them are ready: each sending wakes another thread.
SEND_BYTES: Final = 256 << 10
_READING: Final = {FrameKind.GET, FrameKind.OPEN, FrameKind.HEADS}
#: What a session's purpose lets it ask for, where its capabilities do too.
_PURPOSES: Final = {
    "backup": {FrameKind.HAVE, FrameKind.CHUNK, FrameKind.POINT, *_READING},
    "restore": _READING,
    "read": _READING,
    "check": {FrameKind.HAVE, FrameKind.VERIFY, *_READING},
}
#: Which capability a kind of frame needs.
_NEEDS: Final = {FrameKind.CHUNK: "write", FrameKind.POINT: "write"}
_READ: Final = "read"
#: What needs none.
_FREE: Final = {FrameKind.HAVE, FrameKind.HEADS}


@attrs.frozen(kw_only=True)
class ServeResult:
    """What a dialogue came to.

    :ivar points: ids of the points that were published, 16 bytes each
    :ivar chunks_received: CHUNKs taken
    :ivar bytes_stored: their bytes as they were stored
    :ivar chunks_sent: CHUNKs sent
    :ivar bytes_received: all bytes of frames that came
    :ivar bytes_sent: all bytes of frames that were sent
    """

    points: tuple[bytes, ...]
    chunks_received: int
    bytes_stored: int
    chunks_sent: int
    bytes_received: int
    bytes_sent: int


def serve_session(
    channel: FrameChannel,
    repository: Repository,
    purpose: str,
    capabilities: Collection[str],
    session: bytes,
    on_point: Callable[[PointRecord], None],
    reserve: Callable[[int], None] | None = None,
    keys: RepositoryKeys | None = None,
    plain_on_wire: bool = False,
) -> ServeResult:
    """Serve one stream until the peer has ended it.

    :param repository: is used by this call only, and not closed by it
    :param purpose: ``backup``, ``restore``, ``read`` or ``check``, as the Key A package says
    :param capabilities: of the credential: ``write``, ``read``
    :param session: 16 bytes; a restore point must be of this session
    :param on_point: is asked before a restore point is published, and raises what is wrong with it
    :param reserve: takes so many bytes from the quota before they are stored, or raises NoSpace
    :param keys: in ``provider`` mode, the provider's own keys, under which blobs are sealed at rest
    :param plain_on_wire: chunks pass an accelerator: compress for the store those that come
        uncompressed, and send all of them uncompressed. Nothing changes in ``tenant`` mode, where
        they are sealed
    :raises ContextMismatch: the peer wants what was not agreed
    :raises CloudConnectError: what ended the dialogue; the peer has been told
    :raises Exception: anything unexpected; the peer has been told that something was, not what
    """
    served = _Dialogue(
        channel,
        repository,
        purpose,
        capabilities,
        session,
        on_point,
        reserve or _unlimited,
        keys,
        plain_on_wire,
    )
    try:
        return served.run()
    except Exception as error:
        served.end(error)
        channel.give_up(error)
        raise


class _Dialogue:
    def __init__(
        self,
        channel: FrameChannel,
        repository: Repository,
        purpose: str,
        capabilities: Collection[str],
        session: bytes,
        on_point: Callable[[PointRecord], None],
        reserve: Callable[[int], None],
        keys: RepositoryKeys | None,
        plain_on_wire: bool,
    ) -> None:
        self._channel = channel
        self._repository = repository
        self._purpose = purpose
        self._allowed = {
            kind
            for kind in _PURPOSES.get(purpose, set())
            if kind in _FREE or _NEEDS.get(kind, _READ) in capabilities
        }
        self._session = session
        self._on_point = on_point
        self._reserve = reserve
        self._keys = keys
        self._plain_on_wire = plain_on_wire
        self._mode = repository.description.mode
        sealed = self._mode is EncryptionMode.TENANT
        #: What may come, and goes back, in the repository's mode.
        self._codings = tuple(coding for coding in Coding if bool(coding & SEALED) is sealed)
        self._references: ReferenceWriter | None = None
        self._points: list[bytes] = []
        self._chunks_received = self._bytes_stored = self._chunks_sent = 0
        self._bytes_new = 0  # added to packs since the last restore point
        self._answers: dict[FrameKind, Callable[[Frame], None]] = {
            FrameKind.HAVE: self._have,
            FrameKind.CHUNK: self._chunk,
            FrameKind.POINT: self._point,
            FrameKind.GET: self._get,
            FrameKind.OPEN: self._open,
            FrameKind.HEADS: self._heads,
            FrameKind.VERIFY: self._verify,
        }

    def run(self) -> ServeResult:
        """Greet, answer until the totals, and end."""
        if self._mode is EncryptionMode.PROVIDER and self._keys is None:
            raise Refused("the provider's key of this repository is not there")
        if self._purpose == "backup":
            self._repository.check_bin_room()
            self._repository.commit_beside()
        self._greet(self._channel.receive())
        while (frame := self._channel.receive()).kind is not FrameKind.TOTALS:
            self._answer(frame)
        self._flush()
        # Our end is the peer's proof that we have seen its whole direction, its end included: a
        # session that failed here can then withdraw its points before it said that all is well.
        self._channel.expect_end()
        self._channel.finish()
        return ServeResult(
            points=tuple(self._points),
            chunks_received=self._chunks_received,
            bytes_stored=self._bytes_stored,
            chunks_sent=self._chunks_sent,
            bytes_received=self._channel.bytes_received,
            bytes_sent=self._channel.bytes_sent,
        )

    def end(self, error: Exception) -> None:
        """Keep what was verified when the line broke; it need not be sent again.

        Nothing of a job that passes the quota; nor after a security error: nothing of such a
        session is trusted that was not acknowledged.
        """
        if isinstance(error, QuotaUsed):
            # Before the peer hears it: whatever happens then, nothing of this job stays.
            self._repository.release_job()
        elif not isinstance(error, SecurityError):
            # The first error is the one to report, also where this fails for the same reason.
            with contextlib.suppress(CloudConnectError, OSError):
                self._flush()

    def _greet(self, frame: Frame) -> None:
        if frame.kind is not FrameKind.HELLO:
            raise ProtocolViolation(f"a {frame.kind.name} came in the place of a HELLO")
        # A newer peer may say more than this release knows of.
        hello = _fields(
            frame,
            more=True,
            versions=list,
            id_check=bytes,
            codings=list,
            chunking=dict,
            purpose=str,
        )
        description = self._repository.description
        if hello["purpose"] != self._purpose:
            raise ContextMismatch(
                f"this session was started as {self._purpose}, and the peer says "
                f"{hello['purpose'][:16]}"
            )
        versions = [version for version in PROTOCOL_VERSIONS if version in hello["versions"]]
        if not versions:
            raise Refused(f"this provider speaks the versions {list(PROTOCOL_VERSIONS)}")
        if hello["id_check"] != description.id_check:
            raise Refused("this is not the encryption key that the repository was made with")
        if self._purpose == "backup" and hello["chunking"] != description.chunking.as_map():
            raise Refused("the repository was made with other chunking parameters")
        codings = [coding for coding in self._codings if coding in hello["codings"]]
        if not codings:
            raise Refused(f"nothing that this peer can encode fits a {self._mode.value} repository")
        body = encode_body(
            version=versions[-1],
            repository=description.repository,
            codings=[int(coding) for coding in codings],
            limits={
                "ids": IDS_MAX,
                "chunk": self._chunk_max(),
                "body": FRAME_BODY_MAX,
                "verify": VERIFY_IDS_MAX,
            },
        )
        self._channel.send(FrameKind.WELCOME, frame.request, body)

    def _answer(self, frame: Frame) -> None:
        if frame.kind is FrameKind.FAIL:
            raise_failure(frame)
        answer = self._answers.get(frame.kind)
        if answer is None:
            raise ProtocolViolation(f"a {frame.kind.name} is not for the repository to answer")
        if frame.kind not in self._allowed:
            raise ContextMismatch(f"a {frame.kind.name} came in a {self._purpose} session")
        try:
            answer(frame)
        except (NotFound, Refused, Busy) as error:
            self._channel.send_failure(frame.request, error)

    def _have(self, frame: Frame) -> None:
        there = self._repository.have(split_ids(frame.body))
        self._channel.send(
            FrameKind.WANT, frame.request, pack_bitmap([not stored for stored in there])
        )

    def _chunk(self, frame: Frame) -> None:
        blob = unpack_chunk(frame.body)
        if blob.coding not in self._codings or len(blob.data) > self._chunk_max():
            raise ProtocolViolation("a CHUNK has a coding or a size that was not agreed")
        if blob.coding == Coding.PLAIN and len(blob.data) != blob.plain_length:
            raise ProtocolViolation("a CHUNK without any coding announces another length")
        if self._plain_on_wire:
            blob = compressed(blob)
        if self._keys is not None and self._mode is EncryptionMode.PROVIDER:
            blob = self._keys.seal_stored("chunk", blob)
        self._reserve(len(blob.data) + ENTRY_SIZE)
        kind: BlobKind = "manifest" if frame.flags & FLAG_MANIFEST else "chunk"
        self._stored(self._repository.add(blob, kind))
        self._chunks_received += 1
        self._bytes_stored += len(blob.data)
        self._bytes_new += len(blob.data) + ENTRY_SIZE

    def _point(self, frame: Frame) -> None:
        if self._references is None:
            self._references = self._repository.begin_references()
        if frame.flags & FLAG_PART:
            self._reserve(len(frame.body))
            self._references.extend(frame.body)
            return
        references, self._references = self._references, None
        try:
            self._publish(frame, references)
        except HeadMoved:
            self._references = references  # for the same POINT, which comes with another head
            raise
        except BaseException:
            references.discard()
            raise

    def _publish(self, frame: Frame, references: ReferenceWriter) -> None:
        body = _fields(
            frame,
            together=("head", "head_signature"),
            record=bytes,
            signature=bytes,
            references=int,
            digest=bytes,
            head=bytes,
            head_signature=bytes,
        )
        head = head_in(body)
        if (body["references"], body["digest"]) != (references.count, references.digest):
            raise DigestMismatch(
                f"the restore point names {body['references']} references, and {references.count} "
                f"came, or others"
            )
        record = PointRecord.decode(body["record"])
        if record.session != self._session:
            raise ContextMismatch("the restore point is of another session")
        if len(self._points) >= POINTS_MAX:
            raise Refused(f"a session publishes at most {POINTS_MAX} restore points")
        self._flush()
        self._on_point(record)
        self._reserve(2 * len(body["record"]))  # it lies in a row and beside it
        arrival, time = self._repository.publish(
            record, body["record"], body["signature"], references, head, self._bytes_new
        )
        self._bytes_new = 0
        self._points.append(record.point)
        answer = encode_body(point=record.point, arrival=arrival, time=time)
        self._channel.send(FrameKind.POINTED, frame.request, answer)

    def _get(self, frame: Frame) -> None:
        ready: list[StoredBlob] = []
        size = 0
        for got in self._repository.read_each(split_ids(frame.body)):
            try:
                blob = self._opened(got)
            except StoredDataDamaged as error:
                self._send(frame.request, ready)
                ready, size = [], 0
                self._channel.send_failure(frame.request, error)
                continue
            ready.append(blob)
            size += len(blob.data)
            if size >= SEND_BYTES:
                self._send(frame.request, ready)
                ready, size = [], 0
        self._send(frame.request, ready)

    def _send(self, request: int, blobs: list[StoredBlob]) -> None:
        if blobs:
            self._channel.send_chunks(request, blobs)
            self._chunks_sent += len(blobs)

    def _opened(self, got: StoredBlob | StoredDataDamaged) -> StoredBlob:
        """What a reader gets: the blob as it was received.

        :raises StoredDataDamaged: it is not there, or not as it was stored
        """
        if isinstance(got, StoredDataDamaged):
            raise got
        if self._keys is not None and self._mode is EncryptionMode.PROVIDER:
            got = self._keys.unseal_stored("chunk", got)
        return plain(got) if self._plain_on_wire else got

    def _verify(self, frame: Frame) -> None:
        """Read blobs and compare them with their digests; nothing of them is sent."""
        size = 0
        damaged: list[bool] = []
        for got in self._repository.read_each(split_ids(frame.body)):
            damaged.append(isinstance(got, StoredDataDamaged))
            if isinstance(got, StoredBlob):
                size += len(got.data)
        body = encode_body(bytes=size, damaged=pack_bitmap(damaged))
        self._channel.send(FrameKind.VERIFIED, frame.request, body)

    def _open(self, frame: Frame) -> None:
        point = _fields(frame, point=bytes)["point"]
        if len(point) != 16:
            raise ProtocolViolation("an OPEN names no restore point")
        stored = self._repository.point(point)
        body = encode_body(record=stored.record, signature=stored.signature, arrival=stored.arrival)
        self._channel.send(FrameKind.OPENED, frame.request, body)

    def _heads(self, frame: Frame) -> None:
        body = _fields(frame, after=int, about=list)
        after, about = body["after"], body["about"]
        numbers = [number for number in (after, *about) if type(number) is int]
        if len(numbers) != len(about) + 1 or len(about) > ABOUT_MAX:
            raise ProtocolViolation("a HEADS does not name numbers, or too many")
        if not all(0 <= number <= NUMBER_MAX for number in numbers):
            raise ProtocolViolation("a HEADS names a number that no head has")
        page = self._repository.heads(after, about)
        answer = encode_body(
            number=page.number,
            chain=page.value,
            entries=[[head.encoded, head.signature] for head in page.heads],
            live=page.live,
            about=[[state.number, state.state, state.by, state.time] for state in page.about],
        )
        self._channel.send(FrameKind.HEADED, frame.request, answer)

    def _flush(self) -> None:
        self._stored(self._repository.flush())

    def _stored(self, ids: list[bytes]) -> None:
        for at in range(0, len(ids), IDS_MAX):
            self._channel.send(FrameKind.STORED, 0, join_ids(ids[at : at + IDS_MAX]))

    def _chunk_max(self) -> int:
        # The provider's seal makes a blob longer.
        return CHUNK_MAX - (OVERHEAD if self._mode is EncryptionMode.PROVIDER else 0)


def _fields(
    frame: Frame, more: bool = False, together: Collection[str] = (), **types: type
) -> dict[str, Any]:
    """The fields of a frame's map, each of exactly its type.

    :param more: whether there may be others
    :param together: fields that may all be left out, which older releases do
    :raises ProtocolViolation: others
    """
    body = decode_body(frame)
    if not body.keys() & set(together):
        types = {name: kind for name, kind in types.items() if name not in together}
    found = {name: type(value) for name, value in body.items() if not more or name in types}
    if found != types:
        raise ProtocolViolation(f"a {frame.kind.name} does not have its fields")
    return body


def _unlimited(count: int) -> None:
    """No quota."""
