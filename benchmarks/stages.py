"""What each stage of a first backup of one file takes alone: the floor under its processor time.

    python benchmarks/stages.py FILE [--level N] [--directory FOLDER]

Every stage runs by itself over the whole file, in one thread, with what the stage before it made,
and with the same calls and sizes as a backup in encryption mode ``tenant``; what it makes is
dropped piece by piece, as in a backup. Printed are seconds of that thread's processor time (least
of ``--reps``), the bytes that the stage is given, and the sum: what a backup would take if nothing
were to be led, asked, queued, parsed or indexed. FOLDER is where the provider's file is written; by
default the current one. Takes twice the file's size in memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from blake3 import blake3

from cloudconnect.backup.reader import BLOCK
from cloudconnect.backup.zeros import ZERO_BLOCK, has_zeros
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.chunking import Chunker, ChunkingParameters
from cloudconnect.content.compression import compress
from cloudconnect.content.sealing import Sealer
from cloudconnect.keys import MasterKey, Subkey

#: Bytes of a record on the fast path, and of a write to a pack.
RECORD = 1 << 20


class Stages:
    """Times stages."""

    def __init__(self, reps: int) -> None:
        self._reps = reps
        self.rows: list[dict[str, Any]] = []

    def time(self, side: str, name: str, size: int, work: Callable[[], Any]) -> None:
        """Do ``work`` and note the least time that it took."""
        least = float("inf")
        for _ in range(self._reps):
            began = time.thread_time()
            work()
            least = min(least, time.thread_time() - began)
        self.rows.append({"side": side, "stage": name, "bytes": size, "seconds": round(least, 3)})

    def each(self, side: str, name: str, pieces: Sequence[Any], work: Callable[[Any], Any]) -> None:
        """Do ``work`` with each of ``pieces``."""

        def all_of_them() -> None:
            for piece in pieces:
                work(piece)

        self.time(side, name, sum(map(len, pieces)), all_of_them)


def read(path: str) -> Iterator[bytes]:
    """The file in blocks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for at in range(0, os.fstat(descriptor).st_size, BLOCK):
            yield os.pread(descriptor, BLOCK, at)
    finally:
        os.close(descriptor)


def solid(block: bytes) -> list[bytes]:
    """What of ``block`` is no hole."""
    if not has_zeros(block):
        return [block]
    parts = (block[at : at + ZERO_BLOCK] for at in range(0, len(block), ZERO_BLOCK))
    return [part for part in parts if part != bytes(len(part))]


def carry(records: list[bytes]) -> None:
    """Through loopback TCP, both ends in this thread: the kernel's two copies."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    room = memoryview(bytearray(RECORD))
    with left, right:
        left.setblocking(False)
        for record in records:
            rest = memoryview(record)
            while rest:
                rest = rest[left.send(rest[: 256 << 10]) :]
                while right.recv_into(room) == len(room):
                    pass
        left.shutdown(socket.SHUT_WR)
        while right.recv_into(room):
            pass


def write(pieces: list[bytes], folder: str) -> None:
    """To a file, as packs are written; the disk is waited for, which takes no processor time."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for piece in pieces:
            file.write(piece)
        os.fsync(file.fileno())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--directory", default=".")
    parser.add_argument("--reps", type=int, default=3)
    asked = parser.parse_args()
    stages = Stages(asked.reps)
    keys = RepositoryKeys(MasterKey.generate(), bytes(16))
    sealer, line = Sealer(Subkey(os.urandom(32))), Sealer(Subkey(os.urandom(32)))
    chunker, size = Chunker(ChunkingParameters()), os.path.getsize(asked.file)
    tenant, provider = "tenant", "provider"

    stages.time(tenant, "read from the page cache", size, lambda: deque(read(asked.file), maxlen=0))
    blocks = list(read(asked.file))
    stages.each(tenant, "find zeros", blocks, has_zeros)
    data = b"".join(part for block in blocks for part in solid(block))
    blocks.clear()
    stages.time(tenant, "cut", len(data), lambda: deque(chunker.cut(data), maxlen=0))
    chunks = list(chunker.cut(data))
    stages.each(tenant, "name", chunks, keys.chunk_id)
    level = asked.level
    stages.each(tenant, f"compress, level {level}", chunks, lambda piece: compress(piece, level))
    frames = [compress(chunk, level) or bytes(chunk) for chunk in chunks]
    chunks.clear()
    stages.each(tenant, "seal at rest", frames, sealer.seal)
    sealed = [bytes(sealer.seal(frame)) for frame in frames]
    frames.clear()
    stages.each(tenant, "digest", sealed, lambda blob: blake3(blob).digest())
    whole = b"".join(sealed)
    records = [whole[at : at + RECORD] for at in range(0, len(whole), RECORD)]
    stages.each(tenant, "seal for the line", records, line.seal)
    stages.time("both", "send and receive", len(whole), lambda: carry(records))
    # AES-GCM opens as fast as it seals, so a second sealing stands for it.
    stages.each(provider, "open", records, line.seal)
    stages.each(provider, "compare digests", sealed, lambda blob: blake3(blob).digest())
    stages.time(
        provider, "write to the page cache", len(whole), lambda: write(records, asked.directory)
    )
    for row in stages.rows:
        size, seconds = row["bytes"] / 1e6, row["seconds"]
        print(f"{row['side']:9} {row['stage']:26} {size:8.1f} MB {seconds:6.3f} s")
    total = round(sum(row["seconds"] for row in stages.rows), 3)
    print(f"{'':9} {'all':26} {'':11} {total:6.3f} s")
    print(json.dumps({"benchmark": "stages", "stages": stages.rows, "seconds": total}))


if __name__ == "__main__":
    main()
