"""Every vector in both decoders, and every byte of the valid ones changed."""

from __future__ import annotations

import ast
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from tests.vectors import decoder, generate, package

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "protocol.rst"
#: What the issue asked to see, each by at least so many vectors.
FOLDERS = {
    "preamble": 15,
    "tunnel": 40,
    "hello": 25,
    "records": 30,
    "rekey": 10,
    "end": 10,
    "frames": 60,
    "tags": 20,
    "dialogues": 5,
}
VECTORS: list[dict[str, Any]] = [json.loads(text) for text in generate.files().values()]
VALID = [vector for vector in VECTORS if vector["valid"]]
#: The two bytes of the length before a tunnel's second message: from them on, what the initiator
#: says can be read only by who has written that message himself, so decoders differ in the word.
SECOND_LENGTH = {(2, 0), (2, 1)}


def changes(vector: dict[str, Any]) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """The vector with one byte changed, for each of its bytes; which bits is by chance."""
    chance = random.Random(vector["name"])
    for number, (side, octets) in enumerate(vector["bytes"]):
        for at in range(len(octets) // 2):
            other = bytearray.fromhex(octets)
            other[at] ^= chance.randrange(1, 256)
            said = [*vector["bytes"]]
            said[number] = [side, other.hex()]
            yield (number, at), {**vector, "bytes": said}


class FileTests(SynchronousTestCase):
    """The files."""

    def test_made(self) -> None:
        """The files are what the generator makes now, no more and no fewer."""
        made = {vector["name"]: generate.text(vector) for vector in generate.vectors()}
        found = generate.files()
        self.assertEqual(sorted(made), sorted(found))
        self.assertEqual([], [name for name in made if made[name] != found[name]])

    def test_enough(self) -> None:
        """There are vectors, valid ones and others, for everything that is to be shown."""
        self.assertGreaterEqual(len(VECTORS), 150)
        count = Counter(vector["name"].partition("/")[0] for vector in VECTORS)
        self.assertEqual(set(FOLDERS), set(count))
        self.assertEqual([], [name for name in FOLDERS if count[name] < FOLDERS[name]])
        valid = Counter(vector["name"].partition("/")[0] for vector in VALID)
        self.assertEqual([], [name for name in FOLDERS if not 0 < valid[name] < count[name]])

    def test_one_thing(self) -> None:
        """Each file shows something that no other one shows, and names a section of the page."""
        sentences = Counter(vector["shows"] for vector in VECTORS)
        self.assertEqual([], [text for text in sentences if not re.fullmatch(r"[A-Z].*\.", text)])
        sections = {str(vector["section"]) for vector in VECTORS}
        titles = re.findall(r"^(\d+)\. .*\n-+$", PAGE.read_text("utf-8"), re.MULTILINE)
        self.assertEqual(set(), sections - set(titles))
        bodies = Counter(
            json.dumps([vector[part] for part in ("protocol", "test_secrets", "inputs", "bytes")])
            for vector in VECTORS
        )
        self.assertEqual([], [body for body in bodies if bodies[body] > 1])

    def test_words(self) -> None:
        """Each word of an outcome is one of the page, and each word of sections 1 to 7 occurs."""
        words = {vector["outcome"]["error"] for vector in VECTORS}
        page = PAGE.read_text("utf-8")
        self.assertEqual([], [word for word in words - {None} if f"``{word}``" not in page])
        expected = {None, "protocol_violation", "tampered", "truncated", "aborted", "refused"}
        self.assertEqual(expected | {"key_a_rejected", "replayed", "frame_mismatch"}, words)


class DecoderTests(SynchronousTestCase):
    """Both decoders."""

    def test_package(self) -> None:
        """The package comes to the outcome of each vector."""
        for vector in VECTORS:
            self.assertEqual(vector["outcome"], package.outcome(vector), vector["name"])

    def test_second(self) -> None:
        """So does the second decoder."""
        for vector in VECTORS:
            self.assertEqual(vector["outcome"], decoder.outcome(vector), vector["name"])

    def test_layers(self) -> None:
        """So does a RecordStream, as far as a program above it can see."""
        streams = [vector for vector in VECTORS if vector["protocol"] == "stream"]
        self.assertGreater(len(streams), 80)
        for vector in streams:
            seen = [
                event[:2] if event[1] == "end" else event
                for event in vector["outcome"]["events"]
                if event[1] not in ("ping", "pong", "abort")
            ]
            expected = {"events": seen, "error": vector["outcome"]["error"]}
            got = package.outcome(vector, package.StreamLayers)
            self.assertEqual(expected, got, vector["name"])

    def test_changes(self) -> None:
        """Every byte of every valid vector, changed, is an error in both, and the same one.

        What was verified before it is told in the same way, too.
        """
        count = 0
        for vector in VALID:
            for place, other in changes(vector):
                count += 1
                first, second = package.outcome(other), decoder.outcome(other)
                for outcome in (first, second):
                    self.assertIsNotNone(outcome["error"], (vector["name"], place))
                    self.assertNotEqual(vector["outcome"], outcome, (vector["name"], place))
                if not (vector["protocol"] == "tunnel" and place in SECOND_LENGTH):
                    self.assertEqual(first, second, (vector["name"], place))
        sizes = [len(octets) // 2 for vector in VALID for _, octets in vector["bytes"]]
        self.assertEqual(sum(sizes), count)
        self.assertGreater(count, 10000)


class IndependenceTests(SynchronousTestCase):
    """The second decoder stands for itself."""

    source = (HERE / "decoder.py").read_text("utf-8")

    def test_imports(self) -> None:
        """It imports the standard library and ``cryptography``, and nothing in a hidden way."""
        found = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.assertEqual(0, node.level)
                found.add(str(node.module).partition(".")[0])
        self.assertEqual(set(), found - sys.stdlib_module_names - {"cryptography"})
        self.assertNotIn("importlib", found)
        self.assertNotIn("__import__", self.source)

    def test_size(self) -> None:
        """It has less than 300 lines, of a length that fits on a screen."""
        lines = self.source.splitlines()
        self.assertLess(len(lines), 300)
        self.assertLessEqual(max(map(len, lines)), 100)

    def test_blake3(self) -> None:
        """Its BLAKE3 is BLAKE3: empty, about one block, about one leaf, and trees of all shapes."""
        sizes = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3073, 4097, 5121, 7169, 9000]
        for size in sizes:
            data = bytes(n % 251 for n in range(size))
            key = bytes(range(32))
            self.assertEqual(blake3(data).digest(), decoder.blake3(data), size)
            self.assertEqual(blake3(data, key=key).digest(), decoder.blake3(data, key), size)
