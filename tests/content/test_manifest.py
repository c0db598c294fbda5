"""Manifests: entries as bytes and back, with bounds."""

from __future__ import annotations

import io
import sys
from typing import IO, Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.entries import FLAG_CHANGED, PATH_MAX, Entry, EntryType
from cloudconnect.content.manifest import EntryDecoder, encode_entry, encode_pieces
from cloudconnect.content.points import PointRecord
from cloudconnect.content.runs import Run, RunList
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import CHUNK_MAX, MANIFEST_ENTRY_MAX, MANIFEST_PIECE_RUNS

CHUNK = bytes(range(32))


def entry(path: bytes = b"/srv/file", **changes: Any) -> Entry:
    """A file's entry with ``changes``."""
    fields: dict[str, Any] = {
        "type": EntryType.FILE,
        "mode": 0o644,
        "uid": 1000,
        "gid": 100,
        "user": "ann",
        "group": "users",
        "mtime_ns": 1_700_000_000_123_456_789,
    }
    return Entry(path, **{**fields, **changes})


def decoded(data: bytes, *ends: int) -> list[Entry]:
    """The entries of a whole manifest that comes in pieces which end at ``ends``."""
    decoder = EntryDecoder()
    entries: list[Entry] = []
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        entries += decoder.feed(data[start:end])
    decoder.finish()
    return entries


def item(value: object) -> bytes:
    """``value`` as one item of the sequence."""
    return cbor2.dumps(cbor2.dumps(value))


