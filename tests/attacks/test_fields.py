"""The attacker's own view of a connection."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.fields import END, Dissector, Line, Part, Piece, Way, record_of

PREAMBLE = b"CCN1\x02" + bytes(16)
DATA_RECORD = b"\x01\x00\x00\x00\x00\x00\x00\x13" + b"abc" + b"t" * 16
REKEY_RECORD = b"\x02\x00\x00\x00\x00\x00\x00\x10" + b"t" * 16
END_RECORD = b"\x03\x00\x00\x01\x00\x00\x00\x20" + b"e" * 16 + b"t" * 16
STREAM = PREAMBLE + b"h" * 36 + b"b" * 32 + DATA_RECORD + REKEY_RECORD + DATA_RECORD + END_RECORD


def joined(pieces: list[Piece]) -> list[tuple[Part, int, int, int, int]]:
    """Each field that passed: part, start, size, number, payload before it."""
    found: list[tuple[Part, int, int, int, int]] = []
    for piece in pieces:
        field = piece.field
        start = piece.start - piece.index
        if piece.index + piece.size == field.size:
            found.append((field.part, start, field.size, field.number, field.payload))
    return found


class DissectorTests(SynchronousTestCase):
    """Following the fields of a stream."""

    def test_fields(self) -> None:
        """Every byte is in one field, in order; payload is counted; empty bodies are none."""
        fields = joined(list(Dissector(Line.STREAM, Way.UP).feed(STREAM)))
        self.assertEqual(sum(size for _, _, size, _, _ in fields), len(STREAM))
        self.assertEqual(
            [part for part, *_ in fields[:8]],
            [
                *(Part.PREAMBLE, Part.HELLO, Part.BEGIN),
                *(Part.TYPE, Part.FLAGS, Part.EPOCH, Part.LENGTH, Part.BODY),
            ],
        )
        bodies = [(n, payload) for part, _, _, n, payload in fields if part is Part.BODY]
        self.assertEqual(bodies, [(0, 0), (2, 3), (3, 6)])

    def test_byte_by_byte(self) -> None:
        """Any chunking shows the same fields."""
        dissector = Dissector(Line.STREAM, Way.UP)
        pieces = [p for octet in STREAM for p in dissector.feed(bytes((octet,)))]
        whole = list(Dissector(Line.STREAM, Way.UP).feed(STREAM))
        self.assertEqual(joined(pieces), joined(whole))
        self.assertEqual(pieces[-1].field.type, END)

    def test_record_of(self) -> None:
        """A record is found in a recording by its number."""
        self.assertEqual(record_of(Line.STREAM, Way.UP, STREAM, 1), REKEY_RECORD)
        self.assertEqual(record_of(Line.STREAM, Way.UP, STREAM, 3), END_RECORD)

    def test_tunnel(self) -> None:
        """Messages stand behind their lengths, from the tenant behind the preamble."""
        messages = b"\x00\x02ab\x00\x01c"
        up = joined(list(Dissector(Line.TUNNEL, Way.UP).feed(PREAMBLE + messages)))
        down = joined(list(Dissector(Line.TUNNEL, Way.DOWN).feed(messages)))
        self.assertEqual([f[0] for f in up[1:]], [Part.LENGTH, Part.MESSAGE] * 2)
        self.assertEqual([f[1] - 21 for f in up[1:]], [f[1] for f in down])
