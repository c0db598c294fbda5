"""What a machine remembers of a repository's heads: rolled back, forked, hidden, replaced."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy as sa

from cloudconnect.backup import leading as leading_module
from cloudconnect.backup.heads import Anchor, KnownHeads, look
from cloudconnect.backup.options import BackupOptions, BackupResult, RestoreOptions
from cloudconnect.backup.reading import PointReader
from cloudconnect.backup.records import read_paths
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.backup.upload import BackupRun
from cloudconnect.content.description import RepositoryDescription, describe
from cloudconnect.content.generations import add_slot, keys_of, new_master
from cloudconnect.content.points import PointRecord
from cloudconnect.content.slots import make_slot
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.errors import Busy, HeadMoved, Refused, StoredDataDamaged
from cloudconnect.keys import MasterKey, Password
from cloudconnect.repository import heads as repository_heads
from cloudconnect.repository import points as repository_points
from cloudconnect.repository.heads import insert_heads
from cloudconnect.repository.points import insert_point, point_values
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import heads_table, points_table
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameKind
from tests.backup.cases import BackupCase
from tests.backup.support import SESSION
from tests.backup.trees import write
from tests.content.test_slots import CHEAP


class Machine:
    """One of a tenant's machines.

    :ivar notes: what its user was told
    """

    def __init__(self, case: HeadsCase, name: str, anchor: Anchor | None = None) -> None:
        self.case = case
        self.path = Path(os.path.abspath(case.mktemp())) / "provider" / name / "heads"
        self.notes: list[str] = []
        self.anchor = anchor
        self.session = SESSION

    def heads(self) -> KnownHeads:
        place = self.case.place
        return KnownHeads(self.path, place.keys, place.description, self.notes.append, self.anchor)

    def backup(self) -> BackupResult:
        place = self.case.place
        return BackupRun(
            place.open("backup"),
            place.keys,
            place.description,
            BackupOptions(paths=(self.case.top,)),
            place.labels,
            self.session,
            heads=self.heads(),
        ).run()

    def look(self) -> KnownHeads:
        """One dialogue that only compares."""
        heads = self.heads()
        list(
            read_paths(
                self.case.place.open("read"),
                self.case.place.keys,
                self.case.place.description,
                [],
                heads,
            )
        )
        return heads


class HeadsCase(BackupCase):
    """A tree, a repository whose master key is known, and one machine."""

    def setUp(self) -> None:
        super().setUp()
        self.master = MasterKey.generate()
        repository = os.urandom(16)
        slot = make_slot(self.master, repository, Password(b"x"), costs=CHEAP)
        shutil.rmtree(self.place.directory)
        self.place.description = describe(self.master, repository, EncryptionMode.TENANT, (slot,))
        self.place.keys = RepositoryKeys(self.master, repository)
        Repository.create(self.place.directory, self.place.description).close()
        self.tree(3)
        self.machine = Machine(self, "one")
        self.machine.heads().begin()

    def ended(self) -> None:
        """Nobody serves the repository any more."""
        if self.place.served is not None:
            self.place.served.wait()

    def copy(self) -> Path:
        """A copy of the repository as it is now."""
        self.ended()
        path = Path(os.path.abspath(self.mktemp()))
        shutil.copytree(self.place.directory, path)
        return path

    def go_back(self, copy: Path) -> None:
        """The provider puts an older copy in the repository's place."""
        self.ended()
        shutil.rmtree(self.place.directory)
        shutil.copytree(copy, self.place.directory)

    def alarmed(self, machine: Machine | None = None) -> str:
        """Every kind of dialogue is refused before anything is asked or sent; why."""
        machine = machine or self.machine
        with self.assertRaises(StoredDataDamaged) as caught:
            machine.look()
        self.ended()
        point = bytes(16)
        place = self.place
        sent: list[FrameKind] = []

        class Recording(FrameChannel):
            def send(self, kind: FrameKind, *values: Any, **named: Any) -> None:
                sent.append(kind)
                super().send(kind, *values, **named)

        opened: list[FrameChannel] = []

        def recorded(purpose: str) -> FrameChannel:
            channel = place.open(purpose)
            channel.__class__ = Recording
            opened.append(channel)
            return channel

        for attempt in (
            lambda: BackupRun(
                recorded("backup"),
                place.keys,
                place.description,
                BackupOptions(paths=(self.top,)),
                place.labels,
                SESSION,
                heads=machine.heads(),
            ).run(),
            lambda: RestoreRun(
                recorded("restore"),
                place.keys,
                place.description,
                point,
                RestoreOptions(target=self.top + b"-restored"),
                heads=machine.heads(),
            ).run(),
            lambda: PointReader(
                recorded("read"), place.keys, place.description, heads=machine.heads()
            ).open(point),
        ):
            with self.assertRaises(StoredDataDamaged):
                attempt()
            opened[-1].abort(StoredDataDamaged("the test is over"))
            self.ended()
        self.assertLessEqual(set(sent), {FrameKind.HELLO, FrameKind.HEADS})
        return str(caught.exception)

    def replace(self, description: RepositoryDescription, keys: RepositoryKeys) -> None:
        """Another machine replaces the description; from now on it is handed out."""
        other = Machine(self, "other").look()
        encoded = description.encode()
        head = other.chain.next_description(self.place.keys, encoded, description.public_key)
        with Repository.open(self.place.directory) as repository:
            repository.replace_description(encoded, head)
        self.place.description = description
        self.place.keys = keys

    def add_slot(self) -> RepositoryDescription:
        slot = make_slot(
            self.master, self.place.description.repository, Password(b"y"), costs=CHEAP
        )
        return add_slot(self.place.description, self.place.keys, slot)

    def renew(self) -> None:
        """A new master key."""
        fresh = MasterKey.generate()
        slot = make_slot(fresh, self.place.description.repository, Password(b"z"), costs=CHEAP)
        changed = new_master(self.place.description, self.master, fresh, (slot,))
        self.replace(changed, keys_of(changed, fresh))
        self.master = fresh


