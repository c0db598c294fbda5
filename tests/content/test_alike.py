"""Entries that are like one before: the same as the general decoder gives, or left to it."""

from __future__ import annotations

from typing import Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import alike
from cloudconnect.content.alike import AlikeFiles
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.manifest import EntryDecoder, encode_entry
from cloudconnect.content.runs import Run
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.settings import CHUNK_MAX

CHUNK = bytes(range(32))
FIELDS: dict[str, Any] = {
    "G": b"users",
    "U": b"ann",
    "g": 100,
    "m": 0o644,
    "n": 1_700_000_000_123_456_789,
    "p": b"/srv/file",
    "r": [CHUNK, 5, 10],
    "s": 10,
    "t": "f",
    "u": 1000,
}
#: What may take the place of a field's value, good or bad.
VALUES: dict[str, list[Any]] = {
    "G": [b"users", b"an\x1b", None],
    "U": [b"ann", b"", None],
    "f": [1, 2, 300, None],
    "g": [100, 0, 1 << 32],
    "m": [0o644, 0o755, 0o10000],
    "n": [1_700_000_000_000_000_000, 0, -1, 1 << 62, 1 << 63, 1 << 64],
    "p": [b"/x", b"/" + b"long" * 80, b"/a/../b", b"/a//b", b"", b"relative", b"/nul\0", "/text"],
    "r": [
        [CHUNK, 0, 10],
        [CHUNK, 5, 1 << 40],
        [CHUNK, CHUNK_MAX - 9, 10],
        [CHUNK, 300, 0],
        [None, 0, 10],
        [b"short", 0, 10],
        [CHUNK, 0, 5, CHUNK, 5, 5],
        [],
        None,
    ],
    "s": [10, 11, 0, None],
    "t": ["f", "d", "l"],
    "u": [1000, 0, -1],
    "x": [[b"user.a", b"1"], None],
    "h": [b"/first", None],
    "zz": [1, None],
}


def item(**changes: Any) -> bytes:
    """An encoded map in canonical order; None leaves a field out."""
    fields = {**FIELDS, **changes}
    named = sorted(fields.items(), key=lambda pair: (len(pair[0]), pair[0]))
    return cbor2.dumps({name: value for name, value in named if value is not None})


def read(*items: bytes, general: bool = False) -> list[Entry | str]:
    """What a decoder makes of some items, each behind a good one: the entry, or what is wrong."""
    found: list[Entry | str] = []
    for encoded in items:
        decoder = EntryDecoder()
        if general:
            decoder._alike.remember = lambda *given: None  # type: ignore[method-assign]
        try:
            entries = list(decoder.feed(cbor2.dumps(item()) + cbor2.dumps(encoded)))
            found.append(entries[1])
        except StoredDataDamaged as error:
            found.append(str(error))
    return found


def changed() -> st.SearchStrategy[bytes]:
    """Items that differ from the usual one in some fields."""
    one = st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(VALUES[name]))
    )
    return st.lists(one, max_size=3).map(lambda pairs: item(**dict(pairs)))


