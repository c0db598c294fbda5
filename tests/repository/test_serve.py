"""Tests for cloudconnect.repository.serve: the dialogue, over pipes in memory."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from blake3 import blake3

from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.compression import compress
from cloudconnect.content.heads import Chain, SignedHead, first_chain
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    DigestMismatch,
    FrameMismatch,
    HeadMoved,
    NoSpace,
    NotFound,
    ProtocolViolation,
    Refused,
    StoredDataDamaged,
    Truncated,
)
from cloudconnect.keys import MasterKey, Subkey
from cloudconnect.repository import packs, serve
from cloudconnect.repository.packs import ENTRY_SIZE
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.serve import ServeResult, serve_session
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import repository_table
from cloudconnect.settings import CHUNK_MAX, FRAME_BODY_MAX, IDS_MAX, VERIFY_IDS_MAX
from cloudconnect.testing import PipePair
from cloudconnect.wire.channel import FrameChannel, failure
from cloudconnect.wire.frames import (
    FLAG_PART,
    SEALED,
    Coding,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    StoredBlob,
    decode_body,
    encode_body,
    join_ids,
    pack_chunk,
    split_ids,
    unpack_bitmap,
    unpack_chunk,
)
from tests.repository.repositories import (
    DESCRIBED,
    MASTER,
    REPOSITORY,
    SESSION,
    RepositoryCase,
    blob,
    flip,
    keys,
    name_of,
    record,
)

BOTH = ("write", "read")


class Served:
    """A dialogue: the repository's side in a thread, the mover's side in the test."""

    def __init__(self, repository: Repository, purpose: str = "backup", **options: Any) -> None:
        self.pipes = PipePair(1 << 20)
        there, back = Subkey(b"t" * 32), Subkey(b"b" * 32)
        self.writer = FrameWriter(there, 0)
        self.mover = FrameChannel(self.pipes.left, self.writer, FrameReader(back, 0))
        channel = FrameChannel(self.pipes.right, FrameWriter(back, 0), FrameReader(there, 0))
        self.checked: list[PointRecord] = []
        arguments: dict[str, Any] = {
            "purpose": purpose,
            "capabilities": BOTH,
            "session": SESSION,
            "on_point": self.checked.append,
            **options,
        }
        self._outcome: list[ServeResult | BaseException] = []

        def work() -> None:
            try:
                self._outcome.append(serve_session(channel, repository, **arguments))
            except BaseException as error:
                self._outcome.append(error)

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def outcome(self) -> ServeResult | BaseException:
        """What the call returned or raised."""
        self._thread.join(60)
        return self._outcome[0]

    def hello(self, **changes: Any) -> None:
        fields = {
            "versions": [1],
            "id_check": DESCRIBED.id_check,
            "codings": [0, 1, 16, 17],
            "chunking": DESCRIBED.chunking.as_map(),
            "purpose": "backup",
            **changes,
        }
        self.mover.send(FrameKind.HELLO, 1, encode_body(**fields))

    def ask(self, kind: FrameKind, request: int, body: bytes, flags: int = 0) -> Frame:
        """Send a frame and return the next that comes."""
        self.mover.send(kind, request, body, flags)
        return self.mover.receive()

    def point(self, made: PointRecord, request: int = 9, **changes: Any) -> None:
        """Send a POINT without references, or with what ``changes`` says of them."""
        encoded = made.encode()
        fields = {
            "record": encoded,
            "signature": keys(made.mode).sign(encoded),
            "references": 0,
            "digest": hashlib.sha256().digest(),
            **changes,
        }
        self.mover.send(FrameKind.POINT, request, encode_body(**fields))

    def end(self) -> ServeResult:
        """End properly and return what the call returned."""
        self.mover.finish()
        self.mover.expect_end()
        result = self.outcome()
        assert isinstance(result, ServeResult), result
        return result


class ServeCase(RepositoryCase):
    """A repository that is served."""

    def setUp(self) -> None:
        super().setUp()
        self.repository = self.created()

    def served(self, purpose: str = "backup", greet: bool = True, **options: Any) -> Served:
        served = Served(self.repository, purpose, **options)
        self.addCleanup(served.pipes.left.abort, Truncated("the test is over"))
        if greet:
            served.hello(purpose=purpose)
            self.assertEqual(served.mover.receive().kind, FrameKind.WELCOME)
        return served

    def ended_by(self, served: Served, expected: type[BaseException]) -> CloudConnectError:
        """The dialogue has ended with this error there, and says so here; that error here."""
        frame = served.mover.receive()
        while frame.kind is not FrameKind.FAIL:
            frame = served.mover.receive()
        self.assertEqual(frame.request, 0)
        served.mover.expect_end()
        served.pipes.left.finish()
        self.assertIsInstance(served.outcome(), expected)
        return failure(frame)

    def failed(self, frame: Frame, request: int, expected: type[CloudConnectError]) -> str:
        """``frame`` says that this request failed in this way; its text."""
        self.assertEqual((frame.kind, frame.request), (FrameKind.FAIL, request))
        error = failure(frame)
        self.assertIs(type(error), expected)
        return str(error)

    def stored(self, *numbers: int) -> None:
        for number in numbers:
            self.repository.add(blob(number))
        self.repository.flush()


class GreetingTests(ServeCase):
    """HELLO and WELCOME."""

    def test_welcome(self) -> None:
        """The answer says which repository it is, what it takes, and how much at a time."""
        served = self.served(greet=False)
        served.hello()
        frame = served.mover.receive()
        self.assertEqual((frame.kind, frame.request), (FrameKind.WELCOME, 1))
        expected = {
            "version": 1,
            "repository": REPOSITORY,
            "codings": [16, 17],
            "limits": {
                "ids": IDS_MAX,
                "chunk": CHUNK_MAX,
                "body": FRAME_BODY_MAX,
                "verify": VERIFY_IDS_MAX,
            },
        }
        self.assertEqual(decode_body(frame), expected)
        result = served.end()
        self.assertEqual((result.points, result.chunks_received, result.chunks_sent), ((), 0, 0))
        self.assertEqual(result.bytes_received, served.mover.bytes_sent)
        self.assertEqual(result.bytes_sent, served.mover.bytes_received)

    def test_newer_peer(self) -> None:
        """A peer that speaks more versions and says more is answered in the highest common one."""
        served = self.served(greet=False)
        served.hello(versions=[1, 2, 3], more="unknown")
        self.assertEqual(decode_body(served.mover.receive())["version"], 1)
        served.end()

    def test_refused(self) -> None:
        """No common version, coding, key or cut: refused, in words."""
        for changes in (
            {"versions": [2]},
            {"versions": []},
            {"codings": [0, 1]},
            {"id_check": bytes(8)},
            {"chunking": {**DESCRIBED.chunking.as_map(), "average": 1}},
        ):
            with self.subTest(changes=changes):
                served = self.served(greet=False)
                served.hello(**changes)
                self.assertIs(type(self.ended_by(served, Refused)), Refused)

    def test_chunking_of_a_reader(self) -> None:
        """Only who stores needs to cut as the repository does."""
        served = self.served("restore", greet=False)
        served.hello(purpose="restore", chunking={})
        self.assertEqual(served.mover.receive().kind, FrameKind.WELCOME)
        served.end()

    def test_other_purpose(self) -> None:
        """A peer that says another purpose than was agreed is a security matter."""
        served = self.served("restore", greet=False)
        served.hello(purpose="backup")
        self.assertIs(type(self.ended_by(served, ContextMismatch)), ContextMismatch)

    def test_bad_hello(self) -> None:
        """Something else first, or other fields, is a violation."""
        served = self.served(greet=False)
        served.mover.send(FrameKind.GET, 1, bytes(32))
        self.assertIsInstance(self.ended_by(served, ProtocolViolation), ProtocolViolation)
        for changes in ({"versions": 1}, {"id_check": "x"}, {"purpose": b"backup"}):
            served = self.served(greet=False)
            served.hello(**changes)
            self.ended_by(served, ProtocolViolation)

    def test_hello_twice(self) -> None:
        """A second HELLO is a violation."""
        served = self.served()
        served.hello()
        self.ended_by(served, ProtocolViolation)


class StoringTests(ServeCase):
    """HAVE, CHUNK and POINT."""

    def test_backup(self) -> None:
        """A whole backup: asked, wanted, sent, acknowledged, published, and there afterwards."""
        self.stored(0, 1)
        served = self.served()
        ids = [name_of(number) for number in range(5)]
        want = served.ask(FrameKind.HAVE, 2, join_ids(ids))
        self.assertEqual((want.kind, want.request), (FrameKind.WANT, 2))
        self.assertEqual(unpack_bitmap(want.body, 5), [False, False, True, True, True])
        for number in (2, 3):
            served.mover.send_chunk(0, blob(number))
        served.mover.send_chunk(0, blob(4), manifest=True)
        references = join_ids(ids[:4])
        served.mover.send(FrameKind.POINT, 9, references[:32], FLAG_PART)
        served.mover.send(FrameKind.POINT, 9, references[32:], FLAG_PART)
        made = record(b"p" * 16, manifest=(ids[4],))
        served.point(made, references=4, digest=hashlib.sha256(references).digest())
        stored = served.mover.receive()
        self.assertEqual((stored.kind, stored.request), (FrameKind.STORED, 0))
        self.assertEqual(set(split_ids(stored.body)), set(ids[2:]))
        pointed = served.mover.receive()
        self.assertEqual((pointed.kind, pointed.request), (FrameKind.POINTED, 9))
        expected = {"point": b"p" * 16, "arrival": 1, "time": 1000.0}
        self.assertEqual(decode_body(pointed), expected)
        result = served.end()
        self.assertEqual(result.points, (b"p" * 16,))
        self.assertEqual((result.chunks_received, result.bytes_stored), (3, 300))
        self.assertEqual(served.checked, [made])
        repository = self.opened()
        point = repository.point(b"p" * 16)
        self.assertEqual(list(repository.references(point)), [ids[:4]])
        self.assertEqual(list(repository.read(ids)), [blob(number) for number in range(5)])
        kind = repository.catalogue.locate([ids[4]])[ids[4]][1].kind
        self.assertEqual(kind, 1)

    def test_acknowledged_when_durable(self) -> None:
        """Each STORED names ids that another session can read at that moment."""
        self.patch(packs, "PACK_ENTRIES_MAX", 2)
        served = self.served()
        for number in range(9):
            served.mover.send_chunk(0, blob(number))
        served.mover.finish()
        other = self.opened()
        stored: list[bytes] = []
        while len(stored) < 9:
            ids = split_ids(served.mover.receive().body)
            first = len(stored)
            there = [blob(number) for number in range(first, first + len(ids))]
            self.assertEqual(list(other.read(ids)), there)
            stored += ids
        self.assertEqual(stored, [name_of(number) for number in range(9)])
        served.mover.expect_end()

    def test_flushed_at_the_end(self) -> None:
        """What was sent is durable at the end, without a point too."""
        served = self.served()
        served.mover.send_chunk(0, blob(1))
        served.mover.finish()
        self.assertEqual(split_ids(served.mover.receive().body), [name_of(1)])
        served.mover.expect_end()
        self.assertEqual(self.opened().have([name_of(1)]), [True])

    def test_many_ids_at_once(self) -> None:
        """More ids than a STORED can name go out in several."""
        self.patch(serve, "IDS_MAX", 2)
        served = self.served()
        for number in range(5):
            served.mover.send_chunk(0, blob(number))
        served.mover.finish()
        sizes = [len(split_ids(served.mover.receive().body)) for _ in range(3)]
        self.assertEqual(sizes, [2, 2, 1])
        served.mover.expect_end()

    def test_not_sealed(self) -> None:
        """In tenant mode nothing is taken that is not sealed; nothing of it is stored."""
        for coding in (Coding.PLAIN, Coding.ZSTD):
            served = self.served()
            good = blob(1)
            served.mover.send_chunk(0, StoredBlob(good.id, 100, coding, good.digest, good.data))
            self.ended_by(served, ProtocolViolation)
            self.assertEqual(self.repository.statistics()["blobs"], 0)

    def test_refused_points(self) -> None:
        """A point that is refused leaves the dialogue usable, and nothing behind."""
        served = self.served()
        served.point(record(b"p" * 16, manifest=(name_of(1),)))
        self.assertIn(name_of(1).hex(), self.failed(served.mover.receive(), 9, Refused))
        served.point(record(b"p" * 16), request=10, signature=bytes(64))
        self.failed(served.mover.receive(), 10, Refused)
        self.assertEqual(self.repository.points(), [])
        served.point(record(b"p" * 16), request=11)
        self.assertEqual(served.mover.receive().kind, FrameKind.POINTED)
        self.assertEqual(served.end().points, (b"p" * 16,))

    def test_unwanted_point(self) -> None:
        """Who called is asked before a point is published, and can refuse it."""

        def refuse(made: PointRecord) -> None:
            raise ContextMismatch(f"not of host {made.host}")

        served = self.served(on_point=refuse)
        served.point(record(b"p" * 16))
        self.assertIsInstance(self.ended_by(served, ContextMismatch), ContextMismatch)
        self.assertEqual(self.repository.points(), [])

    def test_other_session(self) -> None:
        """A point of another session is a security matter."""
        served = self.served(session=b"o" * 16)
        served.point(record(b"p" * 16))
        self.ended_by(served, ContextMismatch)
        self.assertEqual(self.repository.points(), [])

    def test_wrong_references(self) -> None:
        """References that are not those that the POINT names end the session."""
        self.stored(1, 2)
        for part, count, digest in (
            (name_of(1), 2, hashlib.sha256(name_of(1)).digest()),
            (name_of(1), 1, hashlib.sha256(name_of(2)).digest()),
            (b"", 1, hashlib.sha256().digest()),
        ):
            served = self.served()
            if part:
                served.mover.send(FrameKind.POINT, 9, part, FLAG_PART)
            served.point(record(b"p" * 16), references=count, digest=digest)
            self.assertIsInstance(self.ended_by(served, DigestMismatch), DigestMismatch)
            self.assertEqual(self.repository.points(), [])

    def test_bad_point(self) -> None:
        """A POINT with other fields, or whose record cannot be read, is a violation."""
        for changes in ({"signature": "x"}, {"more": 1}, {"record": b"\xa0"}):
            served = self.served()
            served.point(record(b"p" * 16), **changes)
            self.ended_by(served, ProtocolViolation)

    def test_too_many_points(self) -> None:
        """The number of points of one session is bounded."""
        self.patch(serve, "POINTS_MAX", 1)
        served = self.served()
        served.point(record(b"p" * 16))
        self.assertEqual(served.mover.receive().kind, FrameKind.POINTED)
        served.point(record(b"q" * 16))
        self.failed(served.mover.receive(), 9, Refused)
        self.assertEqual(served.end().points, (b"p" * 16,))

    def test_quota(self) -> None:
        """Room is reserved before anything is stored; without room the session ends.

        What was stored by then stays, and need not be sent again.
        """
        reserved: list[int] = []

        def reserve(count: int) -> None:
            if len(reserved) == 2:
                raise NoSpace("the quota of 1 GB is used up")
            reserved.append(count)

        served = self.served(reserve=reserve)
        for number in range(3):
            served.mover.send_chunk(0, blob(number))
        error = self.ended_by(served, NoSpace)
        self.assertIn("quota of 1 GB", str(error))
        self.assertEqual(reserved, [100 + ENTRY_SIZE] * 2)
        there = self.opened().have([name_of(number) for number in range(3)])
        self.assertEqual(there, [True, True, False])

    def test_bin_full(self) -> None:
        """With a full bin there is no backup, and everything else."""
        self.repository.set_rules(Rules(bin_bytes=1))
        self.published(self.repository, b"p" * 16, 0)
        self.repository.check_bin_room()
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(repository_table).values(measured={"bin": 1, "time": 0}))
        served = self.served(greet=False)
        self.assertIn("bin is full", str(self.ended_by(served, NoSpace)))
        for purpose in ("restore", "read", "check"):
            served = self.served(purpose)
            frame = served.ask(FrameKind.OPEN, 3, encode_body(point=b"p" * 16))
            self.assertEqual(frame.kind, FrameKind.OPENED)
            served.end()

    def test_bytes_stored(self) -> None:
        """Each point knows what its session added to packs since the one before."""
        served = self.served()
        for number in range(3):
            served.mover.send_chunk(0, blob(number))
        for point in (b"p" * 16, b"q" * 16):
            served.point(record(point))
            while served.mover.receive().kind is not FrameKind.POINTED:
                pass
        served.end()
        self.assertEqual(self.repository.point(b"p" * 16).bytes_stored, 3 * (100 + ENTRY_SIZE))
        self.assertEqual(self.repository.point(b"q" * 16).bytes_stored, 0)

    def test_disk_full(self) -> None:
        """A full disk is reported as such."""

        def full(*_: Any) -> None:
            raise NoSpace("the provider's disk is full")

        self.patch(self.repository.store, "begin", full)
        served = self.served()
        served.mover.send_chunk(0, blob(1))
        self.assertIsInstance(self.ended_by(served, NoSpace), NoSpace)


class ReadingTests(ServeCase):
    """GET and OPEN."""

    def test_get(self) -> None:
        """Chunks come in the order asked, as often as asked."""
        self.stored(1, 2, 3)
        served = self.served("restore")
        served.mover.send(FrameKind.GET, 5, join_ids(map(name_of, (3, 1, 3))))
        frames = [served.mover.receive() for _ in range(3)]
        self.assertEqual({frame.request for frame in frames}, {5})
        got = [unpack_chunk(frame.body) for frame in frames]
        self.assertEqual(got, [blob(3), blob(1), blob(3)])
        self.assertEqual(served.end().chunks_sent, 3)

    def test_damaged(self) -> None:
        """In the place of a damaged or missing chunk comes a FAIL, and the rest comes too."""
        self.stored(1, 2, 3)
        name, entry = self.repository.catalogue.locate([name_of(2)])[name_of(2)]
        flip(self.directory / name, entry.offset)
        served = self.served("restore")
        served.mover.send(FrameKind.GET, 5, join_ids(map(name_of, (1, 2, 77, 3))))
        frames = [served.mover.receive() for _ in range(4)]
        kinds = [frame.kind for frame in frames]
        chunk, fail = FrameKind.CHUNK, FrameKind.FAIL
        self.assertEqual(kinds, [chunk, fail, fail, chunk])
        self.assertIn(name_of(2).hex(), self.failed(frames[1], 5, StoredDataDamaged))
        self.assertIn(name_of(77).hex(), self.failed(frames[2], 5, StoredDataDamaged))
        self.assertEqual(unpack_chunk(frames[3].body), blob(3))
        served.end()

    def test_open(self) -> None:
        """A point is opened by its id."""
        self.published(self.repository, b"p" * 16, 0)
        served = self.served("read")
        frame = served.ask(FrameKind.OPEN, 3, encode_body(point=b"p" * 16))
        self.assertEqual((frame.kind, frame.request), (FrameKind.OPENED, 3))
        encoded = record(b"p" * 16).encode()
        expected = {"record": encoded, "signature": keys().sign(encoded), "arrival": 1}
        self.assertEqual(decode_body(frame), expected)
        missing = served.ask(FrameKind.OPEN, 4, encode_body(point=b"q" * 16))
        self.failed(missing, 4, NotFound)
        served.end()

    def test_open_deleted(self) -> None:
        """A point in the bin is opened too."""
        self.published(self.repository, b"p" * 16, 0)
        self.repository.delete([b"p" * 16])
        served = self.served("restore")
        frame = served.ask(FrameKind.OPEN, 3, encode_body(point=b"p" * 16))
        self.assertEqual(decode_body(frame)["record"], record(b"p" * 16).encode())
        served.end()

    def test_bad_open(self) -> None:
        """Half an id opens nothing: prefixes are for listings."""
        self.published(self.repository, b"p" * 16, 0)
        for body in ({"point": b"p"}, {"point": "70"}, {}):
            served = self.served("read")
            served.mover.send(FrameKind.OPEN, 3, encode_body(**body))
            self.ended_by(served, ProtocolViolation)

    def test_check(self) -> None:
        """A check may ask what is there."""
        self.stored(1)
        served = self.served("check")
        want = served.ask(FrameKind.HAVE, 2, join_ids(map(name_of, (1, 2))))
        self.assertEqual(unpack_bitmap(want.body, 2), [False, True])
        served.end()

    def test_verify(self) -> None:
        """In a check blobs are read and compared where they lie: what is damaged or missing is
        told, none of it is sent, and the next backup sends the damaged one again."""
        self.stored(1, 2, 3)
        self.repository.flush()
        name, entry = self.repository.catalogue.locate([name_of(2)])[name_of(2)]
        flip(self.directory / name, entry.offset)
        served = self.served("check")
        names = list(map(name_of, (1, 2, 77, 3)))
        frame = served.ask(FrameKind.VERIFY, 5, join_ids(names))
        self.assertEqual((frame.kind, frame.request), (FrameKind.VERIFIED, 5))
        body = decode_body(frame)
        self.assertEqual(unpack_bitmap(body["damaged"], 4), [False, True, True, False])
        self.assertEqual(body["bytes"], len(blob(1).data) + len(blob(3).data))
        self.assertEqual(served.end().chunks_sent, 0)
        self.assertEqual(self.opened().have(names), [True, False, False, True])


class HeadsTests(ServeCase):
    """HEADS, and POINT with a head."""

    def setUp(self) -> None:
        super().setUp()
        self.chain = first_chain(keys())

    def ask(self, served: Served, after: Any = 0, about: Any = ()) -> dict[str, Any]:
        body = encode_body(after=after, about=list(about))
        frame = served.ask(FrameKind.HEADS, 5, body)
        self.assertEqual((frame.kind, frame.request), (FrameKind.HEADED, 5))
        return decode_body(frame)

    def with_head(self, made: PointRecord, chain: Chain | None = None) -> dict[str, bytes]:
        """What a POINT says of a head that continues ``chain``."""
        head = (chain or self.chain).next_point(keys(), made.point, made.encode())
        self.chain = self.chain.follow(head) if chain is None else self.chain
        return {"head": head.encoded, "head_signature": head.signature}

    def test_published(self) -> None:
        """Heads come with points, and are handed out with their points' states, in every kind of
        session, whatever the credential may."""
        served = self.served()
        none = {"number": 0, "chain": bytes(32), "entries": [], "live": b"", "about": []}
        self.assertEqual(self.ask(served), none)
        sent = []
        for number in range(3):
            made = record(bytes([number]) * 16)
            sent.append(self.with_head(made))
            served.point(made, **sent[-1])
            self.assertEqual(served.mover.receive().kind, FrameKind.POINTED)
        served.end()
        self.repository.withdraw([bytes([1]) * 16])
        expected = {
            "number": 3,
            "chain": self.chain.value,
            "entries": [[fields["head"], fields["head_signature"]] for fields in sent],
            "live": b"\5",
            "about": [[2, "withdrawn", "", 1000.0], [7, "missing", "", 0.0]],
        }
        for purpose in ("backup", "restore", "read", "check"):
            served = self.served(purpose, capabilities=())
            self.assertEqual(self.ask(served, about=[2, 7]), expected)
            after = {**expected, "entries": expected["entries"][2:], "about": []}
            self.assertEqual(self.ask(served, after=2), after)
            served.end()

    def test_moved(self) -> None:
        """Where another session was faster the same POINT comes again with another head; its
        references need not."""
        self.stored(1, 2)
        served = self.served()
        stale = self.with_head(record(b"p" * 16), self.chain)
        other = record(b"o" * 16)
        fields = self.with_head(other)
        head = SignedHead(fields["head"], fields["head_signature"])
        encoded = other.encode()
        self.repository.publish(other, encoded, keys().sign(encoded), [], head)
        references = join_ids(map(name_of, (1, 2)))
        told = {"references": 2, "digest": hashlib.sha256(references).digest()}
        made = record(b"p" * 16)
        served.mover.send(FrameKind.POINT, 9, references, FLAG_PART)
        served.point(made, 9, **stale, **told)
        self.failed(served.mover.receive(), 9, HeadMoved)
        served.point(made, 10, **stale, **told)
        self.failed(served.mover.receive(), 10, HeadMoved)
        served.point(made, 11, **self.with_head(made), **told)
        self.assertEqual(served.mover.receive().kind, FrameKind.POINTED)
        self.assertEqual(served.end().points, (b"p" * 16,))
        point = self.opened().point(b"p" * 16)
        self.assertEqual(list(self.repository.references(point)), [[name_of(1), name_of(2)]])
        self.assertEqual(self.files("temporary"), [])

    def test_given_up(self) -> None:
        """References that are waiting for another head go with the session."""
        served = self.served()
        made = record(b"p" * 16)
        encoded = made.encode()
        other = Chain(repository=REPOSITORY, key=keys().public_key, number=4, value=bytes([1]) * 32)
        served.point(made, **self.with_head(made, other))
        self.failed(served.mover.receive(), 9, HeadMoved)
        served.end()
        self.repository.close()
        self.assertEqual(self.files("temporary"), [])
        self.assertGreater(len(encoded), 0)

    def test_bad_head(self) -> None:
        """A head that is not of this point is refused, and the dialogue goes on."""
        served = self.served()
        made = record(b"p" * 16)
        served.point(made, **self.with_head(record(b"o" * 16), self.chain))
        self.failed(served.mover.receive(), 9, Refused)
        served.point(made, 10, **self.with_head(made))
        self.assertEqual(served.mover.receive().kind, FrameKind.POINTED)
        served.end()

    def test_violations(self) -> None:
        """Half a head, and questions that name no numbers or too many, end the session."""
        for body in (
            {"after": 0},
            {"after": -1, "about": []},
            {"after": True, "about": []},
            {"after": 1 << 53, "about": []},
            {"after": 0, "about": [1.5]},
            {"after": 0, "about": [True]},
            {"after": 0, "about": [1] * 257},
            {"after": 0, "about": {}},
            {"after": 0, "about": [], "more": 1},
        ):
            served = self.served("read")
            served.mover.send(FrameKind.HEADS, 5, encode_body(**body))
            self.ended_by(served, ProtocolViolation)
        for changes in ({"head": b""}, {"head_signature": b""}, {"head": 1, "head_signature": b""}):
            served = self.served()
            served.point(record(b"p" * 16), **changes)
            self.ended_by(served, ProtocolViolation)


class PurposeTests(ServeCase):
    """A session does what it was started for, and nothing else."""

    WRITING = frozenset((FrameKind.CHUNK, FrameKind.POINT))
    FRAMES: tuple[tuple[FrameKind, bytes], ...] = (
        (FrameKind.HEADS, encode_body(after=0, about=[])),
        (FrameKind.HAVE, bytes(32)),
        (FrameKind.GET, bytes(32)),
        (FrameKind.VERIFY, bytes(32)),
        (FrameKind.OPEN, encode_body(point=bytes(16))),
        (FrameKind.POINT, encode_body(record=b"")),
    )

    def sends(self, kind: FrameKind, body: bytes) -> Callable[[Served], None]:
        return lambda served: served.mover.send(kind, 3, body)

    def attempts(self) -> dict[FrameKind, Callable[[Served], None]]:
        attempts = {kind: self.sends(kind, body) for kind, body in self.FRAMES}
        return {**attempts, FrameKind.CHUNK: lambda served: served.mover.send_chunk(3, blob(1))}

    def check(self, purpose: str, refused: Collection[FrameKind], **options: Any) -> None:
        for kind, attempt in self.attempts().items():
            served = self.served(purpose, **options)
            attempt(served)
            if kind in refused:
                error = self.ended_by(served, ContextMismatch)
                self.assertIn(kind.name, str(error))
            else:
                served.mover.finish()
                while (frame := served.mover.receive()).kind is not FrameKind.TOTALS:
                    if frame.kind is FrameKind.FAIL:
                        self.assertNotIsInstance(failure(frame), ContextMismatch)
        self.assertEqual(self.repository.points(), [])

    def test_restore(self) -> None:
        """A restore stores nothing and asks for nothing but what it reads."""
        self.check("restore", {FrameKind.HAVE, FrameKind.VERIFY, *self.WRITING})
        self.check("read", {FrameKind.HAVE, FrameKind.VERIFY, *self.WRITING})
        self.assertEqual(self.repository.statistics()["blobs"], 0)

    def test_check(self) -> None:
        """A check stores nothing."""
        self.check("check", self.WRITING)

    def test_backup(self) -> None:
        """A backup may read, for the point before it."""
        self.check("backup", {FrameKind.VERIFY})

    def test_capabilities(self) -> None:
        """A credential that cannot read does not read, one that cannot write does not write."""
        reading, writing = {FrameKind.GET, FrameKind.OPEN, FrameKind.VERIFY}, self.WRITING
        self.check("backup", reading, capabilities=("write",))
        self.check("backup", writing | {FrameKind.VERIFY}, capabilities=("read",))
        self.check("check", reading | writing, capabilities=("write",))
        self.check("restore", reading | writing | {FrameKind.HAVE}, capabilities=())

    def test_unknown_purpose(self) -> None:
        """What a newer service may call a purpose is allowed nothing."""
        self.check("mount", set(self.attempts()))

    def test_answers(self) -> None:
        """What only a repository says is a violation from a mover."""
        for kind in (FrameKind.WANT, FrameKind.STORED, FrameKind.POINTED, FrameKind.OPENED):
            served = self.served()
            served.mover.send(kind, 3, bytes(32))
            self.ended_by(served, ProtocolViolation)


class EndTests(ServeCase):
    """However a dialogue ends, both sides know, and what was durable stays."""

    def test_line_broke(self) -> None:
        """When the line breaks, what had come is kept: it is not sent again."""
        served = self.served()
        served.mover.send_chunk(0, blob(1))
        served.pipes.left.finish()
        self.assertIsInstance(served.outcome(), Truncated)
        self.assertEqual(self.opened().have([name_of(1)]), [True])

    def test_changed(self) -> None:
        """After a changed frame nothing more is stored, not even what was good before."""
        served = self.served()
        served.mover.send_chunk(0, blob(1))
        parts = b"".join(served.writer.encode_chunk(0, blob(2)))
        served.pipes.left.write(parts[:-1] + bytes((parts[-1] ^ 1,)))
        error = self.ended_by(served, FrameMismatch)
        self.assertIsInstance(error, FrameMismatch)
        self.repository.close()
        self.assertEqual(self.opened().statistics()["blobs"], 0)
        self.assertEqual(self.files("temporary"), [])

    def test_peer_gave_up(self) -> None:
        """A FAIL of the peer is that error here; what had come is kept."""
        served = self.served()
        served.mover.send_chunk(0, blob(1))
        served.mover.send_failure(0, Truncated("the source is gone"))
        served.pipes.left.finish()
        self.assertIsInstance(served.outcome(), Truncated)
        self.assertEqual(self.opened().have([name_of(1)]), [True])

    def test_stuck_sender(self) -> None:
        """A peer that is busy sending when the repository gives up comes to reading why."""
        served = self.served(reserve=self.no_room)
        for number in range(40):
            served.mover.send_chunk(0, blob(number, 1 << 18))
        self.assertIsInstance(self.ended_by(served, NoSpace), NoSpace)

    def no_room(self, count: int) -> None:
        raise NoSpace(f"no room for {count} bytes")

    def test_unexpected(self) -> None:
        """A bug of ours is raised here as it is; the peer learns that there was one, not which."""

        def broken(made: PointRecord) -> None:
            raise ZeroDivisionError("canary")

        served = self.served(on_point=broken)
        served.point(record(b"p" * 16))
        error = self.ended_by(served, ZeroDivisionError)
        self.assertNotIn("canary", str(error))
        self.assertEqual(self.repository.points(), [])

    def test_unfinished_references(self) -> None:
        """References without a point leave no file behind once the repository is closed."""
        served = self.served()
        served.mover.send(FrameKind.POINT, 9, bytes(64), FLAG_PART)
        served.end()
        self.repository.close()
        self.assertEqual(self.files("temporary"), [])


class ModesCase(ServeCase):
    """Repositories that are not sealed by the tenant are served."""

    def described(self, mode: EncryptionMode) -> None:
        """Serve another repository, of this mode."""
        self.repository.close()
        self.directory = Path(self.mktemp())
        description = describe(MasterKey(MASTER), REPOSITORY, mode, ())
        self.repository = Repository.create(self.directory, description, clock=self.clock)
        self.addCleanup(self.repository.close)

    def greeted(self, **options: Any) -> Served:
        served = self.served(greet=False, **options)
        description = self.repository.description
        served.hello(id_check=description.id_check, chunking=description.chunking.as_map())
        self.assertEqual(decode_body(served.mover.receive())["codings"], [0, 1])
        return served

    def plain(self, text: bytes) -> StoredBlob:
        return keys(EncryptionMode.NONE).seal_blob("chunk", text, 0, name_of(1))

    def provider_keys(self) -> RepositoryKeys:
        return RepositoryKeys(MasterKey(b"v" * 32), REPOSITORY, EncryptionMode.PROVIDER)


class ModesTests(ModesCase):
    """Repositories that are not sealed by the tenant."""

    def test_none(self) -> None:
        """Without encryption, sealed blobs are refused and plain ones stored as they are."""
        self.described(EncryptionMode.NONE)
        served = self.greeted()
        served.mover.send_chunk(0, self.plain(b"readable"))
        served.mover.finish()
        self.assertEqual(split_ids(served.mover.receive().body), [name_of(1)])
        served.mover.expect_end()
        (stored,) = self.opened().read([name_of(1)])
        self.assertEqual((stored.data, stored.coding), (b"readable", 0))
        served = self.greeted()
        served.mover.send_chunk(0, blob(2))
        self.ended_by(served, ProtocolViolation)

    def test_wrong_length(self) -> None:
        """A plain blob has the length that it announces."""
        self.described(EncryptionMode.NONE)
        served = self.greeted()
        good = self.plain(b"readable")
        served.mover.send_chunk(0, StoredBlob(good.id, 9, good.coding, good.digest, good.data))
        self.ended_by(served, ProtocolViolation)

    def test_provider(self) -> None:
        """With the provider's key, what comes plain lies sealed, and goes back as it came."""
        self.described(EncryptionMode.PROVIDER)
        sent = self.plain(b"canary" * 100)
        served = self.greeted(keys=self.provider_keys())
        served.mover.send_chunk(0, sent)
        served.mover.finish()
        self.assertEqual(served.mover.receive().kind, FrameKind.STORED)
        served.mover.expect_end()
        (stored,) = self.opened().read([name_of(1)])
        self.assertTrue(stored.coding & SEALED)
        self.assertNotIn(b"canary", self.files("packs")[0].read_bytes())
        served = self.greeted(keys=self.provider_keys())
        frame = served.ask(FrameKind.GET, 2, name_of(1))
        self.assertEqual(unpack_chunk(frame.body), sent)
        served.end()

    def test_provider_limit(self) -> None:
        """The largest chunk leaves room for the provider's seal, and is taken."""
        self.described(EncryptionMode.PROVIDER)
        served = self.served(greet=False, keys=self.provider_keys())
        description = self.repository.description
        served.hello(id_check=description.id_check)
        limit = decode_body(served.mover.receive())["limits"]["chunk"]
        self.assertLess(limit, CHUNK_MAX)
        served.mover.send_chunk(0, self.plain(bytes(limit)))
        served.mover.finish()
        self.assertEqual(served.mover.receive().kind, FrameKind.STORED)
        served.mover.expect_end()
        self.repository.rebuild_index()
        self.assertEqual(self.repository.have([name_of(1)]), [True])
        served = self.greeted(keys=self.provider_keys())
        served.mover.send_chunk(0, self.plain(bytes(limit + 1)))
        self.ended_by(served, ProtocolViolation)

    def test_provider_without_key(self) -> None:
        """Without the provider's key nothing is stored: never a silent fall to another mode."""
        self.described(EncryptionMode.PROVIDER)
        served = self.served(greet=False)
        served.hello()
        self.assertIsInstance(self.ended_by(served, Refused), Refused)