class ChainTests(HeadsCase):
    """What goes on as it should."""

    def test_backups(self) -> None:
        """Each backup appends a head; nothing is said where nothing is to be said."""
        points = [self.machine.backup().point for _ in range(3)]
        with Repository.open(self.place.directory) as repository:
            page = repository.heads()
        self.assertEqual([head.entry.point for head in page.heads], points)
        self.assertEqual(self.machine.look().chain.value, page.value)
        self.assertEqual(self.machine.notes, [])
        self.assertEqual(self.machine.path.stat().st_mode & 0o777, 0o600)

    def test_first_look(self) -> None:
        """A machine that has never seen the repository says so once, and what it sees."""
        self.machine.backup()
        other = Machine(self, "two")
        other.look()
        other.look()
        self.assertEqual(len(other.notes), 1)
        self.assertIn("first time", other.notes[0])
        self.assertIn("head is number 1", other.notes[0])
        self.assertRegex(other.notes[0], r"of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")

    def test_empty_repository(self) -> None:
        """A repository without points gives nothing to say."""
        other = Machine(self, "two")
        other.look()
        self.assertEqual(other.notes, [])
        self.assertTrue(other.path.exists())

    def test_two_machines(self) -> None:
        """Each machine goes on from what it knows, over the other's points."""
        other = Machine(self, "two")
        for _ in range(2):
            self.machine.backup()
            other.backup()
        self.assertEqual(self.machine.look().chain.number, 4)
        self.assertEqual(self.machine.notes, [])

    def test_many_pages(self) -> None:
        """A chain that takes several answers is followed to its end."""
        self.patch(repository_heads, "PAGE_HEADS", 2)
        for _ in range(5):
            self.machine.backup()
        self.assertEqual(Machine(self, "two").look().chain, self.machine.look().chain)

    def test_at_once(self) -> None:
        """Backups at the same moment all succeed, and their heads are one chain."""
        machines = [Machine(self, str(number)) for number in range(3)]
        for machine in machines:
            machine.look()
        barrier = threading.Barrier(len(machines))
        errors: list[BaseException] = []
        moved: list[int] = []
        real_offer = KnownHeads.next_point
        real_moved = KnownHeads.catch_up
        first: set[int] = set()

        def offer(heads: KnownHeads, point: bytes, record: bytes) -> Any:
            head = real_offer(heads, point, record)
            if id(heads) not in first:  # all of them offer what continues the same head
                first.add(id(heads))
                barrier.wait(60)
            return head

        def catch_up(heads: KnownHeads, exchange: Any) -> None:
            moved.append(1)
            real_moved(heads, exchange)

        self.patch(KnownHeads, "next_point", offer)
        self.patch(KnownHeads, "catch_up", catch_up)

        def run(machine: Machine) -> None:
            try:
                with Repository.open(self.place.directory):
                    machine.backup()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(machine,)) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(errors, [])
        self.assertGreaterEqual(len(moved), 2)
        self.assertEqual(self.machine.look().chain.number, 3)
        self.assertEqual(self.points(), 3)
        for machine in machines:
            self.assertEqual(machine.look().chain.number, 3)

    def test_too_often(self) -> None:
        """A repository that always says that the head has moved is not followed for ever."""
        self.patch(leading_module, "OFFERS_MAX", 3)

        def always(*_: Any) -> None:
            raise HeadMoved("another session has published meanwhile")

        self.patch(repository_points, "check_point", always)
        self.assertRaises(HeadMoved, self.machine.backup)
        self.assertEqual(self.points(), 0)

    def test_withdrawn(self) -> None:
        """What became of points that this machine had seen is said once, in words."""
        points = [self.machine.backup().point for _ in range(3)]
        with Repository.open(self.place.directory) as repository:
            repository.withdraw(points[:2])
        self.machine.look()
        self.machine.look()
        self.assertEqual(len(self.machine.notes), 1)
        self.assertIn("2 withdrawn", self.machine.notes[0])
        self.assertIn(points[0].hex()[:8], self.machine.notes[0])

    def test_by_whom(self) -> None:
        """Who deleted them is said too."""
        points = [self.machine.backup().point for _ in range(8)]
        with (
            Repository.open(self.place.directory) as repository,
            repository.catalogue.writing() as connection,
        ):
            for state, by, some in (
                ("deleted", "tenant", points[:2]),
                ("removed", "retention", points[2:7]),
            ):
                connection.execute(
                    sa.update(points_table)
                    .where(points_table.c.point.in_([point.hex() for point in some]))
                    .values(state=state, deleted_by=by)
                )
        self.machine.look()
        (note,) = self.machine.notes
        self.assertIn("2 deleted by tenant, 5 removed by retention", note)
        self.assertIn(", ...)", note)


