"""The published specification, ``docs/protocol.rst``, against the code: numbers, vectors."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from scramp.core import Nonce
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect import settings
from cloudconnect.errors import PeerError, error_classes
from cloudconnect.keys import (
    IntegrityKey,
    KeyB,
    Password,
    frame_key,
    hkdf_expand,
    hkdf_extract,
    key_b_confirmation,
    key_b_context,
)
from cloudconnect.wire.frames import FrameKind, FrameWriter
from cloudconnect.wire.login import Verifier
from cloudconnect.wire.noise import NoiseHandshake
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from cloudconnect.wire.records import RecordConnection, RecordHandshake, RecordType
from cloudconnect.wire.schedule import TrafficSecret
from cloudconnect.wire.scram import ScramServer
from cloudconnect.wire.scram_client import ScramClient

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "protocol.rst"

INPUTS: dict[str, bytes] = {
    "key_b": bytes(range(32)),
    "integrity_key": bytes(range(32, 64)),
    "session": b"\x53" * 16,
    "route": b"\x52" * 16,
    "tenant": b"alice",
    "hop": b"source-mover>target-mover",
    "connection": b"\0\0\0\x03",
    "salt_i": b"\x69" * 32,
    "salt_r": b"\x72" * 32,
    "handshake_hash": b"\x11" * 32,
    "box_digest": b"\x22" * 32,
    "id": b"\xaa" * 32,
    "key_a": bytes(range(64, 96)),
    "ephemeral_i": b"\x33" * 32,
    "ephemeral_r": b"\x44" * 32,
}

TOKEN = "cct1-" + "abcdefghijklmnopqrstuvwxyz234567" + "a" * 20


def key_vectors() -> dict[str, bytes]:
    """The key schedule, and both sides' handshake messages."""
    preamble = Preamble(ConnectionKind.KEY_B_STREAM, INPUTS["route"]).encode()
    context = key_b_context(
        preamble, INPUTS["session"], INPUTS["tenant"].decode(), INPUTS["hop"].decode()
    )
    secret = hkdf_extract(INPUTS["salt_i"] + INPUTS["salt_r"], INPUTS["key_b"])
    found = {"preamble": preamble, "context": context, "secret": secret}
    salts = INPUTS["salt_i"] + INPUTS["salt_r"]
    for direction in (0, 1):
        name = f"d{direction}"
        info = context + INPUTS["connection"] + bytes((direction,))
        found[f"traffic_0_{name}"] = hkdf_expand(secret, info)
        chain = TrafficSecret(KeyB(INPUTS["key_b"]), context, 3, direction, salts)
        for epoch in (0, 1):
            key = chain.record_key()
            found[f"key_{epoch}_{name}"] = key.key.reveal()
            found[f"iv_{epoch}_{name}"] = key.iv
            if epoch == 0:
                found[f"commitment_{name}"] = key.commitment
            chain.advance()
    ours, theirs = handshakes(context)
    found["hello"] = ours.start()
    found["welcome"] = theirs.receive(found["hello"])
    found["begin"] = ours.receive(found["welcome"])
    return found


def handshakes(context: bytes) -> tuple[RecordHandshake, RecordHandshake]:
    """Both sides of the vectors' connection."""
    key_b = KeyB(INPUTS["key_b"])
    return (
        RecordHandshake(True, key_b, context, connection=3, salt=INPUTS["salt_i"]),
        RecordHandshake(False, key_b, context, salt=INPUTS["salt_r"]),
    )


def record_vectors() -> dict[str, bytes]:
    """Four records."""
    ours, theirs = handshakes(key_vectors()["context"])
    theirs.receive(ours.receive(theirs.receive(ours.start())))
    speaker = RecordConnection(ours.sealer, ours.opener)
    return {
        "data_0": speaker.send(b"hello"),
        "rekey": speaker.sealer.rekey(),
        "data_1": speaker.send(b"world"),
        "end": speaker.end(),
    }


def frame_vectors() -> dict[str, bytes]:
    """A confirmation, and a frame with its key."""
    key = frame_key(IntegrityKey(INPUTS["integrity_key"]), INPUTS["session"], 0, 0)
    return {
        "confirmation": key_b_confirmation(
            KeyB(INPUTS["key_b"]), INPUTS["handshake_hash"], "target-mover", INPUTS["box_digest"]
        ),
        "frame_key": key.reveal(),
        "frame": b"".join(FrameWriter(key, 0).encode(FrameKind.GET, 1, INPUTS["id"])),
    }


