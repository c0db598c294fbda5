"""What the accelerators' codec sends and what it costs, without a network.

Two ends with caches on disk, joined in memory: streams like those of a backup of a disk image and
of a tree, first, changed, shifted, moved, again and back. Each stream is measured in several forms:

``content``      the content itself, cut by content
``frames``       the movers' frames with uncompressed chunks, all of them, as in a restore
``frames-new``   the same after the movers' own deduplication: only chunks that the repository does
                 not have, behind the lists of all ids
``frames-zstd``  frames-new with chunks that the source mover compressed (what not to do)

Bytes are those of both directions between the accelerators. MB/s are 10^6 bytes of the stream for
each second of CPU time of the one thread (``time.thread_time``) of that end, cache included, so
that other work on the machine counts as little as it can; the process makes itself ``nice``. The
bounds come from the ``zstd`` command, where there is one. The last line is one JSON object.

    export CLOUDCONNECT_WAN_DATA=/path/to/data   # day0, day1 and so on, as the table below says
    python benchmarks/wan.py                     # everything but the slowest bounds
    python benchmarks/wan.py --sets w2 --levels 3,9,19 --bounds all

Data: ``w2/day0/image.raw`` and ``w2/day1.raw``, an image of 192 MiB before and after a day of
change; ``d2/day0/image.raw``, ``d2/day1.raw`` and ``d2/shift.raw``, 1 GiB, the last with 4,097
bytes inserted into the second; ``w1/day0``, a tree of small files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import NodeKey
from cloudconnect.content.chunking import Chunker, ChunkingParameters
from cloudconnect.content.compression import compress
from cloudconnect.dedup.cutting import ContentCutter, FrameCutter
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.literals import StreamCompressor
from cloudconnect.keys import Subkey
from cloudconnect.wire.frames import Coding, FrameKind, FrameWriter, StoredBlob, join_ids

MIB = 1 << 20
IDS = 4096
CACHE = 8 << 30
ID_KEY = bytes(32)
FORMS = ("content", "frames", "frames-new", "frames-zstd")

#: Files of a stream, in order.
Files = list[Path]


class Mover:
    """Makes frames of files as the source mover does; one repository, one session for each call."""

    def __init__(self, form: str) -> None:
        self.new_only = form != "frames"
        self.level = 3 if form == "frames-zstd" else 0
        self.chunker = Chunker(ChunkingParameters())
        self.stored: set[bytes] = set()
        self.session = 0

    def frames(self, files: Files) -> Iterator[bytes]:
        """One session's frames."""
        self.session += 1
        writer = FrameWriter(Subkey(self.session.to_bytes(32, "big")), 0)
        waiting: list[tuple[bytes, memoryview]] = []
        sent: set[bytes] = set()
        for path in files:
            for data in self.chunker.cut(path.read_bytes()):
                if not len(data):
                    continue
                waiting.append((blake3(data, key=ID_KEY).digest(), data))
                if len(waiting) == IDS:
                    yield from self.request(writer, waiting, sent)
        yield from self.request(writer, waiting, sent)
        self.stored |= sent

    def request(
        self, writer: FrameWriter, waiting: list[tuple[bytes, memoryview]], sent: set[bytes]
    ) -> Iterator[bytes]:
        """HAVE, and the chunks that are wanted."""
        if self.new_only:
            ids = join_ids([name for name, _ in waiting])
            yield b"".join(writer.encode(FrameKind.HAVE, writer.frames, ids))
        for name, data in waiting:
            if self.new_only and (name in self.stored or name in sent):
                continue
            sent.add(name)
            frame = compress(data, self.level) if self.level else None
            stored = data if frame is None else frame
            coding = Coding.PLAIN if frame is None else Coding.ZSTD
            blob = StoredBlob(name, len(data), coding, blake3(stored).digest(), stored)
            yield b"".join(writer.encode_chunk(writer.frames, blob))
        waiting.clear()


def content(files: Files) -> Iterator[bytes]:
    """The content of files, joined."""
    for path in files:
        with path.open("rb") as opened:
            while data := opened.read(MIB):
                yield data


class Ends:
    """Two accelerators' caches on disk, for one form of stream."""

    def __init__(self, work: Path, form: str) -> None:
        self.form = form
        self.node = NodeKey.generate()
        self.directories = [Path(tempfile.mkdtemp(dir=work)) for _ in range(2)]
        self.caches: list[BlockCache] = []
        self.mover = Mover(form)

    def stream(self, files: Files) -> Iterator[bytes]:
        """What the source sends."""
        return content(files) if self.form == "content" else self.mover.frames(files)

    def carry(self, files: Files, level: int, back: bool = False) -> dict[str, float]:
        """One session over both caches; checks that what comes out is what went in."""
        self.caches = [BlockCache(d / "cache", "bench", self.node, CACHE) for d in self.directories]
        cutter = ContentCutter if self.form == "content" else FrameCutter
        order = self.caches[::-1] if back else self.caches
        ends = [Exchange(cache, cutter(), level) for cache in order]
        spent, wire, plain = [0.0, 0.0], [0, 0], 0
        went, came = blake3(), blake3()

        def timed(end: int, work: Callable[[], list[bytes | memoryview]]) -> bytes:
            start = time.thread_time()
            parts = work()
            octets = b"".join(parts)
            spent[end] += time.thread_time() - start
            wire[end] += len(octets)
            return octets

        def received(end: int, octets: bytes) -> list[bytes | memoryview]:
            found = ends[end].receive(octets)
            for part in found.plain:
                arrived.append(part)
            return found.wire

        arrived: list[bytes | memoryview] = []

        def settle(octets: bytes, end: int = 1) -> None:
            while octets:
                octets = timed(end, lambda end=end, octets=octets: received(end, octets))
                end = 1 - end
            for part in arrived:
                came.update(part)
            arrived.clear()

        hello = timed(1, ends[1].start)
        timed(0, lambda: received(0, hello))
        settle(timed(0, ends[0].start))
        for data in self.stream(files):
            plain += len(data)
            went.update(data)
            settle(timed(0, lambda data=data: ends[0].send(data)))
        settle(timed(0, ends[0].finish))
        settle(timed(1, ends[1].finish), 0)
        if went.digest() != came.digest():
            raise SystemExit("what came out is not what went in")
        for end in ends:
            end.eof()
            end.close()
        for cache in self.caches:
            cache.close()
        return {
            "plain": plain,
            "wire": sum(wire),
            "encoder_mb_s": round(plain / 1e6 / spent[0]),
            "decoder_mb_s": round(plain / 1e6 / spent[1]),
            **{name: value for name, value in ends[0].sent.as_map().items() if name != "plain"},
        }

    def forget(self) -> None:
        """Remove the caches."""
        for directory in self.directories:
            shutil.rmtree(directory)


