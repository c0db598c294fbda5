"""Keys in flight and keys at rest have nothing to do with each other.

By their types, by the labels of their derivations, and by what is stored after a real session.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.internet import reactor
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect import keys as keys_module
from cloudconnect.commands import control, lan, tunnel
from cloudconnect.commands.arguments import SecretArgument
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, make_open_slot, make_slot
from cloudconnect.content.description import describe
from cloudconnect.content.generations import keys_of, new_master
from cloudconnect.content.kit import Kit
from cloudconnect.content.points import PointRecord
from cloudconnect.content.sealing import Opener
from cloudconnect.content.slots import Argon2Costs
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.keys import (
    KEY_SIZE,
    IntegrityKey,
    KeyA,
    KeyB,
    MasterKey,
    Password,
    Secret,
    Subkey,
    frame_key,
)
from cloudconnect.repository.store import Repository
from cloudconnect.wire import noise, protection, schedule
from tests.attacks.stage import Stage, make_files
from tests.backup.support import Place
from tests.backup.trees import write

ROOT = Path(__file__).resolve().parent.parent / "cloudconnect"
REPOSITORY = bytes(range(16))
CHEAP = Argon2Costs(1, 1, 8)
#: Where keys in flight are derived, and where keys at rest are.
IN_FLIGHT = [ROOT / "keys.py", *(ROOT / "wire").glob("*.py"), *(ROOT / "transports").glob("*.py")]
IN_FLIGHT += [*(ROOT / "commands").glob("*.py"), *(ROOT / "tenant").glob("*.py")]
AT_REST = [*(ROOT / "content").glob("*.py"), *(ROOT / "backup").glob("*.py")]
AT_REST += [*(ROOT / "repository").glob("*.py")]
#: Functions that derive a key.
DERIVATIONS = {"hkdf", "hkdf_expand", "hkdf_extract", "HKDF", "HKDFExpand", "Argon2id"}


def secrets_in_flight() -> list[Secret]:
    """A key of each kind that a session has."""
    integrity = IntegrityKey.generate()
    return [
        KeyA.generate(),
        KeyB.generate(),
        integrity,
        frame_key(integrity, bytes(16), 0, 0),
        Subkey.generate(),
        Password(bytes(32)),
    ]


class TypeTests(SynchronousTestCase):
    """A key has a type, and what is at rest takes one type only."""

    def test_at_rest_takes_a_master_key(self) -> None:
        """Nothing at rest is derived from, wrapped around, or printed of a key in flight."""
        master = MasterKey.generate()
        slot = make_slot(master, REPOSITORY, Password(b"x"), costs=CHEAP)
        described = describe(master, REPOSITORY, EncryptionMode.TENANT, (slot,))
        ours = RepositoryKeys(master, REPOSITORY)
        attempts: list[Callable[[Any], object]] = [
            lambda key: RepositoryKeys(key, REPOSITORY),
            lambda key: make_slot(key, REPOSITORY, Password(b"x"), costs=CHEAP),
            make_open_slot,
            lambda key: describe(key, REPOSITORY, EncryptionMode.TENANT, ()),
            lambda key: keys_of(described, key),
            lambda key: new_master(described, master, key, ()),
            lambda key: ours.seal_previous(key, bytes(32)),
            lambda key: Kit(
                provider="p:1",
                tenant="t",
                pins=(),
                repository=REPOSITORY,
                mode=EncryptionMode.TENANT,
                head_number=0,
                head_value=bytes(32),
                master=key,
            ),
        ]
        for attempt in attempts:
            attempt(MasterKey.generate()) if attempt is not attempts[4] else attempt(master)
            for key in secrets_in_flight():
                with self.assertRaises(TypeError, msg=type(key).__name__):
                    attempt(key)

    def test_no_command_carries_a_master_key(self) -> None:
        """The keys that commands carry are Key A, Key B and the integrity key."""
        carried = set()
        for module in (control, lan, tunnel):
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, amp.Command):
                    for _, argument in [*value.arguments, *value.response]:
                        inner = getattr(argument, "elementType", argument)
                        if isinstance(inner, SecretArgument):
                            carried.add(inner._class)
                            with self.assertRaises(TypeError):
                                inner.toString(MasterKey.generate())
        self.assertEqual(carried, {KeyA, KeyB, IntegrityKey})


def labels(paths: list[Path]) -> dict[bytes, str]:
    """The labels in these modules, and where each stands."""
    found = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
            if isinstance(value, bytes) and value.startswith(b"cloudconnect/"):
                found[value] = path.name
    return found


def calls(paths: list[Path]) -> Iterator[tuple[str, str, ast.Call]]:
    """Each derivation in these modules: module, function, call."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in DERIVATIONS:
                    yield path.name, name, node


class LabelTests(SynchronousTestCase):
    """Derivations are told apart by their labels."""

    def test_disjoint(self) -> None:
        """No label at rest is one in flight, nor begins with one, nor the other way round."""
        flight, rest = labels(IN_FLIGHT), labels(AT_REST)
        self.assertGreater(len(flight), 5)
        self.assertGreater(len(rest), 3)
        bare = {b"cloudconnect/1", b"cloudconnect/1 "}  # ALPN, and what signatures begin with
        for one in set(flight) - bare:
            for other in set(rest) - bare:
                self.assertFalse(one.startswith(other) or other.startswith(one), (one, other))

    def test_derivations_at_rest(self) -> None:
        """Keys at rest come from the master key, and from a passphrase the key of a slot: there is
        no other derivation."""
        found = [(module, name, ast.unparse(call)) for module, name, call in calls(AT_REST)]
        self.assertEqual([entry[:2] for entry in sorted(found)],
            [("slots.py", "Argon2id"), ("subkeys.py", "hkdf")])  # fmt: skip
        (derived,) = [text for module, _, text in found if module == "subkeys.py"]
        self.assertEqual(derived, "hkdf(master.reveal(), _INFO + purpose + self.repository)")

    def test_derivations_in_flight(self) -> None:
        """No module that has to do with keys in flight names the master key's class, but the one
        that declares it."""
        for path in IN_FLIGHT:
            if path.name != "keys.py":
                self.assertNotIn("MasterKey", path.read_text("utf-8"), path.name)


