"""What ``docs/repository-format.rst`` publishes, against the code: vectors, limits, fields."""

from __future__ import annotations

import hashlib
import re
import textwrap
from pathlib import Path
from unittest import mock

import attrs
from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import (
    chunking,
    compression,
    description,
    heads,
    points,
    sealing,
    slots,
    subkeys,
)
from cloudconnect.content.chunking import Chunker, ChunkingParameters
from cloudconnect.content.description import PreviousMaster, RepositoryDescription
from cloudconnect.content.entries import PATH_MAX, Entry, EntryType
from cloudconnect.content.heads import Chain, HeadEntry, HeadKind, SignedHead, first_chain
from cloudconnect.content.kit import Kit, parse_kit
from cloudconnect.content.manifest import encode_entry
from cloudconnect.content.points import PointRecord
from cloudconnect.content.runs import Run
from cloudconnect.content.sealing import Sealer
from cloudconnect.content.slots import Argon2Costs, KeySlot, SlotKind, make_slot, open_slot
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.keys import MasterKey, Password, Subkey, hkdf
from cloudconnect.settings import (
    CHUNK_MAX,
    MANIFEST_ENTRY_MAX,
    MANIFEST_PIECE_RUNS,
    MANIFEST_RUNS_MAX,
    POINT_RECORD_MAX,
)
from cloudconnect.wire.frames import StoredBlob

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "repository-format.rst"
PURPOSES = [
    "chunk_ids",
    "manifest_ids",
    "chunk_data",
    "manifest_data",
    "private",
    "previous",
    "head",
    "signing",
]
INPUTS = {
    "master": b"\1" * 32,
    "repository": bytes(range(16)),
    "plain": b"abc",
    "nonce": b"ABCDEFGHIJKLMNOPQRSTUVWX",
    "passphrase": b"correct horse",
    "salt": b"\2" * 16,
    "slot_nonce": b"\3" * 12,
    "earlier_master": b"\4" * 32,
}


def published() -> dict[str, bytes]:
    """The vectors of the page, by name."""
    text = PAGE.read_text("utf-8").partition(".. _at-rest-vectors:")[2]
    found = re.findall(r"^    (\w+) = ([0-9a-f]+(?:\n        [0-9a-f]+)*)$", text, re.MULTILINE)
    return {name: bytes.fromhex(re.sub(r"\s", "", value)) for name, value in found}


def made_keys() -> RepositoryKeys:
    """The keys of the page's repository."""
    return RepositoryKeys(MasterKey(INPUTS["master"]), INPUTS["repository"])


def key_vectors() -> dict[str, bytes]:
    """Names and keys."""
    keys = made_keys()
    return {
        **{
            purpose: hkdf(
                INPUTS["master"],
                b"cloudconnect/1 at-rest " + purpose.encode() + INPUTS["repository"],
            )
            for purpose in PURPOSES
        },
        "public_key": keys.public_key,
        "chunk_id": keys.chunk_id(INPUTS["plain"]),
        "manifest_id": keys.manifest_id(INPUTS["plain"]),
        "id_check": keys.id_check,
        "signature_point": keys.sign(INPUTS["plain"]),
    }


def seal_vectors() -> dict[str, bytes]:
    """A sealed blob."""
    nonce = INPUTS["nonce"]
    with mock.patch.object(sealing.os, "urandom", lambda size: nonce[:size]):
        keys = made_keys()
    sealer = keys._sealers["chunk"]
    sealer._sealed = int.from_bytes(nonce[12:], "big")
    associated: list[bytes] = []

    def seal(plain: bytes, bound: bytes) -> memoryview:
        associated.append(bound)
        return Sealer.seal(sealer, plain, bound)

    with (
        mock.patch.object(sealing, "MESSAGES_MAX", 1 << 96),
        mock.patch.object(sealer, "seal", seal),
    ):
        blob = keys.seal_blob("chunk", INPUTS["plain"], 0, keys.chunk_id(INPUTS["plain"]))
    return {"associated": associated[0], "stored": bytes(blob.data), "digest": blob.digest}


