"""Tests for cloudconnect.repository.heads, descriptions and chain_files."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import EncryptionMode, RepositoryDescription, make_slot
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.description import describe
from cloudconnect.content.generations import add_slot, keys_of, new_master, remove_slot
from cloudconnect.content.heads import NOTHING, Chain, HeadKind, SignedHead, first_chain
from cloudconnect.content.subkeys import RepositoryKeys
from cloudconnect.errors import HeadMoved, NotFound, Refused, StoredDataDamaged
from cloudconnect.keys import MasterKey, Password
from cloudconnect.repository import descriptions
from cloudconnect.repository import heads as heads_module
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.heads import PointState, head_of, holes, linked
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import heads_table, points_table
from cloudconnect.wire import canonical
from tests.content.test_slots import CHEAP
from tests.repository.repositories import (
    DESCRIBED,
    MASTER,
    REPOSITORY,
    RepositoryCase,
    blob,
    keys,
    name_of,
    record,
)

KEYS = keys()
FRESH = MasterKey(b"f" * 32)


def point_id(number: int) -> bytes:
    """A made-up id."""
    return number.to_bytes(16, "big")


def slot(master: MasterKey, passphrase: bytes = b"x") -> Any:
    return make_slot(master, REPOSITORY, Password(passphrase), costs=CHEAP)


class HeadsCase(RepositoryCase):
    """A repository with some blobs, and the tenant's side of its chain."""

    def setUp(self) -> None:
        super().setUp()
        self.repository = self.created()
        for number in range(3):
            self.repository.add(blob(number))
        self.repository.flush()
        self.chain = first_chain(KEYS)

    def publish(
        self,
        number: int,
        repository: Repository | None = None,
        head: SignedHead | None = None,
        signer: RepositoryKeys = KEYS,
        references: Any = (),
    ) -> SignedHead:
        """Publish a point with a head that continues the tenant's chain."""
        made = record(point_id(number))
        encoded = made.encode()
        head = head or self.chain.next_point(signer, made.point, encoded)
        target = repository or self.repository
        target.publish(made, encoded, signer.sign(encoded), references, head)
        self.chain = self.chain.follow(head)
        return head

    def states(self, *numbers: int) -> list[str]:
        return [state.state for state in self.repository.heads(0, numbers).about]

    def replace(
        self, description: RepositoryDescription, signer: RepositoryKeys = KEYS, **changes: Any
    ) -> None:
        encoded = description.encode()
        head = self.chain.next_description(signer, encoded, description.public_key)
        self.repository.replace_description(encoded, changes.get("head", head))
        self.chain = self.chain.follow(head)