def zstd_size(options: list[str], path: Path) -> int | None:
    """Bytes that the ``zstd`` command makes of a file; None where there is no such command."""
    if shutil.which("zstd") is None:
        return None
    command = ["zstd", "-q", "-c", *options, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        return sum(len(data) for data in iter(lambda: process.stdout.read(MIB), b""))


def scenarios(name: str, data: Path) -> dict[str, Files]:
    """The streams of a data set, in the order in which they are sent."""
    if name == "w1":
        tree = sorted(path for path in (data / "w1/day0").rglob("*") if path.is_file())
        tree = [path for path in tree if not path.is_symlink()]
        # A folder that is moved comes at another time in the walk: here the first third comes last.
        third = len(tree) // 3
        return {"first": tree, "moved": tree[third:] + tree[:third]}
    streams = {"first": [data / name / "day0/image.raw"], "changed": [data / name / "day1.raw"]}
    if (data / name / "shift.raw").exists():
        streams["shifted"] = [data / name / "shift.raw"]
    return streams


def bounds(name: str, data: Path, wanted: str, work: Path) -> dict[str, int | None]:
    """What ``zstd`` alone makes of it."""
    if wanted == "none":
        return {}
    streams = scenarios(name, data)
    joined = work / "joined"
    with joined.open("wb") as out:
        for part in content(streams["first"]):
            out.write(part)
    found = {"zstd -3 --long=27": zstd_size(["-3", "--long=27"], joined)}
    if "changed" in streams and (name == "w2" or wanted == "all"):
        patch = ["-19", "--long=31", f"--patch-from={streams['first'][0]}"]
        found["zstd -19 --patch-from"] = zstd_size(patch, streams["changed"][0])
    joined.unlink()
    return found


def measure(name: str, data: Path, form: str, levels: list[int], work: Path) -> dict[str, object]:
    """Every scenario of one set in one form; each builds upon the caches of those before it.

    At the first level there are all of them; at the others the first backup is made at the first
    level, which is quick, and only what comes after it is measured.
    """
    results: dict[str, object] = {}
    streams = scenarios(name, data)
    for level in levels:
        ends = Ends(work, form)
        for scenario, files in streams.items():
            first = scenario == "first"
            row = ends.carry(files, levels[0] if first else level)
            if not first or level == levels[0]:
                show(name, form, level, scenario, row)
                results[f"{scenario}@{level}"] = row
        last = list(streams.values())[-1]
        if form in ("content", "frames") and level == levels[0]:
            for scenario, back in (("again", False), ("back", True)):
                row = ends.carry(last, level, back)
                show(name, form, level, scenario, row)
                results[f"{scenario}@{level}"] = row
        ends.forget()
    return results


def alone(data: Path, level: int) -> int:
    """MB/s of Zstandard alone on the content of the set of small files, on this machine, now."""
    compressor = StreamCompressor()
    start, size = time.thread_time(), 0
    for part in content(scenarios("w1", data)["first"]):
        compressor.compress(part, level)
        size += len(part)
    return round(size / 1e6 / (time.thread_time() - start))


def show(name: str, form: str, level: int, scenario: str, row: dict[str, float]) -> None:
    """One line for a person."""
    print(
        f"{name:3} {form:12} {scenario:8} level {level:2}: {row['wire']:>12,} of "
        f"{row['plain']:>13,} bytes ({100 * row['wire'] / row['plain']:.3f}%), encoder "
        f"{row['encoder_mb_s']} MB/s, decoder {row['decoder_mb_s']} MB/s",
        flush=True,
    )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="w2,w1,d2")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--levels", default="3", help="the first one is that of all figures")
    parser.add_argument("--bounds", choices=("none", "some", "all"), default="some")
    arguments = parser.parse_args()
    where = os.environ.get("CLOUDCONNECT_WAN_DATA")
    if not where:
        sys.exit("CLOUDCONNECT_WAN_DATA must name the folder with the data sets")
    with contextlib.suppress(OSError):
        os.nice(5)
    data = Path(where)
    levels = [int(level) for level in arguments.levels.split(",")]
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("CLOUDCONNECT_WAN_WORK")) as folder:
        work = Path(folder)
        for name in arguments.sets.split(","):
            found: dict[str, object] = {"bounds": bounds(name, data, arguments.bounds, work)}
            print(name, found["bounds"], flush=True)
            for form in arguments.forms.split(","):
                found[form] = measure(name, data, form, levels, work)
            found["zstd alone on w1, MB/s"] = alone(data, levels[0])
            results[name] = found
    print(json.dumps(results))


if __name__ == "__main__":
    main()