def slot_vectors() -> dict[str, bytes]:
    """A key slot."""
    fixed = iter([bytes.fromhex("0123456789abcdef"), INPUTS["salt"], INPUTS["slot_nonce"]])
    with mock.patch.object(slots.os, "urandom", lambda size: next(fixed)):
        slot = make_slot(
            MasterKey(INPUTS["master"]),
            INPUTS["repository"],
            Password(INPUTS["passphrase"]),
            costs=Argon2Costs(1, 1, 8),
        )
    bound = slots._associated(*attrs.astuple(slot, recurse=False)[:-1], INPUTS["repository"])
    return {"commitment": slot.commitment, "slot_associated": bound, "wrapped": slot.wrapped}


def generation_vectors() -> dict[str, bytes]:
    """An earlier master key, and two heads."""
    nonce = INPUTS["nonce"]
    with mock.patch.object(sealing.os, "urandom", lambda size: nonce[:size]):
        keys = made_keys()
    keys._previous_sealer._sealed = int.from_bytes(nonce[12:], "big")
    master = MasterKey(INPUTS["earlier_master"])
    earlier = RepositoryKeys(master, INPUTS["repository"])
    with mock.patch.object(sealing, "MESSAGES_MAX", 1 << 96):
        wrapped = keys.seal_previous(master, earlier.public_key)
    start = first_chain(earlier)
    one = start.next_point(earlier, b"P" * 16, INPUTS["plain"])
    two = start.follow(one).next_description(earlier, INPUTS["plain"], keys.public_key)
    return {
        "earlier_public_key": earlier.public_key,
        "earlier_wrapped": wrapped,
        "head_of_point": one.encoded,
        "head_of_point_signature": one.signature,
        "head_of_description": two.encoded,
        "head_of_description_signature": two.signature,
        "head_hash": two.value,
    }


def entry_vectors() -> dict[str, bytes]:
    """An entry of a manifest."""
    runs = (Run(bytes(range(32)), 7, 3), Run(None, 0, 2))
    entry = Entry(
        b"/srv/file", EntryType.FILE, 0o644, 1000, 100, "ann", "users", 1700000000123456789, 5, runs
    )
    return {"entry": encode_entry(entry)}


class VectorTests(SynchronousTestCase):
    """The page's vectors are the code's."""

    def test_all(self) -> None:
        """Every vector is what the code makes of the inputs, and there is no other."""
        made = {
            **INPUTS,
            **key_vectors(),
            **seal_vectors(),
            **slot_vectors(),
            **generation_vectors(),
            **entry_vectors(),
        }
        self.assertEqual(published(), made)

    def test_read_back(self) -> None:
        """A reader that has only the page's bytes gets everything back."""
        page = published()
        keys = RepositoryKeys(MasterKey(page["master"]), page["repository"])
        blob = StoredBlob(
            page["chunk_id"],
            len(page["plain"]),
            0x10,
            blake3(page["stored"]).digest(),
            page["stored"],
        )
        self.assertEqual(keys.open_blob("chunk", blob), page["plain"])
        subkeys.verify(page["public_key"], page["signature_point"], page["plain"])
        slot = KeySlot(
            "0123456789abcdef",
            SlotKind.PASSPHRASE,
            Argon2Costs(1, 1, 8),
            page["salt"],
            page["commitment"],
            page["wrapped"],
        )
        master = open_slot(slot, page["repository"], Password(page["passphrase"]))
        self.assertEqual(master.reveal(), page["master"])
        earlier = keys.open_previous(page["earlier_wrapped"], page["earlier_public_key"])
        self.assertEqual(earlier.reveal(), page["earlier_master"])
        chain = Chain(repository=page["repository"], key=page["earlier_public_key"])
        for name in ("head_of_point", "head_of_description"):
            chain = chain.follow(SignedHead(page[name], page[f"{name}_signature"]))
        self.assertEqual((chain.value, chain.key), (page["head_hash"], page["public_key"]))
        opener = sealing.Opener(Subkey(page["chunk_data"]))
        self.assertEqual(opener.open(page["stored"], page["associated"]), page["plain"])

    def test_kit(self) -> None:
        """The published recovery kit is the one that is printed, and is read again."""
        text = PAGE.read_text("utf-8")
        begin = text.index("    -----BEGIN CLOUDCONNECT RECOVERY KIT-----")
        shown = text[begin:].partition("\n\n")[0]
        kit = Kit(
            provider="backup.example.net:6180",
            tenant="acme",
            pins=("SPKI-SHA256:" + "ab" * 32,),
            repository=INPUTS["repository"],
            mode=EncryptionMode.TENANT,
            head_number=2,
            head_value=published()["head_hash"],
            master=MasterKey(INPUTS["master"]),
        )
        self.assertEqual(textwrap.dedent(shown) + "\n", kit.text())
        self.assertEqual(parse_kit(textwrap.dedent(shown)), kit)

    def test_boundaries(self) -> None:
        """The published boundaries are where the default parameters cut."""
        text = PAGE.read_text("utf-8").partition("into chunks of these lengths::")[2]
        lengths = [int(word) for word in re.match(r"[\s\d]+", text)[0].split()]  # type: ignore[index]
        stream = b"".join(hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(1 << 15))
        cut = [len(chunk) for chunk in Chunker(ChunkingParameters()).cut(stream)]
        self.assertEqual(lengths, cut)


