"""Vectors for section 7: frames, their tags, and dialogues of frames inside a stream."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from cloudconnect.keys import IntegrityKey, frame_key
from cloudconnect.wire.frames import FLAG_MANIFEST, FLAG_PART, FrameKind, encode_body, pack_chunk
from tests.vectors.cases import Case, changed
from tests.vectors.talks import (
    INITIATOR,
    INTEGRITY_KEY,
    RESPONDER,
    SESSION,
    FrameTalk,
    StreamTalk,
    stored,
)

MOVER, REPOSITORY = INITIATOR, RESPONDER
HELLO, WELCOME, HAVE, WANT, CHUNK, STORED, POINT, POINTED, GET, OPEN, OPENED, *_ = FrameKind
TOTALS, FAIL, HEADS, HEADED = FrameKind.TOTALS, FrameKind.FAIL, FrameKind.HEADS, FrameKind.HEADED
VERIFY, VERIFIED = FrameKind.VERIFY, FrameKind.VERIFIED
IDS = tuple(bytes([0xA0 + n]) * 32 for n in range(9))
POINT_ID = b"\x70" * 16
RECORD, SIGNATURE = b"the encoded record of a restore point", b"\x73" * 64
GREETING = {
    "versions": [1],
    "id_check": b"\x69" * 8,
    "codings": [0, 1, 16, 17],
    "chunking": {"algorithm": "fastcdc-2020", "average": 65536},
    "purpose": "backup",
}
ANSWER = {
    "version": 1,
    "repository": b"\x72" * 16,
    "codings": [0, 1, 16, 17],
    "limits": {"ids": 8192, "chunk": 4194304, "body": 8388608},
}


def digest(*ids: bytes) -> bytes:
    """What POINT says of its references."""
    return hashlib.sha256(b"".join(ids)).digest()


def kinds() -> Iterator[Case]:
    """A frame of each kind, and the TOTALS without which nothing ends."""
    talk = FrameTalk().map(MOVER, HELLO, 1, **GREETING).totals(MOVER)
    yield Case("frames/hello", 7, "HELLO.", talk)
    talk = FrameTalk().map(REPOSITORY, WELCOME, 1, **ANSWER).totals(REPOSITORY)
    yield Case("frames/welcome", 7, "WELCOME.", talk)
    limits = {**ANSWER["limits"], "verify": 256}  # type: ignore[dict-item]
    talk = (
        FrameTalk().map(REPOSITORY, WELCOME, 1, **{**ANSWER, "limits": limits}).totals(REPOSITORY)
    )
    yield Case("frames/welcome-verify", 7, "WELCOME of a repository that takes VERIFY.", talk)
    talk = FrameTalk().ids(MOVER, HAVE, 1, *IDS[:2]).totals(MOVER)
    yield Case("frames/have", 7, "HAVE with two ids.", talk)
    for count, body, wanted in (
        (1, b"\1", (0,)),
        (2, b"\0", ()),
        (8, b"\x81", (0, 7)),
        (9, b"\2\1", (1, 8)),
    ):
        talk = FrameTalk().ids(MOVER, HAVE, 5, *IDS[:count]).want(REPOSITORY, 5, body, *wanted)
        shows = f"WANT: of {count} ids of a HAVE those with the numbers {list(wanted)} are wanted."
        yield Case(f"frames/want-{count}", 7, shows, talk.totals())
    for coding, name in ((0, "plain"), (1, "zstd"), (16, "sealed"), (17, "sealed-zstd")):
        talk = FrameTalk().chunk(MOVER, 2, b"stored bytes", coding=coding, plain_length=40)
        shows = f"CHUNK with coding {coding}."
        yield Case(f"frames/chunk-{name}", 7, shows, talk.totals(MOVER))
    talk = FrameTalk().chunk(MOVER, 2, b"x").totals(MOVER)
    yield Case("frames/chunk-1", 7, "CHUNK with one byte.", talk)
    talk = FrameTalk().chunk(MOVER, 2, b"m", flags=FLAG_MANIFEST).totals(MOVER)
    yield Case("frames/chunk-manifest", 7, "CHUNK of a manifest: flag 1.", talk)
    talk = FrameTalk().chunk(REPOSITORY, 2, b"back").totals(REPOSITORY)
    yield Case("frames/chunk-back", 7, "CHUNK from the repository.", talk)
    talk = FrameTalk().chunk(MOVER, 2, b"y", plain_length=4 << 20).totals(MOVER)
    yield Case("frames/chunk-longest", 7, "CHUNK of 4 MiB, stored in one byte.", talk)
    content = bytes(n % 251 for n in range(1025))
    talk = FrameTalk().chunk(MOVER, 2, content).totals(MOVER)
    shows = "CHUNK with 1025 bytes: BLAKE3 of the stored bytes has two leaves."
    yield Case("frames/chunk-1025", 7, shows, talk)
    talk = FrameTalk().ids(REPOSITORY, STORED, 0, IDS[0]).totals(REPOSITORY)
    yield Case("frames/stored", 7, "STORED.", talk)
    fields = {"record": RECORD, "signature": SIGNATURE, "references": 0, "digest": digest()}
    talk = FrameTalk().map(MOVER, POINT, 3, **fields).totals(MOVER)
    yield Case("frames/point", 7, "POINT without references.", talk)
    headed = {**fields, "head": b"an encoded head", "head_signature": SIGNATURE}
    talk = FrameTalk().map(MOVER, POINT, 3, **headed).totals(MOVER)
    yield Case("frames/point-with-head", 7, "POINT with its entry in the chain of heads.", talk)
    talk = FrameTalk().ids(MOVER, POINT, 3, IDS[0], IDS[1], flags=FLAG_PART)
    talk.ids(MOVER, POINT, 3, IDS[2], flags=FLAG_PART)
    fields = {**fields, "references": 3, "digest": digest(*IDS[:3])}
    talk.map(MOVER, POINT, 3, **fields).totals(MOVER)
    yield Case("frames/point-in-parts", 7, "POINT behind two parts of its reference list.", talk)
    fields = {"point": POINT_ID, "arrival": 7, "time": 1790000000.25}
    talk = FrameTalk().map(REPOSITORY, POINTED, 3, **fields).totals(REPOSITORY)
    yield Case("frames/pointed", 7, "POINTED.", talk)
    talk = FrameTalk().map(REPOSITORY, POINTED, 3, point=POINT_ID, arrival=7, time=1.5)
    shows = "POINTED with a time that fits into two bytes of CBOR."
    yield Case("frames/pointed-short-time", 7, shows, talk.totals(REPOSITORY))
    talk = FrameTalk().ids(MOVER, GET, 4, IDS[0], IDS[1]).totals(MOVER)
    yield Case("frames/get", 7, "GET.", talk)
    talk = FrameTalk().map(MOVER, OPEN, 1, point=POINT_ID).totals(MOVER)
    yield Case("frames/open", 7, "OPEN.", talk)
    fields = {"record": RECORD, "signature": SIGNATURE, "arrival": 7}
    talk = FrameTalk().map(REPOSITORY, OPENED, 1, **fields).totals(REPOSITORY)
    yield Case("frames/opened", 7, "OPENED.", talk)
    talk = FrameTalk().map(MOVER, HEADS, 1, after=0, about=[]).totals(MOVER)
    yield Case("frames/heads", 7, "HEADS from the beginning.", talk)
    talk = FrameTalk().map(MOVER, HEADS, 1, after=300, about=[1, 256]).totals(MOVER)
    yield Case("frames/heads-about", 7, "HEADS with questions about two heads.", talk)
    none = {"number": 0, "chain": bytes(32), "entries": [], "live": b"", "about": []}
    talk = FrameTalk().map(REPOSITORY, HEADED, 1, **none).totals(REPOSITORY)
    yield Case("frames/headed-none", 7, "HEADED of a repository without heads.", talk)
    fields = {
        "number": 2,
        "chain": b"\x68" * 32,
        "entries": [[b"an encoded head", SIGNATURE], [b"the next one", SIGNATURE]],
        "live": b"\2",
        "about": [[1, "removed", "retention", 1790000000.25], [9, "missing", "", 0.0]],
    }
    talk = FrameTalk().map(REPOSITORY, HEADED, 1, **fields).totals(REPOSITORY)
    shows = "HEADED with two heads, of which the point of the second is published."
    yield Case("frames/headed", 7, shows, talk)
    talk = FrameTalk().ids(MOVER, VERIFY, 1, *IDS).totals(MOVER)
    yield Case("frames/verify", 7, "VERIFY with nine ids.", talk)
    talk = FrameTalk().map(REPOSITORY, VERIFIED, 1, bytes=4096, damaged=b"\2\1")
    shows = "VERIFIED: the second and the last of nine are damaged."
    yield Case("frames/verified", 7, shows, talk.totals(REPOSITORY))
    yield Case("frames/totals", 7, "TOTALS of no frames.", FrameTalk().totals(MOVER))
    fields = {"reason": "no_space", "text": "the quota is used up"}
    talk = FrameTalk().map(REPOSITORY, FAIL, 0, **fields).totals(REPOSITORY)
    yield Case("frames/fail", 7, "FAIL of the whole dialogue: request 0.", talk)
    talk = FrameTalk().map(MOVER, OPEN, 0xFFFFFFFF, point=POINT_ID).totals(MOVER)
    yield Case("frames/last-request", 7, "The largest request number.", talk)
    talk = FrameTalk()
    octets = talk.encode(MOVER, GET, 1, IDS[0]) + talk.encode(MOVER, GET, 2, IDS[1])
    for part in (octets[:5], octets[5:40], octets[40:61], octets[61:]):
        talk.say(MOVER, part)
    for request in (1, 2):
        talk.told(MOVER, "frame", int(GET), 0, request, [IDS[request - 1].hex()])
    shows = "Frames that arrive in other pieces than they were sent in."
    yield Case("frames/pieces", 7, shows, talk.totals(MOVER))


def impossible() -> Iterator[Case]:
    """Headers that no mover writes. Their tags are good where there are any."""
    chunk = pack_chunk(stored(b"x"))
    one = IDS[0]
    headers = {
        "kind-0": (0, one, {}, "There is no kind 0."),
        "kind-18": (18, one, {}, "There is no kind 18."),
        "kind-255": (255, one, {}, "There is no kind 255."),
        "flag-on-get": (GET, one, {"flags": 1}, "Flag 1 on a kind that has no flags."),
        "flag-on-point": (POINT, one, {"flags": 2}, "Flag 2 on POINT."),
        "flag-on-chunk": (CHUNK, chunk, {"flags": 3}, "Flags 1 and 2 on CHUNK."),
        "stream-1": (GET, one, {"stream": 1}, "A frame of stream 1 on stream 0."),
        "have-empty": (HAVE, b"", {}, "HAVE without ids."),
        "have-31": (HAVE, one[1:], {}, "HAVE ends within an id."),
        "get-33": (GET, one + b"x", {}, "GET ends within an id."),
        "stored-0": (STORED, b"", {}, "STORED without ids."),
        "want-empty": (WANT, b"", {}, "WANT without bits."),
        "chunk-empty": (CHUNK, chunk[:-1], {}, "CHUNK without stored bytes."),
        "part-31": (POINT, one[1:], {"flags": 1}, "A part of a POINT ends within an id."),
        "part-empty": (POINT, b"", {"flags": 1}, "A part of a POINT without ids."),
        "point-empty": (POINT, b"", {}, "POINT without a map."),
        "hello-empty": (HELLO, b"", {}, "HELLO without a map."),
        "flag-on-heads": (HEADS, one, {"flags": 1}, "Flag 1 on HEADS."),
        "verify-empty": (VERIFY, b"", {}, "VERIFY without ids."),
        "verify-31": (VERIFY, one[1:], {}, "VERIFY ends within an id."),
    }
    for name, (kind, body, fields, shows) in headers.items():
        talk = FrameTalk()
        talk.say(MOVER, talk.forge(MOVER, kind, body, **fields))
        yield Case(f"frames/{name}", 7, shows, talk, "frame_mismatch")
    sizes = {
        "have-over": (HAVE, 0, 8193 * 32, "HAVE of 8193 ids"),
        "want-over": (WANT, 0, 1025, "WANT for more than 8192 ids"),
        "chunk-over": (CHUNK, 0, 69 + (4 << 20) + 1, "CHUNK of more than 4 MiB"),
        "hello-over": (HELLO, 0, (16 << 10) + 1, "HELLO of more than 16 KiB"),
        "fail-over": (FAIL, 0, (16 << 10) + 1, "FAIL of more than 16 KiB"),
        "point-over": (POINT, 0, (8 << 20) + 1, "POINT of more than 8 MiB"),
        "part-over": (POINT, 1, (8 << 20) + 32, "A part of a POINT of more than 8 MiB"),
        "heads-over": (HEADS, 0, (16 << 10) + 1, "HEADS of more than 16 KiB"),
        "headed-over": (HEADED, 0, (8 << 20) + 1, "HEADED of more than 8 MiB"),
        "verify-over": (VERIFY, 0, 257 * 32, "VERIFY of 257 ids"),
        "verified-over": (VERIFIED, 0, (16 << 10) + 1, "VERIFIED of more than 16 KiB"),
        "longest": (OPENED, 0, 0xFFFFFFFF, "OPENED of 4 GiB"),
    }
    for name, (kind, flags, size, shows) in sizes.items():
        talk = FrameTalk()
        talk.say(MOVER, struct.pack(">BBHII", kind, flags, 0, 1, size))
        shows += ": refused before anything else of it has come."
        yield Case(f"frames/{name}", 7, shows, talk, "frame_mismatch")


def bodies() -> Iterator[Case]:
    """Bodies that are wrong under good tags."""
    maps = {
        "cbor-long-integer": (b"\xa1\x61a\x18\x17", "An integer in more bytes than it needs."),
        "cbor-long-length": (b"\xa1\x78\x01a\x01", "A length in more bytes than it needs."),
        "cbor-long-float": (
            b"\xa1\x61a\xfb" + struct.pack(">d", 1.5),
            "A float in more bytes than it needs.",
        ),
        "cbor-key-order": (b"\xa2\x61b\x01\x61a\x02", "Keys that are not in order."),
        "cbor-key-length-order": (
            b"\xa2\x62aa\x01\x61b\x02",
            "Keys in the order of their bytes: shorter ones come first.",
        ),
        "cbor-key-twice": (b"\xa2\x61a\x01\x61a\x02", "A key that stands there twice."),
        "cbor-indefinite-map": (b"\xbf\x61a\x01\xff", "A map of indefinite length."),
        "cbor-indefinite-text": (b"\xa1\x61a\x7f\x61b\xff", "A text of indefinite length."),
        "cbor-tag": (b"\xa1\x61a\xc1\x01", "A tag of CBOR."),
        "cbor-undefined": (b"\xa1\x61a\xf7", "The simple value undefined."),
        "cbor-simple": (b"\xa1\x61a\xf8\x20", "An unassigned simple value."),
        "cbor-reserved": (b"\xa1\x61a\x1c", "A reserved additional information."),
        "cbor-cut": (b"\xa1\x61a\x42x", "The body ends within a byte string."),
        "cbor-cut-map": (b"\xa2\x61a\x01", "The body ends before the map does."),
        "cbor-behind": (b"\xa1\x61a\x01\x00", "A byte behind the map."),
        "cbor-list": (b"\x81\x61a", "A list where a map is due."),
        "cbor-number-key": (b"\xa1\x01\x02", "A key that is not text."),
        "cbor-bad-text": (b"\xa1\x61a\x62\xc3\x28", "A text that is not UTF-8."),
        "cbor-deep": (b"\xa1\x61a" + b"\x81" * 8 + b"\x01", "Nine levels of containers."),
        "cbor-many": (encode_body(a=[0] * 4094), "A map with 4097 items in all."),
        "cbor-huge": (b"\xa1\x61a\x5b" + b"\xff" * 8, "A byte string of 2 to the 64th minus 1."),
    }
    for name, (body, shows) in maps.items():
        talk = FrameTalk()
        talk.say(MOVER, talk.encode(MOVER, HELLO, 1, body))
        yield Case(f"frames/{name}", 7, shows, talk, "protocol_violation")
    talk = FrameTalk().map(MOVER, HELLO, 1, a=[[[[[[[1]]]]]]]).totals(MOVER)
    yield Case("frames/cbor-deepest", 7, "Eight levels of containers.", talk)
    fields = {"a": 0, "b": 23, "c": 24, "d": 256, "e": 1 << 16, "f": 1 << 32, "g": -1, "h": -257}
    talk = FrameTalk().map(MOVER, HELLO, 1, **fields).totals(MOVER)
    yield Case("frames/cbor-integers", 7, "Integers of all lengths.", talk)
    fields = {"a": True, "b": False, "c": None, "d": "\u00fc", "e": b"", "f": 100000.0, "g": 1.1}
    talk = FrameTalk().map(MOVER, HELLO, 1, **fields).totals(MOVER)
    yield Case("frames/cbor-values", 7, "Values of all types.", talk)

    chunks = {
        "chunk-length-0": (0, 0, "CHUNK of no plain bytes."),
        "chunk-length-over": ((4 << 20) + 1, 0, "CHUNK of more than 4 MiB of plain bytes."),
        "chunk-coding-2": (1, 2, "There is no compression 2."),
        "chunk-coding-32": (1, 0x20, "There is no sealing 2."),
    }
    for name, (length, coding, shows) in chunks.items():
        talk = FrameTalk()
        body = bytearray(pack_chunk(stored(b"x")))
        body[32:37] = struct.pack(">IB", length, coding)
        talk.say(MOVER, talk.forge(MOVER, CHUNK, bytes(body)))
        yield Case(f"frames/{name}", 7, shows, talk, "protocol_violation")
    for name, body, shows in (
        ("want-bit-behind", b"\2", "WANT has a bit behind the last id."),
        ("want-longer", b"\1\0", "WANT has a byte too many."),
        ("want-shorter", b"\1", "WANT has a byte too few for 9 ids."),
    ):
        asked = IDS if name == "want-shorter" else IDS[:1]
        talk = FrameTalk().ids(MOVER, HAVE, 5, *asked).totals(MOVER)
        talk.say(REPOSITORY, talk.encode(REPOSITORY, WANT, 5, body))
        yield Case(f"frames/{name}", 7, shows, talk, "protocol_violation")


def totals() -> Iterator[Case]:
    """TOTALS, and the end."""
    frame = 12 + 32 + 16
    wrong = {
        "totals-bytes": ({"bytes": frame + 1, "frames": 1}, "TOTALS counts a byte too many."),
        "totals-frames": ({"bytes": frame, "frames": 0}, "TOTALS counts a frame too few."),
        "totals-self": ({"bytes": frame + 45, "frames": 2}, "TOTALS counts itself."),
    }
    for name, (fields, shows) in wrong.items():
        talk = FrameTalk().ids(MOVER, GET, 1, IDS[0])
        talk.say(MOVER, talk.encode(MOVER, TOTALS, 0, encode_body(**fields)))
        yield Case(f"frames/{name}", 7, shows, talk, "frame_mismatch")
    talk = FrameTalk()
    talk.say(MOVER, talk.encode(MOVER, TOTALS, 0, encode_body(bytes=0, frames=0, more=0)))
    shows = "TOTALS with a field that it does not have."
    yield Case("frames/totals-fields", 7, shows, talk, "protocol_violation")
    talk = FrameTalk().totals(MOVER)
    talk.say(MOVER, talk.encode(MOVER, GET, 1, IDS[0]))
    yield Case("frames/behind-totals", 7, "A frame behind TOTALS.", talk, "protocol_violation")
    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0])
    yield Case("frames/no-totals", 7, "The stream ends without TOTALS.", talk, "truncated")
    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0]).totals(MOVER)
    talk.ids(REPOSITORY, STORED, 0, IDS[0])
    shows = "One direction ends without TOTALS."
    yield Case("frames/no-totals-back", 7, shows, talk, "truncated")
    for cut in (11, 12, 43, 59):
        talk = FrameTalk()
        talk.say(MOVER, talk.encode(MOVER, GET, 1, IDS[0])[:cut])
        shows = f"The stream ends {cut} bytes into a frame of 60."
        yield Case(f"frames/cut-at-{cut}", 7, shows, talk, "truncated")


def tags() -> Iterator[Case]:
    """Tags."""
    talk = FrameTalk(stream=0x0102).ids(MOVER, GET, 1, IDS[0]).totals(MOVER)
    shows = "The stream's number is in the key and in the header (all streams are 0 in version 1)."
    yield Case("tags/stream", 7, shows, talk)
    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0]).ids(MOVER, GET, 1, IDS[0]).totals(MOVER)
    yield Case("tags/counter", 7, "The same frame twice: the counter makes two tags.", talk)
    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0]).ids(REPOSITORY, STORED, 0, IDS[0]).totals()
    yield Case("tags/directions", 7, "Each direction has a key and a counter of its own.", talk)

    places = {
        "kind": (0, 0x0F, "GET became STORED."),
        "request": (7, 1, "The request was changed."),
        "body": (12, 1, "The first byte of the body was changed."),
        "body-end": (43, 1, "The last byte of the body was changed."),
        "first": (44, 1, "The first byte of the tag was changed."),
        "last": (59, 0x80, "The last bit of the tag was changed."),
    }
    for name, (at, mask, shows) in places.items():
        talk = FrameTalk()
        talk.say(MOVER, changed(talk.encode(MOVER, GET, 1, IDS[0]), at, mask))
        yield Case(f"tags/changed-{name}", 7, shows, talk, "frame_mismatch")
    body = 12
    parts = {
        "id": (body, "The id of a CHUNK was changed."),
        "plain-length": (body + 35, "The plain length of a CHUNK was changed."),
        "coding": (body + 36, "The coding of a CHUNK was changed."),
        "digest": (body + 37, "The digest in a CHUNK was changed."),
        "data": (body + 69, "A stored byte was changed: the tag is good, the digest is not."),
    }
    for name, (at, shows) in parts.items():
        talk = FrameTalk()
        octets = talk.encode(MOVER, CHUNK, 1, pack_chunk(stored(b"stored bytes")))
        talk.say(MOVER, changed(octets, at))
        yield Case(f"tags/chunk-{name}", 7, shows, talk, "frame_mismatch")
    talk = FrameTalk()
    octets = talk.encode(MOVER, CHUNK, 1, pack_chunk(stored(b"m")))
    talk.say(MOVER, changed(octets, 1))
    yield Case("tags/chunk-flag", 7, "The flag of a CHUNK was changed.", talk, "frame_mismatch")
    talk = FrameTalk()
    wrong = bytearray(pack_chunk(stored(b"stored bytes")))
    wrong[37:69] = bytes(32)
    talk.say(MOVER, talk.forge(MOVER, CHUNK, bytes(wrong)))
    shows = "A CHUNK whose tag covers a digest that is not that of the bytes."
    yield Case("tags/wrong-digest", 7, shows, talk, "frame_mismatch")

    talk = FrameTalk()
    talk.say(MOVER, talk.forge(MOVER, GET, IDS[0], counter=1))
    yield Case("tags/counter-ahead", 7, "The counter starts at 1.", talk, "frame_mismatch")
    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0])
    talk.say(MOVER, bytes.fromhex(talk.bytes[-1][1]))
    yield Case("tags/repeated", 7, "A frame comes twice.", talk, "frame_mismatch")
    talk = FrameTalk()
    one, two = (talk.encode(MOVER, GET, n, IDS[n]) for n in (1, 2))
    talk.say(MOVER, two, one)
    yield Case("tags/swapped", 7, "Two frames change places.", talk, "frame_mismatch")
    talk = FrameTalk()
    talk.encode(MOVER, GET, 1, IDS[0])
    talk.say(MOVER, talk.encode(MOVER, GET, 2, IDS[0]))
    yield Case("tags/left-out", 7, "A frame is missing.", talk, "frame_mismatch")
    talk = FrameTalk()
    talk.say(REPOSITORY, talk.encode(MOVER, GET, 1, IDS[0]))
    yield Case("tags/reflected", 7, "The mover's frame comes back to it.", talk, "frame_mismatch")
    key = IntegrityKey(INTEGRITY_KEY)
    others = {
        "session": (frame_key(key, b"\x54" * 16, 0, MOVER), "Tagged for another session."),
        "stream": (frame_key(key, SESSION, 1, MOVER), "Tagged for another stream."),
        "integrity-key": (
            frame_key(IntegrityKey(bytes(32)), SESSION, 0, MOVER),
            "Tagged with another integrity key, as one would who holds only Key B.",
        ),
    }
    for name, (other, shows) in others.items():
        talk = FrameTalk()
        talk.say(MOVER, talk.forge(MOVER, GET, IDS[0], key=other))
        yield Case(f"tags/other-{name}", 7, shows, talk, "frame_mismatch")


def carried(frames: FrameTalk, *cuts: int) -> StreamTalk:
    """``frames`` inside a stream: each as a DATA record, or those of the mover cut at ``cuts``."""
    stream = StreamTalk(carries_frames=True).begin()
    if cuts:
        octets = b"".join(bytes.fromhex(part) for _, part in frames.bytes)
        for start, end in zip((0, *cuts), (*cuts, len(octets)), strict=True):
            stream.data(MOVER, octets[start:end])
    else:
        for side, octets in frames.bytes:
            stream.data(MOVER if side == "initiator" else REPOSITORY, bytes.fromhex(octets))
    return stream


def dialogues() -> Iterator[Case]:
    """Whole conversations: a preamble, a stream, and frames inside."""
    talk = FrameTalk().map(MOVER, HELLO, 1, versions=[1]).map(REPOSITORY, WELCOME, 1, version=1)
    talk.ids(MOVER, HAVE, 2, IDS[0], IDS[1]).want(REPOSITORY, 2, b"\2", 1)
    talk.chunk(MOVER, 3, b"new content").ids(REPOSITORY, STORED, 0, b"\xaa" * 32)
    fields = {"record": RECORD, "signature": SIGNATURE, "references": 0, "digest": digest()}
    talk.map(MOVER, POINT, 4, **fields).map(REPOSITORY, POINTED, 4, point=POINT_ID)
    yield whole("backup", "A small backup.", talk.totals())
    talk = FrameTalk().map(MOVER, OPEN, 1, point=POINT_ID)
    talk.map(REPOSITORY, OPENED, 1, record=RECORD, signature=SIGNATURE, arrival=7)
    talk.ids(MOVER, GET, 2, b"\xaa" * 32).chunk(REPOSITORY, 2, b"content")
    yield whole("restore", "A small restore.", talk.totals())

    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0]).totals(MOVER)
    stream = carried(talk, 20, 70)
    other = FrameTalk().totals(REPOSITORY)
    stream.data(REPOSITORY, bytes.fromhex(other.bytes[0][1])).end()
    stream.events += both(talk, other)
    shows = "Frames that are cut into other records than they are frames."
    yield Case("dialogues/frames-over-records", 7, shows, stream)

    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0]).totals()
    stream = carried(talk).rekey(MOVER).end()
    stream.events += both(talk)
    shows = "The keys of the stream change, the frames' do not."
    yield Case("dialogues/rekey", 7, shows, stream)

    talk = FrameTalk()
    talk.say(MOVER, changed(talk.encode(MOVER, GET, 1, IDS[0]), 12))
    stream = carried(talk.totals()).end()
    shows = "Good records with a changed frame: somebody between the movers who holds Key B."
    yield Case("dialogues/changed-inside", 7, shows, stream, "frame_mismatch")
    talk = FrameTalk().ids(MOVER, GET, 1, IDS[0])
    stream = carried(talk).end()
    stream.events += both(talk)
    shows = "A stream that ends properly, and frames that do not."
    yield Case("dialogues/no-totals", 7, shows, stream, "truncated")
    talk = FrameTalk()
    talk.encode(MOVER, GET, 1, IDS[0])
    stream = carried(talk.totals()).end()
    shows = "Somebody between the movers has left a frame out."
    yield Case("dialogues/frame-left-out", 7, shows, stream, "frame_mismatch")


def both(*talks: FrameTalk) -> list[list[object]]:
    """The events of frames, the mover's first: they are read when the stream has ended."""
    events = [event for talk in talks for event in talk.events]
    return sorted(events, key=lambda event: str(event[0]))


def whole(name: str, shows: str, talk: FrameTalk) -> Case:
    """A dialogue in which everything is right."""
    stream = carried(talk).end()
    stream.events += both(talk)
    return Case(f"dialogues/{name}", 7, shows, stream)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from kinds()
    yield from impossible()
    yield from bodies()
    yield from totals()
    yield from tags()
    yield from dialogues()