def tunnel_vectors() -> dict[str, bytes]:
    """A tunnel's handshake and its first message."""
    ours = NoiseHandshake(True, INPUTS["key_a"], b"", INPUTS["ephemeral_i"])
    theirs = NoiseHandshake(False, INPUTS["key_a"], b"", INPUTS["ephemeral_r"])
    first = ours.write_message()
    theirs.read_message(first)
    second = theirs.write_message()
    ours.read_message(second)
    return {
        "message_1": first,
        "message_2": second,
        "noise_hash": ours.handshake_hash,
        "tunnel_1": ours.split()[0].encrypt(b"", b"hello"),
    }


def login_vectors() -> dict[str, str]:
    """A login, as text."""
    salted = hashlib.pbkdf2_hmac("sha256", TOKEN.encode(), b"\x5a" * 16, 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    verifier = Verifier(
        b"\x5a" * 16,
        hashlib.sha256(client_key).digest(),
        hmac.digest(salted, b"Server Key", "sha256"),
        4096,
    )
    client = ScramClient("alice", Password(TOKEN.encode()), b"\xcb" * 32)
    server = ScramServer(lambda name: verifier, b"\xcb" * 32, bytes(32))
    client._nonce, client._bare = "c" * 32, "n=alice,r=" + "c" * 32
    server._scram.s_nonce = Nonce("s" * 32)
    client_first = client.first()
    server_first = server.first(client_first)
    client_final = client.final(server_first)
    server_final = server.final(client_final)
    client.verify(server_final)
    return {
        "token": TOKEN,
        "stored_key": verifier.stored_key.hex(),
        "server_key": verifier.server_key.hex(),
        "client_first": client_first,
        "server_first": server_first,
        "client_final": client_final,
        "server_final": server_final,
    }


def computed() -> dict[str, str]:
    """Every vector as it is written on the page."""
    octets = {
        **INPUTS,
        **key_vectors(),
        **record_vectors(),
        **frame_vectors(),
        **tunnel_vectors(),
    }
    return {**{name: value.hex() for name, value in octets.items()}, **login_vectors()}


def published(text: str) -> dict[str, str]:
    """The vectors on the page: ``name = value``, with the value's further lines indented more."""
    found: dict[str, str] = {}
    last = ""
    for line in text.partition("\n.. _vectors:\n")[2].splitlines():
        if match := re.fullmatch(r"    (\w+) = (\S+)", line):
            last = match[1]
            found[last] = match[2]
        elif match := re.fullmatch(r"      +(\S+)", line):
            found[last] += match[1]
    return found


def rows(text: str, columns: int) -> list[list[str]]:
    """The rows of every list-table of the page with so many one-line columns."""
    pattern = r"   \* - (.*)\n" + r"     - (.*)\n" * (columns - 1)
    return [list(match.groups()) for match in re.finditer(pattern, text)]


class PublishedTests(SynchronousTestCase):
    """What the page says is what the code does."""

    def setUp(self) -> None:
        self.text = PAGE.read_text("utf-8")

    def test_vectors(self) -> None:
        """The page has every vector, and no other, with the value that the code computes."""
        self.assertEqual(published(self.text), computed())

    def test_record_types(self) -> None:
        """The page gives each type of record its number."""
        found = [
            row[:2] for row in rows(self.text, 3) if row[1].strip("`") in RecordType.__members__
        ]
        self.assertEqual(found, [[str(int(kind)), f"``{kind.name}``"] for kind in RecordType])

    def test_frame_kinds(self) -> None:
        """The page gives each kind of frame its number."""
        found = [
            row[:2] for row in rows(self.text, 3) if row[1].strip("`") in FrameKind.__members__
        ]
        self.assertEqual(found, [[str(int(kind)), f"``{kind.name}``"] for kind in FrameKind])

    def test_limits(self) -> None:
        """Each limit on the page is the one in the settings."""
        listed = self.text.partition("\n.. _limits:\n")[2].partition("\n.. _vectors:\n")[0]
        limits = {row[0].strip("`"): row[1] for row in rows(listed, 2) if row[1].isdigit()}
        self.assertGreater(len(limits), 25)
        for name, value in limits.items():
            self.assertEqual(int(value), getattr(settings, name), name)

    def test_words(self) -> None:
        """Each error that a peer can report by name is on the page."""
        for reason, cls in error_classes().items():
            if issubclass(cls, PeerError):
                self.assertIn(f"``{reason}``", self.text)