class AlarmTests(HeadsCase):
    """What a provider, or who has taken its place, can do to the past, and is found out."""

    def test_rolled_back(self) -> None:
        """A repository that was copied back to an older state."""
        self.machine.backup()
        old = self.copy()
        self.machine.backup()
        self.go_back(old)
        text = self.alarmed()
        self.assertIn("rolled back", text)
        self.assertIn("head 2", text)
        self.assertIn(str(self.machine.path), text)

    def test_emptied(self) -> None:
        """One that was made anew from its description."""
        self.machine.backup()
        self.ended()
        shutil.rmtree(self.place.directory)
        Repository.create(self.place.directory, self.place.description).close()
        self.alarmed()

    def test_fork(self) -> None:
        """Two pasts: each machine is shown its own, and then one is shown the other's."""
        other = Machine(self, "two")
        self.machine.backup()
        other.look()
        common = self.copy()
        self.machine.backup()
        mine = self.copy()
        self.go_back(common)
        other.backup()
        theirs = self.copy()
        self.alarmed(self.machine)
        self.go_back(mine)
        self.alarmed(other)
        self.go_back(theirs)
        other.backup()  # its own past goes on
        self.alarmed(self.machine)
        self.go_back(mine)
        self.machine.backup()

    def test_hidden_point(self) -> None:
        """A point whose row was taken out of the catalogue."""
        point = self.machine.backup().point
        self.machine.backup()
        other = Machine(self, "two")
        other.look()
        third = Machine(self, "three")
        with (
            Repository.open(self.place.directory) as repository,
            repository.catalogue.writing() as connection,
        ):
            connection.execute(sa.delete(points_table).where(points_table.c.point == point.hex()))
        for machine in (self.machine, other, third):  # also who had never seen it
            text = self.alarmed(machine)
            self.assertIn(point.hex()[:8], text)
            self.assertIn("without a trace", text)

    def test_hidden_head(self) -> None:
        """Nor does it help to take its head out too: the chain has a hole."""
        self.machine.backup()
        self.machine.backup()
        with (
            Repository.open(self.place.directory) as repository,
            repository.catalogue.writing() as connection,
        ):
            connection.execute(sa.delete(heads_table).where(heads_table.c.number == 1))
        self.alarmed(Machine(self, "two"))
        self.alarmed(self.machine)

    def test_changed_head(self) -> None:
        """A head that was changed in the catalogue."""
        self.machine.backup()
        with Repository.open(self.place.directory) as repository:
            head = repository.heads().heads[0]
            octets = bytearray(head.encoded)
            octets[-1] ^= 1
            with repository.catalogue.writing() as connection:
                connection.execute(sa.update(heads_table).values(entry=bytes(octets)))
        self.alarmed()

    def test_old_description(self) -> None:
        """A description that was replaced: who saw the new one does not take the old one back."""
        old = self.place.description
        changed = self.add_slot()
        self.replace(changed, self.place.keys)
        self.machine.look()
        self.place.description = old
        text = self.alarmed()
        self.assertIn("description", text)
        fresh = Machine(self, "two")
        self.assertRaises(Busy, fresh.look)  # it might have been replaced at this moment

    def test_description_without_head(self) -> None:
        """A description that the chain knows nothing of."""
        self.machine.look()
        self.place.description = self.add_slot()
        self.assertIn("description", self.alarmed())

    def test_changed_file(self) -> None:
        """What the machine remembers was changed: by somebody without the keys."""
        self.machine.backup()
        octets = bytearray(self.machine.path.read_bytes())
        for at in (0, len(octets) // 2, len(octets) - 1):
            changed = bytearray(octets)
            changed[at] ^= 1
            self.machine.path.write_bytes(changed)
            self.assertIn(str(self.machine.path), self.alarmed())
        self.machine.path.write_bytes(b"")
        self.alarmed()
        self.machine.path.write_bytes(octets)
        self.machine.look()

    def test_file_of_another_repository(self) -> None:
        """The file of another repository does not serve."""
        self.machine.backup()
        octets = self.machine.path.read_bytes()
        moved = RepositoryKeys(self.master, bytes(16))
        heads = KnownHeads(
            self.machine.path,
            moved,
            attrs.evolve(self.place.description, repository=bytes(16)).signed(moved),
        )
        self.machine.path.unlink()
        heads.begin()
        self.alarmed()
        self.machine.path.write_bytes(octets)
        self.machine.look()

    def test_never_back(self) -> None:
        """Of two commands of one machine the one that has seen less does not write over more."""
        early = self.machine.look()
        self.machine.backup()
        early.begin()
        with Repository.open(self.place.directory) as repository:
            number = repository.heads().number
        self.assertEqual(self.machine.look().chain.number, number)


class LatestTests(HeadsCase):
    """A provider that calls an older point the latest one."""

    def look(self, point: bytes, host: str = "host", job: str = "job") -> None:
        heads = self.machine.heads()
        heads.expect_latest(host, job, point)
        place = self.place
        look(place.open("read"), place.keys, place.description, heads)

    def test_older(self) -> None:
        """The machine that made a newer one finds out, for its own host and job."""
        first, second = self.machine.backup().point, self.machine.backup().point
        self.look(second)
        with self.assertRaises(StoredDataDamaged) as caught:
            self.look(first)
        self.assertIn(second.hex()[:8], str(caught.exception))
        self.look(first, job="another")
        self.look(first, host="another")

    def test_newer_elsewhere(self) -> None:
        """A newer one that another machine made under the same labels is believed."""
        self.machine.backup()
        self.look(Machine(self, "two").backup().point)

    def test_deleted(self) -> None:
        """Where its own newest one is gone, with a word, an older one is the latest."""
        first, second = self.machine.backup().point, self.machine.backup().point
        with Repository.open(self.place.directory) as repository:
            repository.withdraw([second])
        self.look(first)
        self.assertIn("withdrawn", self.machine.notes[0])


class KitTests(HeadsCase):
    """A new machine that has the head of a recovery kit."""

    def anchor(self) -> Anchor:
        chain = self.machine.look().chain
        return Anchor(chain.number, chain.value)

    def test_goes_on(self) -> None:
        """It says that the kit's head is in the chain."""
        self.machine.backup()
        anchor = self.anchor()
        self.machine.backup()
        fresh = Machine(self, "two", anchor)
        fresh.look()
        (note,) = fresh.notes
        self.assertIn("recovery kit's head 1", note)
        self.assertIn("newest head is number 2", note)

    def test_rolled_back(self) -> None:
        """It notices a repository that is older than its kit."""
        old = self.copy()
        self.machine.backup()
        anchor = self.anchor()
        self.go_back(old)
        self.assertIn("recovery kit", self.alarmed(Machine(self, "two", anchor)))

    def test_another_past(self) -> None:
        """And one with another past than its kit's."""
        old = self.copy()
        self.machine.backup()
        anchor = self.anchor()
        self.go_back(old)
        Machine(self, "three").backup()
        self.assertIn("recovery kit", self.alarmed(Machine(self, "two", anchor)))

    def test_old_description(self) -> None:
        """And a description that is older than its kit."""
        old = self.place.description
        self.replace(self.add_slot(), self.place.keys)
        anchor = self.anchor()
        self.place.description = old
        self.assertIn("description", self.alarmed(Machine(self, "two", anchor)))

    def test_empty(self) -> None:
        """The kit of the first minute names no head, and is in nobody's way."""
        anchor = self.anchor()
        self.assertEqual(anchor.number, 0)
        self.machine.backup()
        fresh = Machine(self, "two", anchor)
        fresh.look()
        self.assertIn("first time", fresh.notes[0])


class GenerationTests(HeadsCase):
    """New master keys, and who has the old one."""

    def content_of(self, point: bytes) -> dict[bytes, bytes]:
        """All files of a point."""
        place = self.place
        with PointReader(place.open("read"), place.keys, place.description) as reader:
            reader.open(point)
            files = [entry for entry in reader.entries() if entry.path.startswith(self.top)]
            return {
                entry.path: b"".join(reader.read(entry))
                for entry in files
                if entry.type.value == "f"
            }

    def test_all_points_are_read(self) -> None:
        """Points from before and after are listed, verified, read and restored."""
        first = self.machine.backup()
        self.renew()
        write(self.top + b"/new", b"new")
        second = self.machine.backup()
        self.renew()
        third = self.machine.backup()
        self.assertNotIn(self.top + b"/new", self.content_of(first.point))
        for result in (second, third):
            self.assertEqual(self.content_of(result.point)[self.top + b"/new"], b"new")
        expected = self.content_of(third.point)
        del expected[self.top + b"/new"]
        self.assertEqual(self.content_of(first.point), expected)
        place = self.place
        paths = dict(
            read_paths(
                place.open("read"),
                place.keys,
                place.description,
                [first.point, second.point, third.point],
                self.machine.heads(),
            )
        )
        self.assertEqual(set(paths.values()), {(self.top,)})
        for number, result in enumerate((first, second, third)):
            target = self.top + b"-%d" % number
            done = RestoreRun(
                place.open("restore"),
                place.keys,
                place.description,
                result.point,
                RestoreOptions(target=target),
                heads=self.machine.heads(),
            ).run()
            self.assertEqual((done.damaged.count, done.problems.count), (0, 0))
            for name, content in self.content_of(result.point).items():
                with open(target + name, "rb") as file:
                    self.assertEqual(file.read(), content)

    def test_everything_again(self) -> None:
        """The first backup under a new key sends everything again, the next one nothing."""
        first = self.machine.backup()
        self.renew()
        second, third = self.machine.backup(), self.machine.backup()
        self.assertEqual(second.bytes_new, first.bytes_new)
        self.assertGreater(first.bytes_new, 0)
        self.assertEqual(third.bytes_new, 0)

    def test_thief_reads_nothing_new(self) -> None:
        """Who has the old master key and the login reads no point made since."""
        old_keys, old_description = self.place.keys, self.place.description
        first = self.machine.backup()
        self.renew()
        second = self.machine.backup()
        place = self.place
        with self.assertRaises(Refused):  # HELLO's id check says that it is another key
            PointReader(place.open("read"), old_keys, old_description).open(second.point)
        # A provider who helps the thief: the check is left out.
        with Repository.open(place.directory) as repository:
            stored = repository.point(second.point)
            with self.assertRaises(StoredDataDamaged):
                old_keys.signer(stored.record, stored.signature)
            record = PointRecord.decode(stored.record)
            with self.assertRaises(StoredDataDamaged):
                old_keys.open_private(record.point, record.private)
            ids = [*record.manifest]
            for batch in repository.references(stored):
                ids += batch
            opened = 0
            for blob in repository.read(ids):
                for kind in ("chunk", "manifest"):
                    with self.assertRaises(StoredDataDamaged):
                        old_keys.open_blob(kind, blob)  # type: ignore[arg-type]
                opened += 1
            self.assertGreater(opened, 1)
            older = repository.point(first.point)
            self.assertEqual(old_keys.signer(older.record, older.signature), old_keys)

    def test_thief_publishes_nothing(self) -> None:
        """Nor does such a thief publish a point, or put back a description of its own."""
        old_keys, old_master, old = self.place.keys, self.master, self.place.description
        self.machine.backup()
        self.renew()
        self.machine.look()
        place = self.place
        thief = KnownHeads(None, old_keys, old)
        # It says the right id check, as a changed program would.
        hello = attrs.evolve(old, id_check=place.description.id_check)
        with self.assertRaises((Refused, Busy, StoredDataDamaged)):
            BackupRun(
                place.open("backup"),
                _Lying(old_keys, place.keys.id_check),  # type: ignore[arg-type]
                hello,
                BackupOptions(paths=(self.top,)),
                place.labels,
                SESSION,
            ).run()
        fresh = MasterKey.generate()
        forged = new_master(old, old_master, fresh, ())
        encoded = forged.encode()
        with Repository.open(place.directory) as repository:
            page = repository.heads()
            chain = attrs.evolve(thief.chain, number=page.number, value=page.value)
            head = chain.next_description(old_keys, encoded, forged.public_key)
            self.assertRaises(Refused, repository.replace_description, encoded, head)
        self.assertEqual(self.points(), 1)
        self.machine.look()

    def test_provider_and_thief(self) -> None:
        """A provider who has the old key too cannot go on with the chain behind the new one."""
        old_keys = self.place.keys
        self.machine.backup()
        self.renew()
        with Repository.open(self.place.directory) as repository:
            page = repository.heads()
            chain = attrs.evolve(self.machine.heads().chain, number=page.number, value=page.value)
            head = chain.next_point(old_keys, bytes(16), b"forged")
            with repository.catalogue.writing() as connection:
                insert_heads(connection, [head])
        self.alarmed()

    def test_forged_as_old(self) -> None:
        """Nor can they show a point under the old key that was never in the chain; what the old
        key signed then, and is in it, is read."""
        first = self.machine.backup().point
        old = self.place.keys
        self.renew()
        place = self.place
        with Repository.open(place.directory) as repository:
            made = attrs.evolve(place.record_of(first), point=b"forged".ljust(16, b"!"))
            encoded = made.encode()
            with repository.catalogue.writing() as connection:
                values = point_values(made, encoded, old.sign(encoded), 0, bytes(32), 1000.0)
                insert_point(connection, values)
        for point, good in ((first, True), (made.point, False)):
            reader = PointReader(
                place.open("read"), place.keys, place.description, heads=self.machine.heads()
            )
            if good:
                with reader:
                    reader.open(point)
                continue
            with self.assertRaises(StoredDataDamaged) as caught, reader:
                reader.open(point)
            self.assertIn("older master key", str(caught.exception))

    def test_forged_in_its_place(self) -> None:
        """Nor can they put another record, under the old key, in the place of one in the chain."""
        first = self.machine.backup().point
        old = self.place.keys
        self.renew()
        self.machine.look()  # what follows is found by what this machine remembers, too
        place = self.place
        made = attrs.evolve(place.record_of(first), tags=("forged",))
        encoded = made.encode()
        with (
            Repository.open(place.directory) as repository,
            repository.catalogue.writing() as connection,
        ):
            forged = {"record": encoded, "signature": old.sign(encoded)}
            connection.execute(sa.update(points_table).values(**forged))
        for machine in (self.machine, Machine(self, "new")):
            reader = PointReader(
                place.open("read"), place.keys, place.description, heads=machine.heads()
            )
            with self.assertRaises(StoredDataDamaged) as caught, reader:
                reader.open(first)
            self.assertIn("chain of heads", str(caught.exception))

    def test_in_the_middle(self) -> None:
        """A new master key while a backup runs: it publishes nothing under the old one."""
        self.machine.backup()
        real = KnownHeads.next_point
        done: list[int] = []

        def next_point(heads: KnownHeads, point: bytes, record: bytes) -> Any:
            head = real(heads, point, record)
            if not done:
                done.append(1)
                self.renew()
            return head

        self.patch(KnownHeads, "next_point", next_point)
        with self.assertRaises((Busy, Refused)):
            self.machine.backup()
        self.assertEqual(self.points(), 1)
        self.machine.backup()

    def test_slots_in_the_middle(self) -> None:
        """Another key slot while a backup runs is in nobody's way."""
        self.machine.backup()
        real = KnownHeads.next_point
        done: list[int] = []

        def next_point(heads: KnownHeads, point: bytes, record: bytes) -> Any:
            head = real(heads, point, record)
            if not done:
                done.append(1)
                self.replace(self.add_slot(), self.place.keys)
            return head

        self.patch(KnownHeads, "next_point", next_point)
        self.machine.backup()
        self.assertEqual(self.points(), 2)


class _Lying:
    """Keys of an old generation that say another id check."""

    def __init__(self, keys: RepositoryKeys, id_check: bytes) -> None:
        self._keys = keys
        self.id_check = id_check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)
