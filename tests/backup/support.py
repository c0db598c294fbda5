"""A repository in the same process, for the tests of dialogues."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cloudconnect.backup.drafts import FLAG_ON_THE_WAY
from cloudconnect.backup.options import (
    BackupOptions,
    BackupResult,
    Labels,
    RestoreOptions,
    RestoreResult,
)
from cloudconnect.backup.reading import PointReader
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.upload import BackupRun
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.description import describe
from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import encode_entry
from cloudconnect.content.points import PointRecord
from cloudconnect.keys import IntegrityKey, MasterKey, frame_key
from cloudconnect.repository.serve import ServeResult, serve_session
from cloudconnect.repository.store import Repository
from cloudconnect.testing import PipePair
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import (
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    StoredBlob,
    pack_chunk,
)

SESSION = b"session-of-tests"


def channels(pair: PipePair) -> tuple[FrameChannel, FrameChannel]:
    """The source mover's channel and the target mover's, joined."""
    key = IntegrityKey.generate()
    forth, back = frame_key(key, SESSION, 0, 0), frame_key(key, SESSION, 0, 1)
    return (
        FrameChannel(pair.left, FrameWriter(forth, 0), FrameReader(back, 0)),
        FrameChannel(pair.right, FrameWriter(back, 0), FrameReader(forth, 0)),
    )


def nothing(record: PointRecord) -> None:
    """Let every restore point be published."""


class Listening(FrameChannel):
    """A channel that notes which CHUNKs pass, either way.

    :param channel: is not used any more
    :ivar chunks: their bodies
    """

    def __init__(self, channel: FrameChannel) -> None:
        super().__init__(channel._pipe, channel._writer, channel._reader)
        self.chunks: list[bytes] = []

    def send_chunks(
        self, request: int, blobs: Iterable[StoredBlob], manifest: bool = False
    ) -> bool:
        listed = list(blobs)
        self.chunks += map(pack_chunk, listed)
        return super().send_chunks(request, listed, manifest)

    def receive(self) -> Frame:
        frame = super().receive()
        if frame.kind is FrameKind.CHUNK:
            self.chunks.append(bytes(frame.body))
        return frame


class Served:
    """A repository's side of one dialogue, in a thread.

    :ivar result: what serving it came to, or the error
    """

    def __init__(
        self, channel: FrameChannel, directory: Path, purpose: str, options: dict[str, Any]
    ) -> None:
        self.result: ServeResult | BaseException | None = None
        self._options = {"on_point": nothing, **options}
        self._channel = channel
        self._directory = directory
        self._purpose = purpose
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with Repository.open(self._directory) as repository:
                self.result = serve_session(
                    self._channel,
                    repository,
                    self._purpose,
                    ("read", "write"),
                    SESSION,
                    **self._options,
                )
        except BaseException as error:
            self.result = error

    def wait(self) -> ServeResult | BaseException | None:
        self._thread.join(60)
        return self.result


class Place:
    """A repository and the keys to it."""

    def __init__(self, directory: str, mode: EncryptionMode = EncryptionMode.TENANT) -> None:
        self.directory = Path(os.path.abspath(directory))
        master = MasterKey.generate()
        self.description = describe(master, os.urandom(16), mode, ())
        self.keys = RepositoryKeys(master, self.description.repository, mode)
        self.labels = Labels(host="host", job="job", job_id=b"j" * 16)
        Repository.create(self.directory, self.description).close()
        self.served: Served | None = None
        self.serve_options: dict[str, Any] = {}
        self.wrap: Callable[[FrameChannel], FrameChannel] = lambda channel: channel

    def open(
        self, purpose: str, wrap: Callable[[FrameChannel], FrameChannel] | None = None
    ) -> FrameChannel:
        """A channel to this repository, served in a thread."""
        left, right = channels(PipePair(timeout=30.0))
        wrapped = (wrap or self.wrap)(right)
        self.served = Served(wrapped, self.directory, purpose, self.serve_options)
        return left

    def backup(self, *paths: bytes, **options: Any) -> BackupResult:
        channel = self.open("backup")
        chosen = BackupOptions(paths=paths, **options)
        run = BackupRun(channel, self.keys, self.description, chosen, self.labels, SESSION)
        return run.run()

    def restore(self, point: bytes, target: bytes, **options: Any) -> RestoreResult:
        channel = self.open("restore")
        chosen = RestoreOptions(target=target, **options)
        return RestoreRun(channel, self.keys, self.description, point, chosen).run()

    def reader(self, point: bytes) -> PointReader:
        """An opened reader; a context manager."""
        reader = PointReader(self.open("read"), self.keys, self.description)
        reader.open(point)
        return reader

    def record_of(self, point: bytes) -> PointRecord:
        """A published record."""
        with Repository.open(self.directory, read_only=True) as repository:
            return PointRecord.decode(repository.point(point).record)

    def publish(self, entries: Iterable[Entry | bytes], contents: Iterable[bytes] = ()) -> bytes:
        """Publish a restore point of just these entries (or encoded ones); its id.

        :param contents: chunks that the entries' runs name by ``keys.chunk_id``
        """
        given = list(entries)
        encoded = b"".join(e if isinstance(e, bytes) else encode_entry(e) for e in given)
        counted = [e for e in given if isinstance(e, bytes) or not e.flags & FLAG_ON_THE_WAY]
        manifest = self.keys.manifest_id(encoded)
        point = os.urandom(16)
        record = PointRecord(
            point=point,
            repository=self.description.repository,
            session=SESSION,
            job_id=self.labels.job_id,
            host="host",
            job="job",
            started_ns=0,
            finished_ns=0,
            mode=self.description.mode,
            manifest=(manifest,),
            manifest_length=len(encoded),
            statistics={"files": len(counted)},
            private=self.keys.seal_private(point, []),
        )
        with Repository.open(self.directory) as repository:
            repository.add(self.keys.seal_blob("manifest", encoded, 3, manifest), "manifest")
            references = set()
            for content in contents:
                name = self.keys.chunk_id(content)
                references.add(name)
                repository.add(self.keys.seal_blob("chunk", content, 3, name))
            repository.flush()
            octets = record.encode()
            repository.publish(record, octets, self.keys.sign(octets), sorted(references))
        return point

    def damage(self, name: bytes) -> None:
        """Change a stored byte of the chunk ``name``."""
        with Repository.open(self.directory) as repository:
            pack, entry = repository.catalogue.locate({name})[name]
            path = next(self.directory.rglob(pack.rpartition("/")[2]))
            data = bytearray(path.read_bytes())
            blob = next(iter(repository.read([name])))
        at = data.index(bytes(blob.data))
        data[at + len(blob.data) // 2] ^= 1
        os.chmod(path, 0o600)
        path.write_bytes(data)
