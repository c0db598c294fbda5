"""Layer 3: packs, read from the first byte to the last and held against the catalogue.

Without any key: the digest in an entry is of the stored bytes. Whatever can be made right from
what is whole is made right here: a row from the pack, blobs of a pack with a damaged header or
directory by moving them into a new pack, a damaged blob from another copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import NoSpace, NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.accounting import PackRow
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.findings import Finding, FindingKind
from cloudconnect.repository.packs import ENTRY_SIZE, Entry, entry_head, read_pack
from cloudconnect.repository.repack import Repacker
from cloudconnect.repository.tables import blobs_table, packs_table

#: Bytes of a pack that are read at a time, save that one blob always is.
_WINDOW: Final = 4 << 20
_HEAD: Final = ENTRY_SIZE // 2
#: So many packs that are missing are not most of them, however few there are.
_GONE_MIN: Final = 16
#: Ids that a sentence names.
_NAMED: Final = 3

_b = blobs_table.c
_place = (
    sa.update(blobs_table)
    .where(_b.id == sa.bindparam("name"), _b.pack == sa.bindparam("old_pack"))
    .values(
        {name: sa.bindparam(f"new_{name}") for name in attrs.fields_dict(Entry) if name != "id"}
        | {"pack": sa.bindparam("new_pack"), "damaged": False}
    )
)


@attrs.frozen
class Examined:
    """What the file of a pack holds.

    :ivar problem: what is wrong with it apart from its blobs, or empty
    :ivar sound: entries whose stored bytes have their digest
    :ivar damaged: ids of the others
    :ivar size: of the file in bytes
    """

    problem: str
    sound: list[Entry]
    damaged: list[bytes]
    size: int


def examine(
    store: IBlobStore, name: str, repository: bytes, tell: Callable[[int], None]
) -> Examined:
    """Read a whole pack.

    :param tell: is told of bytes that were read, and may raise to stop
    :raises StoredDataDamaged: nothing of it can be used
    :raises NotFound: it is not there
    """
    contents = read_pack(store, name, repository)
    problem = contents.problem
    sound, damaged = [], []
    for part in _windows(contents.entries):
        start = part[0].offset - _HEAD
        length = part[-1].offset + part[-1].stored_length - start
        octets = memoryview(store.read(name, start, length))
        tell(length)
        for entry in part:
            at = entry.offset - start
            if octets[at - _HEAD : at] != entry_head(entry):
                problem = problem or "the header of a blob in it was changed"
            try:
                entry.blob(octets[at : at + entry.stored_length], name)
            except StoredDataDamaged:
                damaged.append(entry.id)
            else:
                sound.append(entry)
    return Examined(problem, sound, damaged, store.size(name))


@attrs.define
class PackChecker:
    """Examines packs and mends.

    :ivar repository: 16 bytes
    :ivar tell: is told of bytes that were read, and may raise to stop
    :ivar lost: is given the ids of blobs that are damaged or missing, and where in ``findings``
        what was said of them stands
    :ivar broken: packs whose blobs should move, because the pack is damaged, with those blobs and
        the number of what was said of it
    """

    store: IBlobStore
    catalogue: Catalogue
    repository: bytes
    tell: Callable[[int], None]
    lost: Callable[[list[bytes], Finding], int]
    packs: int = 0
    blobs: int = 0
    mended: int = 0
    broken: list[tuple[PackRow, list[Entry], int]] = attrs.field(factory=list)

    def check(self, pack: PackRow) -> None:
        """Look at one pack.

        :raises OSError: the system cannot read it
        """
        try:
            found = examine(self.store, pack.name, self.repository, self.tell)
        except NotFound:
            if self._row_of(pack) is None:
                return  # it was removed meanwhile
            self._gone(pack, "it is not there")
            return
        except StoredDataDamaged as error:
            self._gone(pack, str(error).removeprefix(f"{pack.name} "))
            return
        self.packs += 1
        self.blobs += len(found.sound)
        matched = self._compare_rows(pack, found)
        if found.problem:
            said = self._say(FindingKind.PACK, pack, found.problem)
            self.broken.append((pack, found.sound, said))
        elif found.size != pack.size:
            self._mend_size(pack, found.size)
        if pack.rows > matched:
            self._stray_rows(pack, {entry.id for entry in found.sound} | set(found.damaged))

    def check_names(self, packs: list[PackRow]) -> set[int]:
        """See that each of ``packs`` is there; the numbers of those that are not.

        Where most are not, somebody has not mounted the disk: nothing is marked then.
        """
        names = set(self.store.names("packs/"))
        gone = [pack for pack in packs if pack.name not in names and self._row_of(pack)]
        if len(gone) > max(_GONE_MIN, len(packs) // 2):
            text = f"{len(gone)} of {len(packs)} packs are not there: is the disk mounted?"
            self.lost([], Finding(FindingKind.PACK, "packs", text))
        else:
            for pack in gone:
                self._gone(pack, "it is not there")
        return {pack.number for pack in gone}

    def _compare_rows(self, pack: PackRow, found: Examined) -> int:
        """Hold rows against entries; how many rows were looked at."""
        sound = {entry.id: entry for entry in found.sound}
        damaged: list[bytes] = []
        wrong: list[Entry] = []
        healed: list[Entry] = []
        count = 0
        with self.catalogue.reading() as connection:
            rows = self.catalogue.rows(connection, [*sound, *found.damaged])
        for name, (number, there, flag) in rows.items():
            entry = sound.get(name)
            if number != pack.number:
                continue
            count += 1
            if entry is None:
                damaged.append(name)
            elif there != entry:
                wrong.append(entry)
            elif flag:
                healed.append(entry)
        if found.damaged:
            self._mark(found.damaged, pack)
            text = f"the stored bytes of {_ids(found.damaged)} were changed"
            self.lost(damaged, Finding(FindingKind.BLOB, pack.name, text))
        mended = bool(wrong or healed) and self._rewrite(pack, wrong + healed)
        if wrong:
            text = f"the catalogue said something else of {_ids([e.id for e in wrong])}"
            self._say(FindingKind.INDEX, pack, text, mended)
        self.mended += len(healed) * mended
        return count

    def examine_unknown(self, name: str) -> None:
        """Look at a pack that has no row; a collection gives it one, if it can be used.

        :raises NotFound: it is not there any more
        """
        try:
            found = examine(self.store, name, self.repository, self.tell)
            problem = found.problem
            if found.damaged:
                problem = problem or f"the stored bytes of {_ids(found.damaged)} were changed"
        except StoredDataDamaged as error:
            problem = str(error).removeprefix(f"{name} ")
        if problem:
            text = f"{problem}; it is not in the catalogue"
            self.lost([], Finding(FindingKind.PACK, name, text))

    def mend(self, lost: Collection[bytes], check: Callable[[], None]) -> list[int]:
        """Use sound copies in the place of damaged ones, and empty the packs that are damaged.

        Under the lock of collecting, as rows may come to lie in packs that were there before.

        :param lost: ids of blobs that are damaged, or have no row
        :param check: is called now and then, and raises to stop
        :return: of what was said of damaged packs, what is not so any more
        :raises NoSpace: the disk is full
        """
        if lost:
            self._search(set(lost), check)
        broken, self.broken = self.broken, []
        repacker = Repacker(self.store, self.catalogue, self.repository, check)
        try:
            for pack, entries, _ in broken:
                repacker.move(pack, repacker.rows_of(pack, [entry.id for entry in entries]))
            repacker.finish()
        finally:
            repacker.close()
        self.mended += len(broken)
        return [said for _, _, said in broken]

    def _search(self, lost: set[bytes], check: Callable[[], None]) -> None:
        """Look through all packs for sound copies of what is lost."""
        p = packs_table.c
        with self.catalogue.reading() as connection:
            query = sa.select(p.number, p.name).where(p.retired.is_(None)).order_by(p.number)
            packs = connection.execute(query).all()
        for number, name in packs:
            check()
            with contextlib.suppress(NotFound, StoredDataDamaged, OSError):
                for entry in read_pack(self.store, name, self.repository).entries:
                    if entry.id in lost:
                        data = self.store.read(name, entry.offset, entry.stored_length)
                        with contextlib.suppress(StoredDataDamaged):
                            entry.blob(data, name)
                            self._use(number, entry)

    def _use(self, pack: int, entry: Entry) -> None:
        """Point the row of a damaged blob to a sound copy of it, or give it a row."""
        values = attrs.asdict(entry) | {"pack": pack, "damaged": False}
        with self.catalogue.writing() as connection:
            changed = connection.execute(
                sa.update(blobs_table).where(_b.id == entry.id, _b.damaged).values(**values)
            ).rowcount
            known = sa.select(_b.pack).where(_b.id == entry.id)
            if not changed and connection.execute(known).first() is None:
                connection.execute(sa.insert(blobs_table), {**values, "condemned": 0})
                changed = 1
            self.mended += changed

    def _gone(self, pack: PackRow, text: str) -> None:
        """Nothing in this pack can be used."""
        names = self._rows_in(pack)
        if names:
            self._mark(names, pack)
            text = f"{text}, and with it {_ids(names)}"
        self.lost(names, Finding(FindingKind.PACK, pack.name, text))

    def _stray_rows(self, pack: PackRow, there: set[bytes]) -> None:
        """Rows that say that their blob is in this pack, where it is not."""
        names = [name for name in self._rows_in(pack) if name not in there]
        if names:
            self._mark(names, pack)
            text = f"the catalogue says that it holds {_ids(names)}, and it does not"
            self.lost(names, Finding(FindingKind.BLOB, pack.name, text))

    def _mark(self, names: list[bytes], pack: PackRow) -> None:
        with contextlib.suppress(NoSpace):  # the next scrub finds it again
            self.catalogue.mark_damaged(names, pack.name)

    def _rewrite(self, pack: PackRow, entries: list[Entry]) -> bool:
        with contextlib.suppress(NoSpace), self.catalogue.writing() as connection:
            connection.execute(
                _place,
                [
                    {
                        "name": entry.id,
                        "old_pack": pack.number,
                        "new_pack": pack.number,
                        **{
                            f"new_{name}": value
                            for name, value in attrs.asdict(entry).items()
                            if name != "id"
                        },
                    }
                    for entry in entries
                ],
            )
            return True
        return False

    def _mend_size(self, pack: PackRow, size: int) -> None:
        mended = False
        with contextlib.suppress(NoSpace), self.catalogue.writing() as connection:
            where = packs_table.c.number == pack.number
            mended = (
                connection.execute(sa.update(packs_table).where(where).values(size=size)).rowcount
                == 1
            )
        text = f"the catalogue said that it has {pack.size} bytes, and it has {size}"
        self._say(FindingKind.INDEX, pack, text, mended)

    def _say(self, kind: FindingKind, pack: PackRow, text: str, mended: bool = False) -> int:
        self.mended += mended
        return self.lost([], Finding(kind, pack.name, text, mended=mended))

    def _rows_in(self, pack: PackRow) -> list[bytes]:
        """The blobs that the catalogue says are in this pack: it is searched from end to end."""
        with self.catalogue.reading() as connection:
            query = sa.select(_b.id).where(_b.pack == pack.number)
            return list(connection.execute(query).scalars())

    def _row_of(self, pack: PackRow) -> int | None:
        p = packs_table.c
        with self.catalogue.reading() as connection:
            query = sa.select(p.number).where(p.number == pack.number, p.retired.is_(None))
            return connection.execute(query).scalar()


def _windows(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Neighbours that are read together."""
    part: list[Entry] = []
    for entry in entries:
        end = entry.offset + entry.stored_length
        if part and (end - part[0].offset > _WINDOW or _follows(part[-1]) != entry.offset):
            yield part
            part = []
        part.append(entry)
    if part:
        yield part


def _follows(entry: Entry) -> int:
    """Where the blob behind this one begins."""
    return entry.offset + entry.stored_length + _HEAD


def _ids(names: list[bytes]) -> str:
    text = ", ".join(name.hex() for name in names[:_NAMED])
    return text if len(names) <= _NAMED else f"{text} and {len(names) - _NAMED} more"