class AlikeTests(SynchronousTestCase):
    """Two ways of decoding."""

    @settings(max_examples=300, deadline=None)
    @given(changed())
    def test_same_as_general(self, encoded: bytes) -> None:
        """Whatever differs, the result is that of the general decoder, errors included."""
        self.assertEqual(read(encoded), read(encoded, general=True))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """So it is where bytes are changed, left out or added."""
        good = item(p=b"/another", r=[CHUNK, 1000, 70000], s=70000)
        at = data.draw(st.integers(0, len(good)))
        cut = data.draw(st.integers(0, 3))
        encoded = good[:at] + data.draw(st.binary(max_size=3)) + good[at + cut :]
        self.assertEqual(read(encoded), read(encoded, general=True))

    def remembered(self, **changes: Any) -> tuple[AlikeFiles, Entry]:
        """A memory of one entry, and the entry."""
        encoded = item(**changes)
        (known,) = EntryDecoder().feed(cbor2.dumps(encoded))
        files, fields = AlikeFiles(), cbor2.loads(encoded)
        fields.pop("r", None)
        files.remember(encoded, fields, known)
        return files, known

    def test_is_read(self) -> None:
        """A usual neighbour is recognized, whatever the sizes of its numbers."""
        files, known = self.remembered()
        for offset, length in ((0, 1), (23, 24), (255, 256), (65535, 65536), (1 << 20, 1 << 21)):
            octets = b"before" + cbor2.dumps(
                item(p=b"/new", n=1 << 40, r=[CHUNK, offset, length], s=length)
            )
            runs = (Run(CHUNK, offset, length),)
            wanted = known._replace(path=b"/new", mtime_ns=1 << 40, runs=runs, size=length)
            self.assertEqual(files.read(octets + b"behind", 6), (wanted, len(octets)))
            self.assertIsNone(files.read(octets[:-1], 6))

    def test_folder(self) -> None:
        """So is a directory, which has no content; a file is not like it, nor it like a file."""
        folder = {"t": "d", "r": None, "s": None}
        files, known = self.remembered(**folder)
        octets = cbor2.dumps(item(p=b"/srv/" + b"long" * 30, n=1 << 40, **folder))
        wanted = known._replace(path=b"/srv/" + b"long" * 30, mtime_ns=1 << 40)
        self.assertEqual(files.read(octets, 0), (wanted, len(octets)))
        self.assertIsNone(files.read(cbor2.dumps(item()), 0))
        self.assertIsNone(self.remembered()[0].read(octets, 0))

    def test_several(self) -> None:
        """Several kinds of neighbours are known at once, the oldest is forgotten."""
        files, known = self.remembered(u=0)
        users = range(alike.KNOWN_MAX + 1)
        for user in users[1:]:
            fields = {name: value for name, value in FIELDS.items() if name != "r"} | {"u": user}
            files.remember(item(u=user), fields, known._replace(uid=user))
        found = [files.read(cbor2.dumps(item(u=user)), 0) for user in users]
        self.assertEqual([one and one[0].uid for one in found], [None, *users[1:]])

    def test_other_kinds(self) -> None:
        """What has attributes, or further names, is not taken for a usual file."""
        files = AlikeFiles()
        (known,) = EntryDecoder().feed(cbor2.dumps(item()))
        for name, value in (("x", [b"user.a", b"1"]), ("h", b"/first"), ("l", b"to"), ("d", 1)):
            encoded = item(**{name: value})
            files.remember(encoded, {**FIELDS, name: value}, known)
            self.assertIsNone(files.read(cbor2.dumps(encoded), 0))

    def test_many(self) -> None:
        """A manifest of neighbours comes back as it was encoded."""
        entries = [
            Entry(
                b"/d/%d" % number,
                EntryType.FILE,
                0o600 + number % 6,
                number % 3,
                0,
                "",
                "root" if number % 2 else "",
                (1 << 60) + number,
                number + 1,
                (Run(CHUNK, number, number + 1),),
                flags=number % 2,
            )
            for number in range(300)
        ]
        self.assertEqual(list(EntryDecoder().feed(b"".join(map(encode_entry, entries)))), entries)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(1, 200), min_size=1, max_size=8), st.data())
    def test_in_pieces(self, lengths: list[int], data: st.DataObject) -> None:
        """So it does in pieces that end anywhere: an entry that was not all there is waited for,
        and shorter ones behind it are not."""
        one = Entry(
            b"/first", EntryType.FILE, 0o644, 0, 0, "", "", 1 << 60, 10, (Run(CHUNK, 0, 10),)
        )
        entries = [one, *(one._replace(path=b"/" + b"x" * length) for length in lengths)]
        manifest = b"".join(map(encode_entry, entries))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(manifest)), max_size=6)))
        decoder, found = EntryDecoder(), list[Entry]()
        for start, end in zip([0, *cuts], [*cuts, len(manifest)], strict=True):
            found += decoder.feed(manifest[start:end])
        decoder.finish()
        self.assertEqual(found, entries)
