"""The record of a restore point."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.points import LABEL_MAX, STATISTICS_MAX, TAGS_MAX, PointRecord
from cloudconnect.content.subkeys import EncryptionMode
from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import FRAME_BODY_MAX, POINT_RECORD_MAX
from cloudconnect.wire import canonical


def record(**changes: Any) -> PointRecord:
    """A record with ``changes``."""
    fields: dict[str, Any] = {
        "point": b"p" * 16,
        "repository": b"r" * 16,
        "session": b"s" * 16,
        "job_id": b"j" * 16,
        "host": "büro-7",
        "job": "nightly",
        "tags": ("before upgrade", "weekly"),
        "started_ns": 1_700_000_000_123_456_789,
        "finished_ns": 1_700_000_060_000_000_001,
        "mode": EncryptionMode.TENANT,
        "manifest": (bytes(32), b"\1" * 32, bytes(32)),
        "manifest_length": 123_456,
        "statistics": {"files": 3, "directories": 1, "other": 0, "bytes_source": 1 << 40},
        "private": b"sealed",
    }
    return PointRecord(**{**fields, **changes})


labels = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=LABEL_MAX
)
octets16 = st.binary(min_size=16, max_size=16)
words = st.integers(0, (1 << 63) - 1)


class EncodingTests(SynchronousTestCase):
    """The bytes that the tenant signs and the provider stores."""

    @given(
        labels,
        labels,
        st.lists(labels, max_size=5),
        octets16,
        words,
        words,
        st.sampled_from(EncryptionMode),
        st.lists(st.binary(min_size=32, max_size=32), max_size=10),
        st.dictionaries(labels, words, max_size=10),
        st.binary(max_size=100),
    )
    @settings(deadline=None, max_examples=50)
    def test_there_and_back(
        self,
        host: str,
        job: str,
        tags: list[str],
        point: bytes,
        started: int,
        length: int,
        mode: EncryptionMode,
        manifest: list[bytes],
        statistics: dict[str, int],
        private: bytes,
    ) -> None:
        """A record comes back as it was, and has one encoding."""
        one = record(
            host=host,
            job=job,
            tags=tuple(tags),
            point=point,
            started_ns=started,
            manifest_length=length,
            mode=mode,
            manifest=tuple(manifest),
            statistics=statistics,
            private=private,
        )
        encoded = one.encode()
        self.assertEqual(PointRecord.decode(encoded), one)
        self.assertEqual(PointRecord.decode(memoryview(encoded)).encode(), encoded)

    def test_golden(self) -> None:
        """The encoding never changes: signatures are over it."""
        small = record(tags=(), manifest=(), statistics={"files": 1}, private=b"", host="h")
        self.assertEqual(
            small.encode().hex(),
            "af"
            "636a6f62676e696768746c79"  # job
            "64686f73746168"  # host
            "646d6f64656674656e616e74"  # mode
            "647461677380"  # tags
            f"65706f696e7450{'70' * 16}"  # point
            f"666a6f625f696450{'6a' * 16}"  # job_id
            "677072697661746540"  # private
            f"6773657373696f6e50{'73' * 16}"  # session
            "6776657273696f6e01"  # version
            "686d616e696665737440"  # manifest
            f"6a7265706f7369746f727950{'72' * 16}"  # repository
            "6a737461727465645f6e731b17979cfe3d85cd15"  # started_ns
            "6a73746174697374696373a16566696c657301"  # statistics
            "6b66696e69736865645f6e731b17979d0c2e715801"  # finished_ns
            "6f6d616e69666573745f6c656e6774681a0001e240",  # manifest_length
        )

    def test_largest(self) -> None:
        """A record of the largest size is read and fits a frame; a larger one is refused."""
        count = (POINT_RECORD_MAX - 2000) // 32
        large = record(manifest=tuple(i.to_bytes(32, "big") for i in range(count)))
        self.assertEqual(PointRecord.decode(large.encode()), large)
        self.assertLess(POINT_RECORD_MAX, FRAME_BODY_MAX // 2 + 1)
        self.assertRaises(ValueError, record(private=bytes(POINT_RECORD_MAX)).encode)

    def test_many_labels(self) -> None:
        """As many tags and counters as are allowed, of the longest kind, come back."""
        full = record(
            tags=tuple(f"{i:0{LABEL_MAX}}" for i in range(TAGS_MAX)),
            statistics={f"{i:0{LABEL_MAX}}": i for i in range(STATISTICS_MAX)},
        )
        self.assertEqual(PointRecord.decode(full.encode()), full)

    def test_repr(self) -> None:
        """A record with many ids can still be printed."""
        self.assertLess(len(repr(record(manifest=(bytes(32),) * 1000))), 1000)


class RefusalTests(SynchronousTestCase):
    """Records of somebody who means ill."""

    def setUp(self) -> None:
        self.encoded = record().encode()
        self.fields = canonical.decode(self.encoded)

    def refused(self, encoded: bytes) -> None:
        """Assert that ``encoded`` is no record."""
        self.assertRaises(ProtocolViolation, PointRecord.decode, encoded)

    def test_newer_version(self) -> None:
        """A version that this release does not know is refused, not guessed at."""
        for version in (0, 2, True, "1"):
            self.refused(canonical.encode({**self.fields, "version": version}))

    def test_fields(self) -> None:
        """Missing, unknown and impossible fields are refused."""
        allowed: list[tuple[str, Any]] = [
            ("tags", []),
            ("statistics", {}),
            ("statistics", {"a": 1}),
            ("private", b""),
            ("manifest", b""),
            ("started_ns", 5),
            ("finished_ns", 5),
            ("manifest_length", 5),
        ]
        values: list[Any] = [None, 5, "", b"", [], [5], {}, {"a": 1}, {"a": -1}, -1, 1.5, True]
        for name in self.fields:
            self.refused(
                canonical.encode({key: self.fields[key] for key in self.fields if key != name})
            )
            for value in values:
                if (name, value) not in allowed or type(value) is bool:
                    self.refused(canonical.encode({**self.fields, name: value}))
        self.refused(canonical.encode({**self.fields, "more": 1}))

    def test_labels(self) -> None:
        """Labels that are empty, too long or would play tricks on a terminal are refused."""
        for label in ("", "x" * (LABEL_MAX + 1), "a\nb", "\x1b[2J", "a\0", "\u202eabc", "\x7f"):
            for name, value in (("host", label), ("job", label), ("tags", [label])):
                self.refused(canonical.encode({**self.fields, name: value}))
            self.refused(canonical.encode({**self.fields, "statistics": {label: 1}}))

    def test_too_many(self) -> None:
        """More tags or counters than allowed, and half an id, are refused."""
        self.refused(canonical.encode({**self.fields, "tags": ["a"] * (TAGS_MAX + 1)}))
        counters = {str(i): i for i in range(STATISTICS_MAX + 1)}
        self.refused(canonical.encode({**self.fields, "statistics": counters}))
        self.refused(canonical.encode({**self.fields, "manifest": bytes(33)}))
        self.refused(canonical.encode({**self.fields, "started_ns": 1 << 63}))
        self.refused(canonical.encode({**self.fields, "started_ns": 1 << 70}))

    def test_too_long(self) -> None:
        """A record with more bytes than allowed is refused, good as it may be otherwise."""
        room = (POINT_RECORD_MAX - len(self.encoded)) // 32 * 32
        good = canonical.encode({**self.fields, "manifest": bytes(room)})
        self.assertEqual(PointRecord.decode(good).encode(), good)
        long = canonical.encode({**self.fields, "manifest": bytes(room + 1024)})
        self.assertGreater(len(long), POINT_RECORD_MAX)
        self.refused(long)

    def test_cut(self) -> None:
        """A record that was cut anywhere, or has more behind it, is refused."""
        for length in range(len(self.encoded)):
            self.refused(self.encoded[:length])
        self.refused(self.encoded + b"\0")

    def test_bombs(self) -> None:
        """Deep nesting, huge lengths, endless items and too many bytes are refused at once."""
        for bomb in (
            b"\x81" * 100_000,
            b"\xa1\x61a" * 50_000,
            b"\x9a\x00\x10\x00\x00" + b"\x80" * (1 << 20),
            b"\x9b" + b"\x7f" * 8,
            b"\xbf" + self.encoded[1:] + b"\xff",
            b"\xa1\x68manifest\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
            b"\xd8\x23\x61(",
            bytes(POINT_RECORD_MAX + 1),
            b"",
        ):
            self.refused(bomb)

    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_anything(self, data: bytes) -> None:
        """Random bytes are refused and nothing else happens."""
        self.refused(data)

    @given(st.data())
    @settings(deadline=None, max_examples=150)
    def test_mutations(self, data: st.DataObject) -> None:
        """A changed byte is refused or gives another record that encodes to those bytes."""
        encoded = bytearray(record().encode())
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] ^= data.draw(st.integers(1, 255))
        try:
            changed = PointRecord.decode(bytes(encoded))
        except ProtocolViolation:
            return
        self.assertNotEqual(changed, record())
        self.assertEqual(changed.encode(), bytes(encoded))

    def test_writer_is_as_strict(self) -> None:
        """What a reader would refuse cannot be made in the first place."""
        for changes in (
            {"point": b""},
            {"repository": b"r" * 17},
            {"session": "s" * 16},
            {"host": ""},
            {"job": "a\tb"},
            {"tags": ("",)},
            {"manifest": (bytes(31),)},
            {"manifest_length": -1},
            {"statistics": {"files": 1.5}},
            {"statistics": {"files": -1}},
            {"private": "text"},
            {"version": 2},
        ):
            with self.assertRaises(ValueError, msg=str(changes)):
                record(**changes)
        self.assertRaises(ValueError, attrs.evolve, record(), host="\n")