class PlainOnWireTests(ModesCase):
    """Sessions with an accelerator on the way: plain there, compressed in the store."""

    TEXT = b"a line that is much like the next one\n" * 300

    def each_mode(self) -> Iterator[dict[str, Any]]:
        """The options to serve a session with, in each mode that is not the tenant's."""
        for mode in (EncryptionMode.NONE, EncryptionMode.PROVIDER):
            self.described(mode)
            sealing = mode is EncryptionMode.PROVIDER
            yield {"keys": self.provider_keys() if sealing else None}

    def backed_up(self, *blobs: StoredBlob, **options: Any) -> ServeResult:
        """Store blobs in a session of their own, the last one as a manifest's."""
        served = self.greeted(**options)
        for sent in blobs:
            served.mover.send_chunk(0, sent, manifest=sent is blobs[-1])
        served.mover.finish()
        while served.mover.receive().kind is not FrameKind.TOTALS:
            pass
        served.mover.expect_end()
        result = served.outcome()
        assert isinstance(result, ServeResult)
        return result

    def got(self, purpose: str, *ids: bytes, **options: Any) -> list[Frame]:
        """The answers to a GET in a session of its own."""
        served = self.served(purpose, greet=False, **options)
        served.hello(id_check=self.repository.description.id_check, purpose=purpose)
        served.mover.receive()
        served.mover.send(FrameKind.GET, 5, join_ids(ids))
        frames = [served.mover.receive() for _ in ids]
        served.end()
        return frames

    def test_there_and_back(self) -> None:
        """Text is stored smaller, noise as it is; both go back as exactly the CHUNK that came."""
        sent = [
            keys(EncryptionMode.NONE).seal_blob("chunk", text, 0, name_of(number))
            for number, text in enumerate((self.TEXT, os.urandom(5000), self.TEXT[5:]))
        ]
        ids = [each.id for each in sent]
        for options in self.each_mode():
            result = self.backed_up(*sent, plain_on_wire=True, **options)
            sizes = [len(stored.data) for stored in self.opened().read(ids)]
            self.assertLess(sizes[0] + sizes[2], len(self.TEXT) // 4)
            self.assertGreaterEqual(sizes[1], 5000)
            self.assertEqual(result.bytes_stored, sum(sizes))
            for purpose in ("restore", "read", "check", "backup"):
                frames = self.got(purpose, *ids, plain_on_wire=True, **options)
                self.assertEqual(
                    [bytes(frame.body) for frame in frames], list(map(pack_chunk, sent))
                )

    def test_with_and_without(self) -> None:
        """What a session with an accelerator stored, one without reads, and the other way round."""
        packed = keys(EncryptionMode.NONE).seal_blob("chunk", self.TEXT, 3, name_of(1))
        unpacked = self.plain(self.TEXT)
        self.assertEqual(packed.coding, Coding.ZSTD)
        for sent in (packed, unpacked):
            for options in self.each_mode():
                self.backed_up(sent, plain_on_wire=True, **options)
                (frame,) = self.got("restore", sent.id, **options)
                self.assertEqual(unpack_chunk(frame.body), packed)
                (frame,) = self.got("restore", sent.id, plain_on_wire=True, **options)
                self.assertEqual(unpack_chunk(frame.body), unpacked)

    def test_quota(self) -> None:
        """The quota is asked for what is stored, not for what came."""
        for options in self.each_mode():
            taken: list[int] = []
            sent = self.plain(self.TEXT)
            result = self.backed_up(sent, plain_on_wire=True, reserve=taken.append, **options)
            self.assertEqual(taken, [result.bytes_stored + ENTRY_SIZE])
            self.assertLess(taken[0], len(self.TEXT) // 4)

    def test_no_frame(self) -> None:
        """A chunk that was stored as what cannot be decompressed fails alone."""
        data = b"not a frame of Zstandard"
        bad = StoredBlob(name_of(2), 100, Coding.ZSTD, blake3(data).digest(), data)
        good = self.plain(self.TEXT)
        for options in self.each_mode():
            self.backed_up(bad, good, plain_on_wire=True, **options)
            frames = self.got("restore", bad.id, good.id, plain_on_wire=True, **options)
            self.failed(frames[0], 5, StoredDataDamaged)
            self.assertEqual(unpack_chunk(frames[1].body), good)

    def test_bomb(self) -> None:
        """A chunk that would become larger than it says is not made so large."""
        frame = compress(bytes(CHUNK_MAX))
        assert frame is not None
        bad = StoredBlob(name_of(2), 100, Coding.ZSTD, blake3(frame).digest(), frame)
        for options in self.each_mode():
            self.backed_up(bad, plain_on_wire=True, **options)
            (answer,) = self.got("restore", bad.id, plain_on_wire=True, **options)
            self.failed(answer, 5, StoredDataDamaged)

    def test_tenant(self) -> None:
        """In tenant mode nothing is touched."""
        served = self.served(plain_on_wire=True)
        served.mover.send_chunk(0, blob(1))
        served.mover.finish()
        served.mover.receive()
        served.mover.expect_end()
        (frame,) = self.got("restore", name_of(1), plain_on_wire=True)
        self.assertEqual(unpack_chunk(frame.body), blob(1))
