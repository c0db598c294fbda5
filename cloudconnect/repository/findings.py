"""Layer 3: what a scrub has found."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs


class FindingKind(StrEnum):
    """What is wrong."""

    CATALOGUE = "catalogue"
    DESCRIPTION = "description"
    HEADS = "heads"
    RECORD = "record"
    REFERENCES = "references"
    MARKER = "marker"
    PACK = "pack"
    BLOB = "blob"
    INDEX = "index"
    MISSING = "missing"


@attrs.frozen
class Finding:
    """One stored object that is damaged, missing, or not what it should be.

    :ivar kind: what kind of object
    :ivar name: its name in the blob store, or of a blob its id in hexadecimal
    :ivar text: what is wrong with it, as a part of a sentence
    :ivar points: restore points that need it, ids in hexadecimal; published ones and those in the
        bin
    :ivar mended: it was made right again
    """

    kind: FindingKind
    name: str
    text: str
    points: tuple[str, ...] = ()
    mended: bool = False

    def __str__(self) -> str:
        text = f"{self.name}: {self.text}"
        if self.mended:
            text += " (mended)"
        if self.points:
            text += "; hit: restore point" + "s" * (len(self.points) > 1) + " "
            text += ", ".join(self.points)
        return text


@attrs.frozen(kw_only=True)
class ScrubResult:
    """What a scrub came to.

    :ivar packs: packs that were read
    :ivar blobs: blobs in them whose stored bytes were compared
    :ivar bytes: bytes that were read
    :ivar findings: what was damaged, also where it was mended
    :ivar mended: things that were made right again
    """

    packs: int
    blobs: int
    bytes: int
    findings: tuple[Finding, ...]
    mended: int

    def as_map(self) -> dict[str, Any]:
        """As JSON values: the numbers, how many findings, and each of them as a sentence."""
        return {
            "packs": self.packs,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "found": len(self.findings),
            "mended": self.mended,
            "findings": [str(finding) for finding in self.findings],
        }