class Recorder:
    """Writes down every key that a session has, takes or derives."""

    def __init__(self, case: TestCase) -> None:
        self.octets: set[bytes] = set()
        for module, names in (
            (keys_module, ("hkdf", "hkdf_expand", "hkdf_extract")),
            (schedule, ("hkdf_expand", "hkdf_extract")),
            (noise, ("hkdf_expand", "hkdf_extract")),
        ):
            for name in names:
                case.patch(module, name, self.recorded(getattr(module, name)))
        for module in (noise, protection):
            case.patch(module, "AESGCM", self.recorded(module.AESGCM))
        real = Secret.__init__

        def made(secret: Secret, octets: Any) -> None:
            if isinstance(secret, (KeyA, KeyB, IntegrityKey)):
                self.note(bytes(octets))
            real(secret, octets)

        case.patch(Secret, "__init__", made)

    def recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            for value in (*arguments, *options.values(), result):
                if isinstance(value, (bytes, bytearray)):
                    self.note(bytes(value))
            return result

        return call

    def note(self, octets: bytes) -> None:
        """Keep all keys in ``octets``: several are derived at once."""
        for at in range(0, max(1, len(octets) - KEY_SIZE + 1), 4):
            if len(octets) - at >= KEY_SIZE:
                self.octets.add(octets[at : at + KEY_SIZE])


class SessionTests(TestCase):
    """A backup and a restore over real connections; then everything is tried on what is stored."""

    timeout = 120

    async def test_nothing_opens(self) -> None:
        """None of the session's keys opens a stored blob, a slot, or the private part of a record,
        whatever it is taken for; and no name of a chunk comes from one."""
        recorder = Recorder(self)
        stage = Stage(reactor)
        self.addCleanup(stage.remove)
        await stage.open()
        source, target = self.mktemp(), self.mktemp()
        make_files(source)
        tenant = await stage.tenant()
        result = await tenant.back_up(source)
        await tenant.restore(result.point, target)
        await stage.leave(tenant)
        await stage.close()
        self.assertGreater(len(recorder.octets), 20)
        (folder,) = (one for one in stage.settings.repositories.iterdir() if one.is_dir())
        with Repository.open(folder) as repository:
            stored = repository.point(result.point)
            record = PointRecord.decode(stored.record)
            ids = [*record.manifest, *(i for batch in repository.references(stored) for i in batch)]
            blobs = list(repository.read(ids))
            description = repository.description
        self.assertGreater(len(blobs), 1)
        plain = stage.keys.open_blob("chunk", blobs[-1])  # the right key does
        (slot,) = description.slots
        for octets in recorder.octets:
            self.check_octets(octets, stage, description, slot, record, blobs)
            self.assertNotEqual(
                RepositoryKeys(MasterKey(octets), description.repository).chunk_id(plain),
                blobs[-1].id,
            )

    def check_octets(
        self, octets: bytes, stage: Stage, description: Any, slot: Any, record: Any, blobs: Any
    ) -> None:
        with self.assertRaises(InvalidTag):
            AESGCM(octets).decrypt(slot.wrapped[:12], slot.wrapped[12:], b"")
        self.assertNotIn(octets, description.encode())
        as_master = RepositoryKeys(MasterKey(octets), description.repository)
        self.assertNotEqual(as_master.public_key, description.public_key)
        self.assertNotEqual(as_master.id_check, description.id_check)
        with self.assertRaises(StoredDataDamaged):
            as_master.open_private(record.point, record.private)
        opener = Opener(Subkey(octets))
        bound = record.point + description.repository
        with self.assertRaises(StoredDataDamaged):
            opener.open(record.private, bound)
        for blob in blobs:
            for kind in ("chunk", "manifest"):
                with self.assertRaises(StoredDataDamaged):
                    as_master.open_blob(kind, blob)  # type: ignore[arg-type]
                name = b"\x05chunk" if kind == "chunk" else b"\x08manifest"
                length = blob.plain_length.to_bytes(4, "big")
                with self.assertRaises(StoredDataDamaged):
                    opener.open(blob.data, name + blob.id + length + bytes((blob.coding,)))


class TwoTenantsTests(SynchronousTestCase):
    """Two tenants with the same file."""

    def test_nothing_in_common(self) -> None:
        """They share no id, no stored blob and no digest; nor do two repositories of one key."""
        top = os.path.abspath(self.mktemp()).encode()
        write(top + b"/file", b"the same content " * 20_000)
        found: list[set[bytes]] = []
        for _ in range(2):
            place = Place(self.mktemp())
            point = place.backup(top).point
            with Repository.open(place.directory) as repository:
                stored = repository.point(point)
                record = PointRecord.decode(stored.record)
                ids = [*record.manifest]
                for batch in repository.references(stored):
                    ids += batch
                blobs = list(repository.read(ids))
            self.assertGreater(len(blobs), 1)
            parts = {bytes(blob.data) for blob in blobs} | {blob.digest for blob in blobs}
            found.append(parts | {blob.id for blob in blobs})
        self.assertEqual(found[0] & found[1], set())
        master = MasterKey.generate()
        ids = [RepositoryKeys(master, bytes([n]) * 16).chunk_id(b"the same") for n in (1, 2)]
        self.assertNotEqual(*ids)
