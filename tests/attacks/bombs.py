"""Small inputs that want a lot of memory: what each costs a process that meets them.

``python -m tests.attacks.bombs`` prints one JSON line for each: how many bytes the bomb has, by how
many the process grew at most, and what it was told.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from twisted.internet.task import Clock

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.content.compression import decompress
from cloudconnect.content.kit import parse_kit
from cloudconnect.content.manifest import EntryDecoder
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import CloudConnectError
from cloudconnect.keys import Subkey
from cloudconnect.settings import BOX_MAX, CHUNK_MAX, MANIFEST_ENTRY_MAX
from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.transports.proxied import SIGNATURE, read_proxy_header
from cloudconnect.transports.trust import parse_fingerprint
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import FrameKind, FrameReader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_STATUS: Final = Path("/proc/self/status")
_Bomb = Callable[[], Iterator[tuple[int, Any]]]


def zeros(size: int, window_log: int = 0) -> bytes:
    """A Zstandard frame that opens to so many zeros."""
    options = {zstd.CompressionParameter.window_log: window_log} if window_log else {}
    packer = zstd.ZstdCompressor(options=options)
    part = bytes(1 << 20)
    made = [packer.compress(part) for _ in range(size >> 20)]
    return b"".join([*made, packer.flush()])


def decompression() -> Iterator[tuple[int, Any]]:
    """512 MiB in 16 KiB, announced as what may be announced."""
    frame = zeros(512 << 20)
    yield len(frame), lambda: decompress(frame, CHUNK_MAX)


def decompression_window() -> Iterator[tuple[int, Any]]:
    """A frame that wants a window of 128 MiB."""
    frame = zeros(256 << 20, 27)
    yield len(frame), lambda: decompress(frame, CHUNK_MAX)


def cbor_depth() -> Iterator[tuple[int, Any]]:
    """A million lists in one another."""
    octets = b"\x81" * 1_000_000 + b"\x80"
    yield len(octets), lambda: canonical.decode(octets)


def cbor_counts() -> Iterator[tuple[int, Any]]:
    """Lists, maps and strings that announce 2**32 and 2**63 members."""
    for head in (b"\x9a\xff\xff\xff\xff", b"\xbb" + b"\x7f" + b"\xff" * 7, b"\x5b" + b"\x7f" * 8):
        yield len(head), lambda head=head: canonical.decode(head)


def cbor_width() -> Iterator[tuple[int, Any]]:
    """Eight million small things in one list, and the same as a restore point's record."""
    octets = b"\x9a" + (8_000_000).to_bytes(4, "big") + bytes(8_000_000)
    yield len(octets), lambda: canonical.decode(octets)
    yield len(octets), lambda: PointRecord.decode(octets)


def manifest_depth() -> Iterator[tuple[int, Any]]:
    """An entry of a manifest that is lists in lists, as many as an entry may have bytes."""
    size = MANIFEST_ENTRY_MAX - 1
    octets = b"\x5a" + (size + 1).to_bytes(4, "big") + b"\x81" * size + b"\x80"
    yield len(octets), lambda: list(EntryDecoder().feed(octets))


def manifest_size() -> Iterator[tuple[int, Any]]:
    """An entry that announces 4 GiB, and one that never ends."""
    yield 5, lambda: list(EntryDecoder().feed(b"\x5a\xff\xff\xff\xff"))
    yield 1, lambda: list(EntryDecoder().feed(b"\x5f"))


def paths() -> Iterator[tuple[int, Any]]:
    """A path of 4 MB, and one of 65,535 folders."""
    for path in (b"/" + b"a" * 4_000_000, b"/a" * 40_000):
        body = b"\xa1\x61p\x5a" + len(path).to_bytes(4, "big") + path
        octets = b"\x5a" + len(body).to_bytes(4, "big") + body
        yield len(octets), lambda octets=octets: list(EntryDecoder().feed(octets))


def boxes() -> Iterator[tuple[int, Any]]:
    """A box without an end: long values, many keys, one byte after the other."""
    long = b"".join(
        b"\x00\x02" + bytes((97 + i // 26, 97 + i % 26)) + b"\xff\xff" + bytes(65535)
        for i in range(100)
    )
    many = b"".join(b"\x00\x04" + i.to_bytes(4, "big") + b"\x00\x00" for i in range(1 << 18))
    for octets in (long, many):
        yield len(octets), lambda octets=octets: _to_amp(octets)


def _to_amp(octets: bytes) -> None:
    clock = Clock()
    pair = MemoryPair(clock)
    mine = BoundedAMP(clock, box_max=BOX_MAX)
    pair.connect(Recorder(), mine)
    for start in range(0, len(octets), 60_000):
        pair.left.write(octets[start : start + 60_000])
        clock.advance(0)
    assert mine._error is not None, "it was read for ever"
    raise mine._error


def frames() -> Iterator[tuple[int, Any]]:
    """A frame that announces as much as may be, and one that announces 4 GiB."""
    for length in (8 << 20, 0xFFFFFFFF):
        head = bytes((FrameKind.POINT, 0, 0, 0)) + bytes(4) + length.to_bytes(4, "big")
        yield len(head), lambda head=head: _to_frames(head + bytes(100))


def _to_frames(octets: bytes) -> None:
    reader = FrameReader(Subkey(bytes(32)), 0)
    reader.receive(octets)
    reader.eof()


def texts() -> Iterator[tuple[int, Any]]:
    """A recovery kit, a fingerprint and a PROXY header of megabytes."""
    text = "BEGIN\n" * 2_000_000
    yield len(text), lambda: parse_kit(text)
    yield len(text), lambda: parse_fingerprint("SHA256:" + "ab:" * 2_000_000)
    yield 16, lambda: read_proxy_header(SIGNATURE + b"\x21\x11\xff\xff" + bytes(1 << 16))


BOMBS: Final[tuple[_Bomb, ...]] = (
    decompression,
    decompression_window,
    cbor_depth,
    cbor_counts,
    cbor_width,
    manifest_depth,
    manifest_size,
    paths,
    boxes,
    frames,
    texts,
)


def memory(field: str) -> int:
    """Bytes of memory of this process, as the system counts them."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Meet every bomb, one after the other."""
    for bomb in BOMBS:
        for size, meet in bomb():
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before = memory("VmRSS")
            try:
                meet()
                told = ""
            except CloudConnectError as error:
                told = type(error).__name__
            grown = memory("VmHWM") - before
            line = {"bomb": bomb.__name__, "bytes": size, "grown": grown, "told": told}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