# Names as a file system allows them: any byte but zero and the slash, up to 255 of them.
names = st.one_of(
    st.binary(min_size=1, max_size=255),
    st.text(min_size=1, max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")[:255]),
    st.sampled_from([b"\xff\xfe", b"new\nline", b"n" * 255, b"...", b" ", b"\\", b"\xe2\x82"]),
).map(lambda name: name.translate(None, b"\0/") or b"x")
names = names.map(lambda name: b"dot" if name in (b".", b"..") else name)
paths = st.one_of(
    st.just(b"/"),
    st.lists(names, min_size=1, max_size=6).map(lambda parts: b"/" + b"/".join(parts)),
)
runs = st.lists(
    st.builds(
        lambda name, offset, length: Run(name, offset if name else 0, length),
        st.one_of(st.none(), st.binary(min_size=32, max_size=32)),
        st.integers(0, CHUNK_MAX - 262144),
        st.integers(1, 262144),
    ),
    max_size=6,
)
# Names of users as Python has them: bytes that are not UTF-8 are surrogate escapes.
users = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=20).map(lambda name: name.decode("utf-8", "surrogateescape")),
)
xattrs = st.dictionaries(
    st.binary(min_size=1, max_size=255).map(lambda name: name.translate(None, b"\0") or b"user.x"),
    st.binary(max_size=300),
    max_size=4,
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any entry that a walk may find."""
    kind = draw(st.sampled_from(EntryType))
    hard_link = kind is not EntryType.DIRECTORY and draw(st.booleans())
    content = tuple(draw(runs)) if kind is EntryType.FILE and not hard_link else ()
    return Entry(
        draw(paths),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.integers(0, (1 << 32) - 1)),
        draw(st.integers(0, (1 << 32) - 1)),
        draw(users),
        draw(users),
        draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        sum(run.length for run in content),
        content,
        draw(names) if kind is EntryType.SYMLINK else None,
        draw(st.one_of(st.none(), st.integers(0, (1 << 64) - 1))),
        draw(paths) if hard_link else None,
        draw(xattrs),
        draw(st.integers(0, 255)),
    )


class ThereAndBackTests(SynchronousTestCase):
    """What was encoded comes back."""

    @given(st.lists(entries(), max_size=5), st.lists(st.integers(0, 5000), max_size=10))
    @settings(deadline=None, max_examples=100)
    def test_any(self, some: list[Entry], cuts: list[int]) -> None:
        """Any entries come back as they were, however the manifest is split."""
        data = b"".join(map(encode_entry, some))
        ends = sorted(cut % (len(data) + 1) for cut in cuts)
        self.assertEqual(decoded(data, *ends), some)

    @given(entries())
    @settings(deadline=None, max_examples=50)
    def test_canonical(self, one: Entry) -> None:
        """The encoding is the canonical one: the same entry always gives the same chunks."""
        encoded = encode_entry(one)
        inside = cbor2.loads(encoded)
        self.assertEqual(cbor2.dumps(inside, canonical=True), encoded)
        self.assertEqual(cbor2.dumps(cbor2.loads(inside), canonical=True), inside)

    def test_golden(self) -> None:
        """The encoding never changes: a change would store all manifests once more."""
        one = entry(size=5, runs=(Run(CHUNK, 7, 3), Run(None, 0, 2)))
        self.assertEqual(
            encode_entry(one).hex(),
            "5865aa"
            "6147457573657273"  # group
            "615543616e6e"  # user
            "61671864"  # gid
            "616d1901a4"  # mode
            "616e1b17979cfe3d85cd15"  # mtime
            "6170492f7372762f66696c65"  # path
            "6172865820" + CHUNK.hex() + "0703f60002"  # runs
            "617305"  # size
            "61746166"  # type
            "61751903e8",  # uid
        )

    def test_byte_by_byte(self) -> None:
        """One byte at a time gives the entries as soon as each is complete."""
        some = [entry(b"/a"), entry(b"/" + b"\xff" * 255), entry(b"/b\n")]
        data = b"".join(map(encode_entry, some))
        complete = []
        decoder = EntryDecoder()
        for index in range(len(data)):
            complete += [(index + 1, one) for one in decoder.feed(data[index : index + 1])]
        decoder.finish()
        ends = [len(b"".join(map(encode_entry, some[: i + 1]))) for i in range(3)]
        self.assertEqual(complete, list(zip(ends, some, strict=True)))

    def test_many_runs(self) -> None:
        """A file of more runs than a piece holds takes several, and comes back as one entry."""
        for count in (
            MANIFEST_PIECE_RUNS,
            MANIFEST_PIECE_RUNS + 1,
            2 * MANIFEST_PIECE_RUNS,
            2 * MANIFEST_PIECE_RUNS + 1,
        ):
            many = tuple(Run(CHUNK, 0, 1 + i % 1000) for i in range(count))
            one = entry(runs=many, size=sum(run.length for run in many))
            after = entry(b"/srv/next")
            data = encode_entry(one) + encode_entry(after)
            self.assertEqual(decoded(data, *range(70_000, len(data), 70_000)), [one, after])

    def test_pieces(self) -> None:
        """Piece by piece gives the same items, each within the bounds; a file takes many runs."""
        count = 2 * MANIFEST_PIECE_RUNS + 3
        kept, files = RunList(), list[io.BytesIO]()
        kept.extend(Run(CHUNK, number % 7, 1 + number % 1000) for number in range(count))
        one = entry(runs=kept, size=kept.total)
        pieces = list(encode_pieces(one))
        self.assertEqual(len(pieces), 3)
        self.assertLess(max(map(len, pieces)), MANIFEST_ENTRY_MAX)
        self.assertEqual(b"".join(pieces), encode_entry(one))

        def spill() -> IO[bytes]:
            files.append(io.BytesIO())
            return files[-1]

        decoder, found = EntryDecoder(spill), list[Entry]()
        for piece in pieces:
            found += decoder.feed(piece)
        decoder.finish()
        self.assertEqual(found, [one])
        self.assertEqual(len(files), 1)
        self.assertGreater(len(files[0].getvalue()), 1 << 20)

    def test_defaults_take_no_space(self) -> None:
        """Fields that say nothing are left out."""
        bare = entry(user="", group="")
        self.assertEqual(sorted(cbor2.loads(cbor2.loads(encode_entry(bare)))), list("gmnptu"))

    def test_feed_before_taking(self) -> None:
        """What is fed is kept, also while nobody asks for the entries yet."""
        some = [entry(b"/a"), entry(b"/b"), entry(b"/c")]
        decoder = EntryDecoder()
        first = decoder.feed(encode_entry(some[0]) + encode_entry(some[1]))
        self.assertEqual(next(first), some[0])
        second = decoder.feed(encode_entry(some[2]))
        self.assertEqual([*second], some[1:])
        self.assertEqual([*first], [])
        decoder.finish()

    def test_point_record_is_exported(self) -> None:
        """The module exports the record that belongs to a manifest."""
        self.assertEqual(PointRecord.__module__, "cloudconnect.content.points")


class StrictTests(SynchronousTestCase):
    """What a reader would refuse cannot be written."""

    def test_refused(self) -> None:
        """Impossible entries cannot be made."""
        hole = Run(None, 0, 5)
        bad: list[dict[str, Any]] = [
            {"path": b""},
            {"path": b"relative"},
            {"path": "/text"},
            {"path": b"/a\0b"},
            {"path": b"/a/"},
            {"path": b"//"},
            {"path": b"//a"},
            {"path": b"/a//b"},
            {"path": b"/."},
            {"path": b"/a/./b"},
            {"path": b"/.."},
            {"path": b"/a/.."},
            {"path": b"/../etc"},
            {"path": b"/" * (PATH_MAX + 1)},
            {"path": b"/" + b"a" * PATH_MAX},
            {"mode": 0o10000},
            {"mode": -1},
            {"mode": 1.5},
            {"mode": True},
            {"uid": -1},
            {"uid": 1 << 32},
            {"gid": 1 << 32},
            {"gid": None},
            {"mtime_ns": 1 << 63},
            {"mtime_ns": -(1 << 63) - 1},
            {"mtime_ns": 0.5},
            {"size": -1},
            {"size": 5},
            {"size": 4, "runs": (hole,)},
            {"size": 0, "runs": (Run(None, 0, 0),)},
            {"size": 0, "runs": (Run(None, 0, -5), hole)},
            {"size": 5, "runs": (Run(None, 1, 5),)},
            {"size": 5, "runs": (Run(b"short", 0, 5),)},
            {"size": 5, "runs": (Run(CHUNK, -1, 5),)},
            {"size": 5, "runs": (Run(CHUNK, CHUNK_MAX - 4, 5),)},
            {"size": 5, "runs": (hole,), "link": b"/other"},
            {"size": 5, "runs": (hole,), "type": EntryType.DIRECTORY},
            {"size": 5, "type": EntryType.FIFO},
            {"link": b"other"},
            {"link": b"/a/../b"},
            {"target": b"x"},
            {"type": EntryType.SYMLINK},
            {"type": EntryType.SYMLINK, "target": b""},
            {"type": EntryType.SYMLINK, "target": b"a\0"},
            {"type": EntryType.SYMLINK, "target": b"a" * (PATH_MAX + 1)},
            {"device": -1},
            {"device": 1 << 64},
            {"device": True},
            {"xattrs": ((b"b", b""), (b"a", b""))},
            {"xattrs": ((b"a", b""), (b"a", b"x"))},
            {"xattrs": ((b"", b""),)},
            {"xattrs": ((b"a" * 256, b""),)},
            {"xattrs": ((b"a\0", b""),)},
            {"xattrs": ((b"a", "text"),)},
            {"flags": -1},
            {"flags": 256},
        ]
        for changes in bad:
            with self.assertRaises(ValueError, msg=str(changes)):
                entry(**changes)

    def test_allowed(self) -> None:
        """What looks odd and is right is written and read."""
        odd: list[dict[str, Any]] = [
            {"path": b"/"},
            {"path": b"/..."},
            {"path": b"/.hidden/..x/x.."},
            {"path": b"/" + b"a" * (PATH_MAX - 1)},
            {"size": 5, "runs": (Run(CHUNK, CHUNK_MAX - 5, 5),)},
            {"link": b"/other", "size": 5},
            {"type": EntryType.SYMLINK, "target": b"../../etc", "link": b"/other"},
            {"user": "\udcff", "group": "g\udc80"},
            {"mtime_ns": -1},
        ]
        for changes in odd:
            one = entry(**changes)
            self.assertEqual(decoded(encode_entry(one)), [one])

    def test_too_large(self) -> None:
        """An entry whose attributes are beyond the bound is refused when it is encoded."""
        large = entry(xattrs=tuple((b"user.%03d" % i, bytes(65536)) for i in range(64)))
        self.assertRaises(ValueError, encode_entry, large)
        fits = large._replace(xattrs=large.xattrs[:63])
        self.assertEqual(decoded(encode_entry(fits)), [fits])


class DamageTests(SynchronousTestCase):
    """Manifests that were not written by this release, or were changed."""

    def refused(self, data: bytes) -> None:
        """Assert that ``data`` is refused, and the decoder takes nothing after it."""
        decoder = EntryDecoder()
        self.assertRaises(StoredDataDamaged, list, decoder.feed(data))
        self.assertRaises(StoredDataDamaged, list, decoder.feed(encode_entry(entry())))
        self.assertRaises(StoredDataDamaged, decoder.finish)

    def map_of(self, **changes: object) -> dict[str, object]:
        """The map inside an entry's item, changed."""
        return {**cbor2.loads(cbor2.loads(encode_entry(entry()))), **changes}

    def test_cut(self) -> None:
        """A manifest that was cut inside an entry is refused at its end."""
        data = encode_entry(entry())
        for length in range(1, len(data)):
            decoder = EntryDecoder()
            self.assertEqual(list(decoder.feed(data[:length])), [])
            self.assertRaises(StoredDataDamaged, decoder.finish)

    def test_cut_between_pieces(self) -> None:
        """A file of which runs are missing is refused at the manifest's end."""
        many = (Run(CHUNK, 0, 1),) * (MANIFEST_PIECE_RUNS + 1)
        data = encode_entry(entry(runs=many, size=len(many)))
        last = len(item([CHUNK, 0, 1]))
        decoder = EntryDecoder()
        self.assertEqual(list(decoder.feed(data[:-last])), [])
        self.assertRaises(StoredDataDamaged, decoder.finish)

    def test_entries_before_the_damage(self) -> None:
        """Entries before a bad one are still given."""
        decoder = EntryDecoder()
        found = decoder.feed(encode_entry(entry()) + b"\x00")
        self.assertEqual(next(found), entry())
        self.assertRaises(StoredDataDamaged, next, found)

    def test_not_a_byte_string(self) -> None:
        """Anything but byte strings of a definite, possible length is refused at its first byte."""
        for first in range(256):
            if first not in (*range(0x40, 0x58), 0x58, 0x59, 0x5A):
                self.refused(bytes([first]))

    def test_huge_lengths(self) -> None:
        """An item longer than the bound is refused before any of it is there."""
        self.refused(b"\x5a" + (MANIFEST_ENTRY_MAX + 1).to_bytes(4, "big"))
        self.refused(b"\x5a\xff\xff\xff\xff")
        decoder = EntryDecoder()
        self.assertEqual(list(decoder.feed(b"\x5a" + MANIFEST_ENTRY_MAX.to_bytes(4, "big"))), [])

    def test_bombs(self) -> None:
        """Nesting, huge lengths, tags, references and indefinite lengths inside are refused."""
        for inside in (
            b"\x81" * 100_000,
            b"\xa1\x61r" * 100_000,
            b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\xa1\x61r\x9a\xff\xff\xff\xff",
            b"\xbf\xff",
            b"\x9f\xff",
            b"\xa1\x61p\x5f\x41/\xff",
            b"",
            b"\xff",
            b"\xf7",
            b"\x1c",
        ):
            self.refused(cbor2.dumps(inside))

    def test_depth(self) -> None:
        """What is nested deeper than an entry is refused by the decoder, not after it."""
        decoder = EntryDecoder()
        error = self.assertRaises(
            StoredDataDamaged, list, decoder.feed(item(self.map_of(x=[[[b"name"]], b""])))
        )
        self.assertIsInstance(error.__cause__, cbor2.CBORError)

    def test_indefinite_lengths(self) -> None:
        """An otherwise good entry with an indefinite length somewhere in it is refused."""
        inside = cbor2.loads(encode_entry(entry()))
        self.assertEqual(decoded(cbor2.dumps(inside)), [entry()])
        path = cbor2.dumps(b"/srv/file")
        self.refused(cbor2.dumps(b"\xbf" + inside[1:] + b"\xff"))
        self.refused(cbor2.dumps(inside.replace(path, b"\x5f" + path + b"\xff")))

    def test_tags(self) -> None:
        """No tag is interpreted, wherever it stands: the expensive ones are never computed."""
        for number in [*range(300), 1004, 43000, 55799, 1 << 60]:
            for value in (0, b"", "(a+)+"):
                tagged = cbor2.CBORTag(number, value)
                for bad in (tagged, {"p": tagged}, {"r": [tagged]}):
                    with self.assertRaises(StoredDataDamaged) as caught:
                        list(EntryDecoder().feed(item(bad)))
                    self.assertIn("CBOR tag", repr(caught.exception.__cause__.__cause__))

    def test_keys(self) -> None:
        """Keys are text, known and there once."""
        for key in (0, b"p", None, 1.5, "unknown", "P", ""):
            self.refused(item({**self.map_of(), key: 1}))
        good = cbor2.loads(encode_entry(entry()))
        self.assertEqual(good[0], 0xA8)
        self.refused(cbor2.dumps(b"\xa9" + good[1:] + b"\x61u\x00"))

    def test_missing(self) -> None:
        """Every field that has no default must be there."""
        for name in "gmnptu":
            fields = self.map_of()
            del fields[name]
            self.refused(item(fields))

    def test_wrong_types(self) -> None:
        """A value of the wrong type is refused in every field."""
        right = {
            "p": bytes, "t": str, "m": int, "u": int, "g": int, "U": bytes, "G": bytes, "n": int,
            "s": int, "r": list, "l": bytes, "d": int, "h": bytes, "x": list, "f": int,
        }  # fmt: skip
        values: list[Any] = [b"/x", "f", 0, 1.5, True, [], [1], [1, 2, 3], [b"a"], {}, {"a": 1}]
        for name, kind in right.items():
            for value in values:
                if type(value) is not kind:
                    with self.assertRaises(StoredDataDamaged, msg=f"{name} {value}"):
                        list(EntryDecoder().feed(item(self.map_of(**{name: value}))))

    def test_wrong_values(self) -> None:
        """Values that the writer would refuse are refused when they are read."""
        for changes in (
            {"t": "z"},
            {"p": b"/../x"},
            {"m": 1 << 20},
            {"s": 5},
            {"s": 5, "r": [None, 0, 5, 1]},
            {"s": 5, "r": [None, 0, "5"]},
            {"s": 5, "r": ["x" * 32, 0, 5]},
            {"s": 5, "r": [None, 0, True, None, 0, 4]},
            {"s": 5, "r": [None, 0, 1 << 70]},
            {"x": [b"name"]},
            {"x": [b"name", "text"]},
            {"n": -(1 << 64)},
        ):
            self.refused(item(self.map_of(**changes)))

    def test_bytes_behind_the_entry(self) -> None:
        """An item that holds more than its entry is refused."""
        inside = cbor2.loads(encode_entry(entry()))
        self.refused(cbor2.dumps(inside + b"\0"))
        self.refused(cbor2.dumps(inside + inside))

    def test_pieces(self) -> None:
        """Runs without an entry, too many, too few or endless ones are refused."""
        triple = [CHUNK, 0, 1]
        count = MANIFEST_PIECE_RUNS + 2
        first = item(self.map_of(c=count, s=count, r=triple * MANIFEST_PIECE_RUNS))
        self.assertEqual(len(decoded(first + item(triple) + item(triple))), 1)
        self.refused(item(triple))
        self.refused(item(triple * MANIFEST_PIECE_RUNS))
        self.refused(first + item([]))
        self.refused(first + item(triple * 3))
        longer = item(self.map_of(c=count, s=count + 1, r=triple * MANIFEST_PIECE_RUNS))
        self.refused(longer + item(triple * 3))
        self.refused(first + item(self.map_of()))
        self.refused(first + item(triple * (MANIFEST_PIECE_RUNS + 1)))
        self.refused(item(self.map_of(r=triple * (MANIFEST_PIECE_RUNS + 1), s=count - 1)))
        for wrong in (0, 1, MANIFEST_PIECE_RUNS, -1, 1 << 40, True, "2", None):
            if wrong is not None:
                self.refused(item(self.map_of(c=wrong, r=triple, s=1)))

    def test_colliding_keys(self) -> None:
        """Keys whose hashes a writer could choose are refused by the decoder, not after it."""
        modulus = sys.hash_info.modulus
        for keys in ([i * modulus for i in range(8)], [i / 2 for i in range(8)], [True]):
            decoder = EntryDecoder()
            error = self.assertRaises(
                StoredDataDamaged, list, decoder.feed(item(dict.fromkeys(keys)))
            )
            self.assertIsInstance(error.__cause__, cbor2.CBORError)

    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_anything(self, data: bytes) -> None:
        """Random bytes are refused by name or wait for more; nothing else happens."""
        decoder = EntryDecoder()
        try:
            self.assertEqual(list(decoder.feed(data)), [])
            decoder.finish()
        except StoredDataDamaged:
            return
        self.assertEqual(data, b"")

    @given(entries(), st.data())
    @settings(deadline=None, max_examples=150)
    def test_mutations(self, one: Entry, data: st.DataObject) -> None:
        """A changed byte gives another entry or is refused by name."""
        encoded = bytearray(encode_entry(one))
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] ^= data.draw(st.integers(1, 255))
        try:
            found = decoded(bytes(encoded))
        except StoredDataDamaged:
            return
        self.assertNotEqual(found, [one])

    def test_no_content_in_errors(self) -> None:
        """What a damaged entry holds is not shown."""
        error = self.assertRaises(
            StoredDataDamaged, list, EntryDecoder().feed(item(self.map_of(p=b"secret-name")))
        )
        self.assertNotIn("secret-name", f"{error} {error!r}")


class BufferTests(SynchronousTestCase):
    """What a decoder keeps."""

    def test_bounded(self) -> None:
        """A decoder keeps no more than the entry that is not complete."""
        decoder = EntryDecoder()
        data = encode_entry(entry()) * 1000
        for at in range(0, len(data), 1000):
            list(decoder.feed(data[at : at + 1000]))
            self.assertLess(len(decoder._buffer), len(encode_entry(entry())))

    def test_flags(self) -> None:
        """The flag of a changed file is one of those that fit."""
        self.assertEqual(decoded(encode_entry(entry(flags=FLAG_CHANGED)))[0].flags, 1)
