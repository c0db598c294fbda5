"""Layer 1: a dialogue of frames over a byte pipe, for one worker thread on each side.

Blocking, without Twisted: the pipe (:class:`cloudconnect.interfaces.IBytePipe`) brings the flow
control. Several threads may send; one thread receives. TOTALS (``docs/protocol.rst``, section 7)
are made and checked here, so that a direction that was cut between two frames is noticed.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from cloudconnect.errors import (
    CloudConnectError,
    FrameMismatch,
    PeerError,
    ProtocolViolation,
    Refused,
    Truncated,
    error_classes,
)
from cloudconnect.interfaces import IBytePipe
from cloudconnect.wire.frames import (
    FLAG_MANIFEST,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    StoredBlob,
    decode_body,
    encode_body,
)

#: Longest text of a FAIL, in characters: a sentence or two for a person.
FAIL_TEXT_MAX: Final = 1000
#: Bytes of a peer that are dropped after this side gave up: more than pipes and sockets hold.
DROPPED_MAX: Final = 64 << 20
#: What a peer is told of an error that has no name: nothing of ours leaks into it.
UNEXPECTED_TEXT: Final = "an internal error; the log of that side has the details"


class FrameChannel:
    """Sends and receives frames.

    :param pipe: the bytes below; the channel is the only one to use it
    :param writer: makes the frames of this side's direction
    :param reader: verifies those of the peer's
    :param ending: called once, in a thread that sends, when nothing but the two ends is due any
        more: what else belongs to the session may be ended beside them
    """

    def __init__(
        self,
        pipe: IBytePipe,
        writer: FrameWriter,
        reader: FrameReader,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        self._pipe = pipe
        self._writer = writer
        self._reader = reader
        self._sending = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._totals_seen = False
        self._ending = ending

    @property
    def bytes_sent(self) -> int:
        """Bytes of the frames sent, headers and tags included."""
        return self._writer.bytes

    @property
    def bytes_received(self) -> int:
        """Bytes of the frames received and verified, headers and tags included."""
        return self._reader.bytes

    def send(
        self, kind: FrameKind, request: int, body: bytes | memoryview = b"", flags: int = 0
    ) -> None:
        """Send one frame; blocks while the pipe is full.

        :param kind: what it is
        :param request: number of the request that this belongs to, or 0 for the whole dialogue
        :param body: of a length that the kind allows
        :param flags: 0, or what the kind allows
        :raises ValueError: the protocol does not allow such a frame
        :raises CloudConnectError: the pipe has ended
        """
        with self._sending:
            self._pipe.write(*self._writer.encode(kind, request, body, flags))

    def send_chunk(self, request: int, blob: StoredBlob, manifest: bool = False) -> bool:
        """Send ``blob`` as a CHUNK; its data is not copied and must not change afterwards.

        :param request: number of the request that this belongs to
        :param manifest: whether it is a chunk of a manifest, which are stored apart
        :return: whether the pipe was full, and it had to wait
        :raises ValueError: a field of ``blob`` has the wrong size
        :raises CloudConnectError: the pipe has ended
        """
        return self.send_chunks(request, (blob,), manifest)

    def send_chunks(
        self, request: int, blobs: Iterable[StoredBlob], manifest: bool = False
    ) -> bool:
        """Send ``blobs`` as CHUNKs, all of them at once: each write wakes the pipe's other side.

        :param request: number of the request that they belong to
        :param blobs: their data is not copied and must not change afterwards
        :param manifest: whether they are chunks of a manifest
        :return: whether the pipe was full, and they had to wait
        :raises ValueError: a field of a blob has the wrong size
        :raises CloudConnectError: the pipe has ended
        """
        flags = FLAG_MANIFEST if manifest else 0
        parts: list[bytes | memoryview] = []
        behind = b""  # what stands between the data of two chunks goes as one part
        with self._sending:
            for blob in blobs:
                header, prefix, data, tag = self._writer.encode_chunk(request, blob, flags)
                parts += (b"".join((behind, header, prefix)), data)
                behind = bytes(tag)
            full: bool = self._pipe.write(*parts, behind)
        return full

    def send_failure(self, request: int, error: Exception) -> None:
        """Tell the peer that ``request`` failed (0: the whole dialogue).

        An error that is not a :class:`CloudConnectError` goes out without its text.

        :param error: its ``reason`` and text go out
        :raises CloudConnectError: the pipe has ended
        """
        if isinstance(error, CloudConnectError):
            text = str(error)[:FAIL_TEXT_MAX].encode(errors="replace").decode()
            reason = error.reason
        else:
            reason, text = CloudConnectError.reason, UNEXPECTED_TEXT
        self.send(FrameKind.FAIL, request, encode_body(reason=reason, text=text))

    def receive(self) -> Frame:
        """The next frame, FAIL and TOTALS included; blocks until there is one.

        TOTALS has then been compared with what came before it.

        :raises FrameMismatch: a tag, digest, header or total is wrong
        :raises ProtocolViolation: a frame after TOTALS, or TOTALS that cannot be read
        :raises Truncated: the stream ended without TOTALS
        :raises CloudConnectError: the pipe ended in another way
        """
        frame = self._next()
        if frame is None:
            raise Truncated("the frames ended without totals")
        if self._totals_seen:
            raise ProtocolViolation(f"a {frame.kind.name} came after the totals")
        if frame.kind is FrameKind.TOTALS:
            self._check_totals(frame)
        return frame

    def finish(self, last: bool = False) -> None:
        """Send TOTALS and end this direction; nothing can be sent afterwards.

        :param last: the peer owes nothing but its end either
        :raises CloudConnectError: the pipe has ended
        """
        with self._sending:
            body = encode_body(bytes=self._writer.bytes, frames=self._writer.frames)
            self._pipe.write(*self._writer.encode(FrameKind.TOTALS, 0, body))
            self._pipe.finish()
        if last:
            self._ending()

    def end(self) -> None:
        """:meth:`finish`, where the peer owes nothing but its end, and :meth:`expect_end`.

        :raises CloudConnectError: as these say
        """
        self.finish(last=True)
        self.expect_end()

    def expect_end(self) -> None:
        """Wait for the peer's TOTALS, unless they were received already, and for the end.

        :raises ProtocolViolation: another frame came
        :raises CloudConnectError: the frame is a FAIL (that error), or as :meth:`receive`
        """
        if not self._totals_seen:
            frame = self.receive()
            if frame.kind is FrameKind.FAIL:
                raise_failure(frame)
            if frame.kind is not FrameKind.TOTALS:
                raise ProtocolViolation(f"a {frame.kind.name} came where the end was due")
        late = self._next()
        if late is not None:
            raise ProtocolViolation(f"a {late.kind.name} came after the totals")

    def give_up(self, error: Exception) -> None:
        """Tell the peer that the whole dialogue failed, end this direction, and wait for its end.

        What the peer still sends is not looked at, so that it comes to reading what failed: it
        might otherwise be stuck in sending. After this only :meth:`abort` is of use. Errors of the
        pipe, which may be what failed, are swallowed.

        :param error: goes out as by :meth:`send_failure`
        """
        with contextlib.suppress(CloudConnectError, OSError):
            self.send_failure(0, error)
            self.finish()
            dropped = 0
            while dropped < DROPPED_MAX and (data := self._pipe.read()):
                dropped += len(data)

    def abort(self, reason: Exception) -> None:
        """End both directions at once; ``reason`` is what later calls raise."""
        self._pipe.abort(reason)

    def _next(self) -> Frame | None:
        """The next frame, or None at the authenticated end."""
        while not self._frames:
            if self._reader.error is not None:
                raise self._reader.error
            data = self._pipe.read()
            if not data:
                self._reader.eof()
                return None
            self._frames.extend(self._reader.receive(data))
        return self._frames.popleft()

    def _check_totals(self, frame: Frame) -> None:
        body = decode_body(frame)
        if set(body) != {"bytes", "frames"}:
            raise ProtocolViolation("TOTALS has other fields than bytes and frames")
        # TOTALS is the last frame, so the reader has verified nothing behind it but a violation.
        behind_frames = len(self._frames) + 1
        behind_bytes = sum(later.size for later in self._frames) + frame.size
        counted = (self._reader.bytes - behind_bytes, self._reader.frames - behind_frames)
        if (body["bytes"], body["frames"]) != counted:
            raise FrameMismatch(
                f"the peer sent {body['frames']} frames of {body['bytes']} bytes, "
                f"{counted[1]} of {counted[0]} came"
            )
        self._totals_seen = True


def failure(frame: Frame) -> CloudConnectError:
    """The error that a FAIL reports, as the class of that reason.

    What is wrong on the peer's own side, and a reason that is unknown here, becomes
    :class:`Refused`: a peer cannot make this side report an error of its own.

    :param frame: a FAIL that was received
    :raises ProtocolViolation: not a FAIL with a reason and a text
    """
    body = decode_body(frame)
    reason, text = body.get("reason"), body.get("text")
    if not isinstance(reason, str) or not isinstance(text, str) or len(body) != 2:
        raise ProtocolViolation("a FAIL has other fields than reason and text")
    text = text[:FAIL_TEXT_MAX]
    cls = error_classes().get(reason, Refused)
    return cls(text) if issubclass(cls, PeerError) else Refused(text)


def raise_failure(frame: Frame) -> NoReturn:
    """Raise what :func:`failure` returns.

    :param frame: a FAIL that was received
    :raises CloudConnectError: always
    """
    raise failure(frame)