class NumberTests(SynchronousTestCase):
    """The page's names and numbers are the code's."""

    def setUp(self) -> None:
        self.text = re.sub(r"\s+", " ", PAGE.read_text("utf-8"))

    def test_limits(self) -> None:
        """Each limit stands on the page with the value that the code has."""
        for sentence in (
            f"at most {description.DESCRIPTION_MAX} bytes, 4 levels of nesting and 1024 items",
            f"list of at most {description.SLOTS_MAX} key slots",
            f"list of at most {description.PREVIOUS_MAX} earlier master keys",
            f"Canonical CBOR, at most {heads.HEAD_MAX} bytes",
            f"``iterations`` (1 to {slots.ITERATIONS_MAX})",
            f"``lanes`` (1 to {slots.LANES_MAX})",
            f"to {slots.MEMORY_KIB_MAX})",
            f"1 to {CHUNK_MAX} plain bytes",
            f"byte strings of at most {MANIFEST_ENTRY_MAX} bytes",
            f"At most {MANIFEST_PIECE_RUNS} runs",
            f"more than {MANIFEST_PIECE_RUNS} runs: how many in all, at most {MANIFEST_RUNS_MAX}",
            f"as the system's bytes, at most {PATH_MAX}",
            f"at most {POINT_RECORD_MAX} bytes, 2 levels of nesting and 512 items",
            f"1 to {points.LABEL_MAX} printable characters",
            f"list of at most {points.TAGS_MAX} such texts",
            f"map of at most {points.STATISTICS_MAX} counters",
            f"given, at most {subkeys.PATHS_MAX}",
            f"at most {chunking._BOUNDS['maximum'][1]}",
            f"{sealing.OVERHEAD} bytes longer",
        ):
            self.assertIn(sentence, self.text)
        self.assertEqual(sealing.MESSAGES_MAX, 1 << 32)
        self.assertEqual(list(compression._OPTIONS.values()), [22])

    def test_fields(self) -> None:
        """Each field of the stored maps stands on the page, and so does each default."""
        for cls in (
            RepositoryDescription,
            PreviousMaster,
            KeySlot,
            Argon2Costs,
            ChunkingParameters,
            PointRecord,
            HeadEntry,
        ):
            for name in attrs.fields_dict(cls):
                self.assertIn(f"``{name}``", self.text, f"{cls.__name__}.{name}")
        for name, value in ChunkingParameters().as_map().items():
            shown = f"``{value}``" if isinstance(value, str) else str(value)
            self.assertIn(f"* - ``{name}`` - {shown} -", self.text)
        costs = Argon2Costs()
        self.assertIn(
            f"{costs.iterations} iterations, {costs.lanes} lanes and {costs.memory_kib} KiB",
            self.text,
        )

    def test_words(self) -> None:
        """Modes, kinds of slots, types of entries and purposes of keys stand on the page."""
        for word in (*EncryptionMode, *SlotKind, *HeadKind, *PURPOSES):
            self.assertIn(f"``{word}``", self.text)
        for kind in EntryType:
            self.assertIn(f"``{kind.value}`` ", self.text)