class PublishTests(HeadsCase):
    """Points with heads."""

    def test_none(self) -> None:
        """A repository without heads says so."""
        page = self.repository.heads()
        self.assertEqual((page.number, page.value, page.heads, page.live), (0, NOTHING, (), b""))

    def test_chain(self) -> None:
        """What is published is listed, in order, and whether its point is there."""
        heads = [self.publish(number) for number in range(3)]
        self.repository.withdraw([point_id(1)])
        for repository in (self.repository, self.opened()):
            page = repository.heads(about=[1, 2, 3, 4])
            self.assertEqual(page.heads, tuple(heads))
            self.assertEqual((page.number, page.value), (3, self.chain.value))
            self.assertEqual(page.live, bytes([0b101]))
            self.assertEqual(
                page.about,
                (
                    PointState(1, "published", "", 1000.0),
                    PointState(2, "withdrawn", "", 1000.0),
                    PointState(3, "published", "", 1000.0),
                    PointState(4, "missing", "", 0.0),
                ),
            )
        self.assertEqual(self.repository.heads(2).heads, (heads[2],))
        self.assertEqual(self.repository.heads(3).heads, ())
        self.assertEqual(self.repository.heads(9).live, bytes([0b101]))

    def test_pages(self) -> None:
        """A long chain comes in pages; only the last one says which points are there."""
        self.patch(heads_module, "PAGE_HEADS", 2)
        for number in range(5):
            self.publish(number)
        lives = [self.repository.heads(after).live for after in (0, 2, 4)]
        self.assertEqual(lives, [b"", b"", bytes([0b11111])])
        sizes = [len(self.repository.heads(after).heads) for after in (0, 2, 4, 5)]
        self.assertEqual(sizes, [2, 2, 1, 0])

    def test_without(self) -> None:
        """Points of older releases have no head, and stand beside those that have one."""
        self.publish(0)
        self.published(self.repository, b"o" * 16, 0)
        self.publish(1)
        self.assertEqual(self.repository.heads().number, 2)
        self.assertEqual(len(self.repository.points()), 3)

    def test_moved(self) -> None:
        """A head that continues an older state is told so, and the point can come again with
        another one: its references are still there."""
        old = self.chain
        self.publish(0)
        made = record(point_id(1))
        encoded, signature = made.encode(), KEYS.sign(made.encode())
        writer = self.repository.begin_references()
        writer.extend(name_of(1))
        stale = old.next_point(KEYS, made.point, encoded)
        for _ in range(2):
            self.assertRaises(
                HeadMoved, self.repository.publish, made, encoded, signature, writer, stale
            )
            self.assertRaises(NotFound, self.repository.point, point_id(1))
            self.assertEqual(len(self.files("points")), 2)
        good = self.chain.next_point(KEYS, made.point, encoded)
        self.repository.publish(made, encoded, signature, writer, good)
        point = self.repository.point(point_id(1))
        self.assertEqual(list(self.repository.references(point)), [[name_of(1)]])
        self.assertEqual(self.files("temporary"), [])

    def test_moved_at_the_last_moment(self) -> None:
        """Also where no lock has kept others out (another host's), only one of two gets in."""
        made = record(point_id(1))
        encoded = made.encode()
        stale = self.chain.next_point(KEYS, made.point, encoded)
        other = self.opened()
        real = Catalogue.removals
        todo = [0]

        def publish_first(catalogue: Catalogue, connection: sa.Connection) -> int:
            if todo:
                todo.clear()
                free = mock.patch.object(
                    other.store, "exclusive", lambda name, wait: mock.MagicMock()
                )
                with free:
                    self.publish(0, other)
            return real(catalogue, connection)

        self.patch(Catalogue, "removals", publish_first)
        self.assertRaises(
            HeadMoved, self.repository.publish, made, encoded, KEYS.sign(encoded), [], stale
        )
        self.assertEqual([row.point for row in self.repository.points()], [point_id(0)])
        self.assertEqual(len(self.files("points")), 2)

    def test_refused(self) -> None:
        """A head of something else, or not signed by the repository's key, is refused."""
        made = record(point_id(1))
        encoded, signature = made.encode(), KEYS.sign(made.encode())
        chain = self.chain
        good = chain.next_point(KEYS, made.point, encoded)
        other = RepositoryKeys(FRESH, REPOSITORY)
        elsewhere = Chain(repository=bytes(16), key=KEYS.public_key)
        for head in (
            chain.next_point(KEYS, point_id(2), encoded),
            chain.next_point(KEYS, made.point, b"another record"),
            chain.next_description(KEYS, encoded, KEYS.public_key),
            chain.next_point(other, made.point, encoded),
            elsewhere.next_point(KEYS, made.point, encoded),
            SignedHead(good.encoded, KEYS.sign(good.encoded)),
            SignedHead(good.encoded, b""),
            SignedHead(b"", good.signature),
        ):
            self.assertRaises(Refused, self.repository.publish, made, encoded, signature, [], head)
        self.assertEqual(self.repository.heads().number, 0)
        self.assertEqual(list(self.repository.store.names("points/")), [])

    def test_again(self) -> None:
        """The same point with the same head is acknowledged again."""
        head = self.publish(0)
        made = record(point_id(0))
        encoded = made.encode()
        answer = self.repository.publish(made, encoded, KEYS.sign(encoded), [], head)
        self.assertEqual(answer, (1, 1000.0))
        self.assertEqual(self.repository.heads().number, 1)

    def test_together(self) -> None:
        """Sessions that publish at once, each trying again when the head has moved, all succeed,
        and their heads are one chain."""
        errors: list[BaseException] = []

        def session(first: int) -> None:
            try:
                with Repository.open(self.directory, clock=self.clock) as repository:
                    for number in range(first, first + 5):
                        made = record(point_id(number))
                        encoded = made.encode()
                        writer = repository.begin_references()
                        writer.extend(name_of(1))
                        while True:
                            page = repository.heads(1 << 40)
                            chain = Chain(
                                repository=REPOSITORY,
                                key=KEYS.public_key,
                                number=page.number,
                                value=page.value,
                            )
                            head = chain.next_point(KEYS, made.point, encoded)
                            try:
                                repository.publish(made, encoded, KEYS.sign(encoded), writer, head)
                                break
                            except HeadMoved:
                                continue
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=session, args=(10 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(errors, [])
        chain = first_chain(KEYS)
        for head in self.repository.heads().heads:
            chain = chain.follow(head)
        self.assertEqual(chain.number, 20)
        self.assertEqual(self.repository.heads().live, (2**20 - 1).to_bytes(3, "little"))

    def test_of_point(self) -> None:
        """The head of a point is found by its id."""
        head = self.publish(7)
        with self.repository.catalogue.reading() as connection:
            self.assertEqual(head_of(connection, point_id(7).hex()), head)
            self.assertIsNone(head_of(connection, point_id(8).hex()))


class DescriptionTests(HeadsCase):
    """New descriptions."""

    def setUp(self) -> None:
        super().setUp()
        self.master = MasterKey(MASTER)
        self.added = add_slot(DESCRIBED, KEYS, slot(self.master))

    def renewed(self) -> RepositoryDescription:
        """With a new master key."""
        return new_master(self.repository.description, self.master, FRESH, (slot(FRESH),))

    def test_replaced(self) -> None:
        """A new description holds for everybody who opens the repository from then on."""
        self.publish(0)
        self.replace(self.added)
        self.assertEqual(self.repository.description, self.added)
        self.assertEqual(self.opened().description, self.added)
        page = self.repository.heads(about=[1, 2])
        self.assertEqual([head.entry.kind for head in page.heads], [*HeadKind])
        self.assertEqual(page.live, b"\1")
        self.assertEqual(self.states(1, 2), ["published", "description"])
        self.publish(1)
        self.assertEqual(self.repository.heads().number, 3)

    def test_again(self) -> None:
        """The same again is taken again; another one in its place is not."""
        self.replace(self.added)
        chain = self.chain
        self.repository.replace_description(
            self.added.encode(), first_chain(KEYS).next_description(KEYS, b"", KEYS.public_key)
        )
        other = add_slot(DESCRIBED, KEYS, slot(self.master))
        self.assertRaises(Refused, self.replace, other)
        self.chain = chain
        self.publish(0)

    def refused(self, description: RepositoryDescription, **changes: Any) -> None:
        with self.assertRaises(Refused):
            self.replace(description, **changes)
        self.chain = first_chain(KEYS)
        self.assertEqual(self.opened().description, DESCRIBED)
        self.assertEqual(list(self.repository.store.names("descriptions/")), [])

    def test_login_alone(self) -> None:
        """Somebody who has the tenant's login and not its key cannot replace the description."""
        thief = RepositoryKeys(FRESH, REPOSITORY)
        own = describe(FRESH, REPOSITORY, EncryptionMode.TENANT, (slot(FRESH),))
        for description in (
            own,
            RepositoryDescription.decode(own.encode()),
            new_master(DESCRIBED, self.master, FRESH, ()),
        ):
            encoded = description.encode()
            head = self.chain.next_description(thief, encoded, thief.public_key)
            self.refused(description, head=head)
        unsigned = self.chain.next_description(KEYS, self.added.encode(), KEYS.public_key)
        self.refused(self.added, head=SignedHead(unsigned.encoded, bytes(64)))

    def test_not_the_next(self) -> None:
        """Another repository, mode or chunking, another revision, a lost master key, or a bad
        signature is refused."""
        other = RepositoryKeys(self.master, REPOSITORY, EncryptionMode.NONE)
        bad = [
            attrs.evolve(self.added, chunking=ChunkingParameters(seed=1)).signed(KEYS),
            attrs.evolve(self.added, mode=EncryptionMode.NONE).signed(other),
            attrs.evolve(self.added, repository=bytes(16)).signed(KEYS),
            attrs.evolve(self.added, revision=0).signed(KEYS),
            attrs.evolve(self.added, revision=2).signed(KEYS),
            attrs.evolve(self.added, signature=bytes(64)),
            attrs.evolve(describe(FRESH, REPOSITORY, EncryptionMode.TENANT, ()), revision=1).signed(
                RepositoryKeys(FRESH, REPOSITORY)
            ),
        ]
        for description in bad:
            self.refused(description)

    def test_often(self) -> None:
        """Keys are changed so often and not more often, as each description stays."""
        self.patch(descriptions, "LATER_MAX", 1)
        self.replace(self.added)
        chain, again = self.chain, add_slot(self.added, KEYS, slot(self.master))
        error = self.assertRaises(Refused, self.replace, again)
        self.chain = chain
        self.assertIn("as they can be", str(error))
        self.assertEqual(1, len(list(self.repository.store.names("descriptions/"))))
        self.publish(0)

    def test_moved(self) -> None:
        """A description that another machine's point has overtaken comes again."""
        stale = self.chain.next_description(KEYS, self.added.encode(), KEYS.public_key)
        self.publish(0)
        self.assertRaises(
            HeadMoved, self.repository.replace_description, self.added.encode(), stale
        )
        self.replace(self.added)

    def test_new_master(self) -> None:
        """After a new master key only that one publishes, also in sessions that were open before;
        older points stay."""
        self.publish(0)
        before = self.opened()
        self.replace(self.renewed())
        ring = keys_of(self.repository.description, FRESH)
        for repository in (self.repository, before):
            made = record(point_id(1))
            encoded = made.encode()
            head = self.chain.next_point(KEYS, made.point, encoded)
            for given in (head, None):
                self.assertRaises(
                    Refused, repository.publish, made, encoded, KEYS.sign(encoded), [], given
                )
        self.publish(1, before, signer=ring)
        self.assertEqual(
            [row.point for row in self.repository.points()], [point_id(0), point_id(1)]
        )
        stored = self.repository.point(point_id(0))
        self.assertEqual(ring.signer(stored.record, stored.signature), ring.older[0])

    def test_killed_before_the_row(self) -> None:
        """A description that is there only as a file does not hold, and makes way."""
        encoded = self.added.encode()
        head = self.chain.next_description(KEYS, encoded, KEYS.public_key)

        class Killed(BaseException):
            pass

        def die(*_: Any) -> None:
            raise Killed

        with (
            mock.patch.object(Catalogue, "writing", die),
            mock.patch.object(self.repository.store, "remove", lambda name: None),
            self.assertRaises(Killed),
        ):
            self.repository.replace_description(encoded, head)
        self.assertEqual(len(list(self.repository.store.names("descriptions/"))), 1)
        self.assertEqual(self.opened().description, DESCRIBED)
        other = add_slot(DESCRIBED, KEYS, slot(self.master))
        self.replace(other)
        self.assertEqual(self.opened().description, other)
        removed = remove_slot(
            add_slot(other, KEYS, slot(self.master)), KEYS, other.slots[0].identifier
        )
        last = attrs.evolve(removed, revision=2).signed(KEYS)
        self.replace(last)
        self.assertEqual(self.opened().description, last)

    def test_killed_and_overtaken(self) -> None:
        """Nor does it come back after a point has taken its number, when all is made again."""
        encoded = self.added.encode()
        head = self.chain.next_description(KEYS, encoded, KEYS.public_key)
        with (
            mock.patch.object(Catalogue, "writing", side_effect=KeyboardInterrupt),
            mock.patch.object(self.repository.store, "remove", lambda name: None),
            self.assertRaises(KeyboardInterrupt),
        ):
            self.repository.replace_description(encoded, head)
        self.publish(0)
        self.repository.close()
        for path in self.directory.glob("catalogue.sqlite*"):
            path.unlink()
        with Repository.recover(self.directory, clock=self.clock) as recovered:
            self.assertEqual(recovered.rebuild_index().damaged, ())
            self.assertEqual(recovered.description, DESCRIBED)
            self.assertEqual(recovered.heads().value, self.chain.value)


class RebuildTests(HeadsCase):
    """A chain made again from files."""

    def recovered(self) -> tuple[Repository, tuple[str, ...]]:
        """The repository without its old catalogue."""
        self.repository.close()
        for path in self.directory.glob("catalogue.sqlite*"):
            path.unlink()
        repository = Repository.recover(self.directory, clock=self.clock)
        self.addCleanup(repository.close)
        return repository, repository.rebuild_index().damaged

    def history(self) -> RepositoryKeys:
        """Two points, a slot, a point, a new master key, a point."""
        self.publish(0)
        self.publish(1)
        self.replace(add_slot(DESCRIBED, KEYS, slot(MasterKey(MASTER))))
        self.publish(2)
        master = MasterKey(MASTER)
        self.replace(new_master(self.repository.description, master, FRESH, (slot(FRESH),)))
        ring = keys_of(self.repository.description, FRESH)
        self.publish(3, signer=ring)
        return ring

    def test_all_of_it(self) -> None:
        """Points of every generation, the newest description, and the whole chain come back."""
        self.history()
        expected = (self.repository.description, self.repository.heads(about=range(1, 7)))
        repository, damaged = self.recovered()
        self.assertEqual(damaged, ())
        self.assertEqual((repository.description, repository.heads(about=range(1, 7))), expected)
        self.assertEqual(len(repository.points()), 4)
        made = record(point_id(9))
        encoded = made.encode()
        ring = keys_of(repository.description, FRESH)
        head = self.chain.next_point(ring, made.point, encoded)
        repository.publish(made, encoded, ring.sign(encoded), [], head)

    def test_again(self) -> None:
        """To make the index again changes nothing where nothing is wrong, and a head whose file
        is damaged is kept from the catalogue."""
        self.history()
        expected = self.repository.heads(about=range(1, 7))
        self.assertEqual(self.repository.rebuild_index().damaged, ())
        self.assertEqual(self.repository.heads(about=range(1, 7)), expected)
        (self.directory / "points" / point_id(1).hex()).write_bytes(b"junk")
        self.repository.rebuild_index()
        self.assertEqual(self.repository.heads(about=range(1, 7)), expected)

    def test_holes(self) -> None:
        """A head that is lost is said; those behind it are kept, and go on from there."""
        self.history()
        (self.directory / "points" / point_id(1).hex()).unlink()
        repository, damaged = self.recovered()
        self.assertEqual(
            [text for text in damaged if "heads" in text], ["the heads between 1 and 3 are lost"]
        )
        page = repository.heads()
        self.assertEqual(page.value, self.chain.value)
        self.assertEqual([head.entry.number for head in page.heads], [1, 3, 4, 5, 6])

    def test_damaged_description(self) -> None:
        """A later description that was changed is said, and the one before it holds."""
        self.history()
        path = self.directory / "descriptions" / "00000002"
        octets = bytearray(path.read_bytes())
        octets[-200] ^= 1
        path.write_bytes(octets)
        repository, damaged = self.recovered()
        self.assertEqual(repository.description.revision, 1)
        self.assertTrue(any("descriptions/00000002" in text for text in damaged))

    def test_strangers(self) -> None:
        """A head that none of the repository's keys has signed is not believed."""
        self.publish(0)
        thief = RepositoryKeys(FRESH, REPOSITORY)
        forged = self.chain.next_point(thief, point_id(5), b"x")
        path = self.directory / "points" / (point_id(5).hex() + "-removed")
        path.write_bytes(
            canonical.encode({"head": forged.encoded, "head_signature": forged.signature})
        )
        repository, damaged = self.recovered()
        self.assertEqual(len([text for text in damaged if "a head cannot be used" in text]), 1)
        self.assertEqual(repository.heads().value, self.chain.value)

    def test_removed_points(self) -> None:
        """The head of a point that is gone comes from what is left of it."""
        for number in range(3):
            self.publish(number)
        self.repository.delete([point_id(1)])
        with self.repository.catalogue.writing() as connection:
            over = {"bin_until": 0.0, "bin_clock": 0.0}
            deleted = points_table.c.point == point_id(1).hex()
            connection.execute(sa.update(points_table).where(deleted).values(**over))
        self.assertEqual(len(self.repository.expire().removed), 1)
        repository, damaged = self.recovered()
        self.assertEqual(damaged, ())
        self.assertEqual(len(repository.heads().heads), 3)

    def test_missing_row(self) -> None:
        """A point whose row was taken out of the catalogue is missing, not merely deleted."""
        self.publish(0)
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.delete(points_table))
        self.assertEqual(self.states(1), ["missing"])

    def test_linked(self) -> None:
        """Of two entries with one number that counts to which the chain leads; at its end the
        later one."""
        start = first_chain(KEYS)
        left = start.next_point(KEYS, point_id(1), b"left by who was killed")
        one = start.next_point(KEYS, point_id(2), b"x")
        two = start.follow(one).next_point(KEYS, point_id(3), b"x")
        self.assertEqual(linked([left, one, two]), [one, two])
        self.assertEqual(linked([one, left, two]), [one, two])
        self.assertEqual(linked([left, one]), [one])
        self.assertEqual(linked([]), [])
        self.assertEqual(holes([one, two]), [])
        self.assertEqual(holes([two]), ["the heads between 0 and 2 are lost"])

    def test_table(self) -> None:
        """The table holds the entries as they came."""
        head = self.publish(0)
        with self.repository.catalogue.reading() as connection:
            row = connection.execute(sa.select(heads_table)).one()
        self.assertEqual(
            (row.number, row.entry, row.signature, row.point),
            (1, head.encoded, head.signature, point_id(0).hex()),
        )
        with self.assertRaises(StoredDataDamaged):
            first_chain(RepositoryKeys(FRESH, REPOSITORY)).follow(head)
