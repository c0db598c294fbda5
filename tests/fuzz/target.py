"""What a fuzz target is, and the small language in which its input says what a peer does.

A fuzzer cannot guess a tag of AES-GCM. So the input of a target that lies behind a cipher is a list
of acts: some bytes as they are, or some bytes sealed with the right key, as a peer does that has
proved itself and attacks all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

#: Kept inputs: what the fuzzer found interesting, and everything that once was a finding.
SEEDS: Final = Path(__file__).resolve().parent / "seeds"


@attrs.frozen
class Target:
    """A parser, and what to begin with.

    :ivar name: of the target, and of the folder of its seeds
    :ivar run: takes one input; what it raises is a finding
    :ivar first: makes the inputs to begin with
    :ivar longest: bytes of one input, for the fuzzer
    """

    name: str
    run: Callable[[bytes], None]
    first: Callable[[], Iterable[bytes]]
    longest: int = 4096


class Acts:
    """Reads an input front to back; at its end everything is 0 or empty.

    :param data: the input
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, or as many as there are."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def number(self, size: int = 1) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    def piece(self) -> bytes:
        """The next bytes behind their length (u16)."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that are left."""
        return self.take(self.left)


def act(kind: int, octets: bytes = b"", *head: int) -> bytes:
    """An act as :class:`Acts` reads it: a kind, single bytes, and a piece."""
    return bytes((kind, *head)) + len(octets).to_bytes(2, "big") + octets


def cut(octets: bytes, by: int) -> Iterator[bytes]:
    """``octets`` in pieces: of 1, 7, 64 bytes or whole, as ``by`` says."""
    size = (len(octets) or 1, 1, 7, 64)[by % 4]
    for start in range(0, len(octets), size):
        yield octets[start : start + size]


def kept(name: str) -> list[Path]:
    """The files of a target's kept inputs, in order."""
    return sorted(path for path in (SEEDS / name).glob("*") if path.is_file())
