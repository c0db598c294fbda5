"""Usual files' entries, encoded directly."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.entries import PATH_MAX, Entry, EntryType
from cloudconnect.content.manifest import encode_entry
from cloudconnect.content.runs import Run
from cloudconnect.content.usual import encode_file
from cloudconnect.settings import CHUNK_MAX, MANIFEST_PIECE_RUNS

CHUNK = bytes(range(32))
FILE: dict[str, Any] = {
    "path": b"/srv/file",
    "mode": 0o644,
    "uid": 1000,
    "gid": 100,
    "user": "ann",
    "group": "users",
    "mtime_ns": 1_700_000_000_123_456_789,
    "size": 5,
    "runs": (Run(CHUNK, 0, 5),),
}

# Numbers on both sides of each length that an encoded number can have.
edges = st.sampled_from([1 << bits for bits in (1, 5, 8, 16, 32, 62)]).flatmap(
    lambda edge: st.integers(max(edge - 9, 0), edge + 9)
)
names = st.binary(min_size=1, max_size=300).map(lambda name: b"n" + name.translate(None, b"\0/"))
users = st.one_of(
    st.just(""),
    st.binary(max_size=20).map(lambda name: name.decode("utf-8", "surrogateescape")),
)
runs = st.lists(
    st.builds(
        lambda name, offset, length: Run(name, offset if name else 0, length),
        st.one_of(st.none(), st.binary(min_size=32, max_size=32)),
        st.one_of(st.integers(0, CHUNK_MAX - 262144), st.just(0)),
        st.one_of(st.integers(1, 262144), st.integers(1, 300)),
    ),
    max_size=30,
)
usual = st.fixed_dictionaries(
    {
        "path": st.lists(names, min_size=1, max_size=4).map(lambda parts: b"/" + b"/".join(parts)),
        "mode": st.integers(0, 0o7777),
        "uid": edges.filter(lambda number: number < 1 << 32),
        "gid": edges.filter(lambda number: number < 1 << 32),
        "user": users,
        "group": users,
        "mtime_ns": st.one_of(edges, edges.map(lambda number: -number)),
        "runs": runs.map(tuple),
        "flags": st.integers(0, 255),
    }
).map(lambda fields: {**fields, "size": sum(run.length for run in fields["runs"])})


class SameTests(SynchronousTestCase):
    """They are what the general encoder writes, and refused where that refuses."""

    @given(usual)
    @settings(deadline=None, max_examples=300)
    def test_same(self, fields: dict[str, Any]) -> None:
        """The same bytes as the general encoder's, whatever the fields."""
        self.assertEqual(encode_file(**fields), encode_entry(Entry(type=EntryType.FILE, **fields)))

    def test_many_runs(self) -> None:
        """As many runs as one piece may have; one more is refused."""
        most = (Run(CHUNK, 0, 5),) * MANIFEST_PIECE_RUNS
        fields = {**FILE, "runs": most, "size": 5 * len(most)}
        entry = Entry(type=EntryType.FILE, **fields)
        self.assertEqual(encode_file(**fields), encode_entry(entry))
        more = {**FILE, "runs": (*most, most[0]), "size": 5 * len(most) + 5}
        self.assertRaises(ValueError, encode_file, **more)

    def test_refused(self) -> None:
        """What an entry refuses is refused."""
        for changes in (
            {"path": b"srv/file"},
            {"path": b"/srv/../file"},
            {"path": b"/srv\0"},
            {"path": b"/" + b"n" * PATH_MAX},
            {"mode": 0o10000},
            {"uid": -1},
            {"gid": 1 << 32},
            {"mtime_ns": 1 << 63},
            {"size": 6},
            {"size": -1},
            {"flags": 256},
            {"runs": ()},
            {"runs": (Run(b"short", 0, 5),)},
            {"runs": (Run(CHUNK, CHUNK_MAX, 5),)},
            {"runs": (Run(None, 1, 5),)},
        ):
            fields = {**FILE, **changes}
            self.assertRaises(ValueError, Entry, type=EntryType.FILE, **fields)
            self.assertRaises(ValueError, encode_file, **fields)
