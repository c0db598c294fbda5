"""Layer 3: what a tenant's machine knows of a repository's chain of heads, and what follows.

In every dialogue, behind the greeting and before anything else, the machine asks for the newest
head and follows the chain from the one that it knows (``docs/repository-format.rst``, heads). A
repository that was rolled back, or shows another past, is found out there.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.backup.dialogue import greet
from cloudconnect.backup.head_file import HeadFile, Known
from cloudconnect.backup.headed import (
    Exchange,
    ask_fates,
    ask_page,
    bits_of,
    exchange_over,
    page_question,
)
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.heads import Chain, HeadKind, SignedHead, first_chain
from cloudconnect.content.subkeys import RepositoryKeys
from cloudconnect.errors import Busy, Cancelled, StoredDataDamaged, UsageError
from cloudconnect.shown import Shown
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameKind

#: Newer points that were never seen here and are not listed: so many are asked about.
UNSEEN_MAX: Final = 4096
#: Points that a note names one by one.
NAMED_MAX: Final = 5

_POINT_SIZE: Final = 16
_DIGEST_SIZE: Final = 32
#: In the place of a digest that an older file of heads did not have.
_UNKNOWN: Final = bytes(_DIGEST_SIZE)


@attrs.frozen(repr=False)
class Anchor(Shown):
    """A head that somebody wrote down: in the recovery kit.

    :ivar number: its number; 0 for a repository that had none
    :ivar value: its hash, 32 bytes
    """

    number: int
    value: bytes


class KnownHeads:
    """How far this machine has seen one repository's chain; used by one thread at a time.

    :param path: the file that it is remembered in, or None: not at all
    :param keys: of the repository, all generations
    :param description: as the provider has just handed it out, already verified
    :param note: is called with a sentence for the user, where there is something to say
    :param anchor: the head in the recovery kit, where one is used
    """

    def __init__(
        self,
        path: Path | None,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        note: Callable[[str], None] = lambda text: None,
        anchor: Anchor | None = None,
    ) -> None:
        self._file = None if path is None else HeadFile(path, keys)
        self._keys = keys
        self._description = description
        self._note = note
        self._anchor = anchor
        self._known = Known(first_chain(keys))
        self._latest: tuple[tuple[str, str], bytes] | None = None
        self._asked: bytes | None = None  # what was asked before the greeting was answered
        self._described = 0  # number of the newest head of a description that was followed here

    @property
    def chain(self) -> Chain:
        """How far the chain was seen."""
        return self._known.chain

    def begin(self) -> None:
        """Remember a repository that was made just now: it has no heads."""
        self._save()

    def expect_latest(self, host: str, job: str, point: bytes) -> None:
        """The provider has said that this is the newest point of a host and job: let the next
        comparison find out if this machine itself has made a newer one, which is still there.

        :param point: its 16 bytes
        """
        self._latest = ((host, job), point)

    def ask(self, channel: FrameChannel) -> None:
        """Send the question that :meth:`check` begins with, behind a HELLO that is not answered
        yet: so its answer comes a round trip earlier.

        :raises CloudConnectError: the dialogue failed
        """
        self._recall()
        self._asked = page_question(self.chain.number)
        channel.send(FrameKind.HEADS, 0, self._asked)

    def check(self, channel: FrameChannel) -> None:
        """As :meth:`compare`, over a dialogue that has just been greeted."""
        asked, self._asked = self._asked, None
        self.compare(exchange_over(channel, asked))

    def compare(self, exchange: Exchange) -> None:
        """Follow the chain to its end, compare it with what is known, and remember it.

        :raises StoredDataDamaged: the repository was rolled back, shows another past or an older
            description, or has lost a point without a trace
        :raises Busy: its keys were changed at this moment by another machine
        :raises CloudConnectError: the dialogue failed
        """
        before = self._recall()
        live = self._follow(exchange)
        self._check_anchor()
        self._check_description(before)
        self._look(exchange, before, live)
        self._save()

    def catch_up(self, exchange: Exchange) -> None:
        """Follow the chain to its end once more, because it has moved.

        :raises StoredDataDamaged: it does not continue what is known
        :raises Busy: the repository has got a new master key meanwhile
        """
        live = self._follow(exchange)
        self._known = attrs.evolve(self._known, live=self._known.live | live)
        if self.chain.key != self._keys.public_key:
            raise Busy("this repository got a new master key just now; run the command again")

    def vouches(self, point: bytes, record: bytes) -> bool | None:
        """Whether the chain, as far as it was seen, has an entry of this point with this record.

        :param point: its 16 bytes
        :param record: its encoded record
        :return: None: it has no entry of the point
        """
        points, at = self._known.points, -1
        while (at := points.find(point, at + 1)) >= 0:
            if at % _POINT_SIZE == 0:
                number = at // _POINT_SIZE
                digest = self._known.digests[_DIGEST_SIZE * number :][:_DIGEST_SIZE]
                return digest in (hashlib.sha256(record).digest(), _UNKNOWN)
        return None

    def next_point(self, point: bytes, record: bytes) -> SignedHead:
        """The entry of a new restore point.

        :param point: its 16 bytes
        :param record: its encoded record
        """
        return self.chain.next_point(self._keys, point, record)

    def taken(self, head: SignedHead, host: str = "", job: str = "") -> None:
        """The repository has taken this entry, which continues the chain: remember it.

        :param host: of a point's record
        :param job: likewise
        """
        entry = head.entry
        self._append([head])
        if entry.kind is HeadKind.POINT:
            live = self._known.live | 1 << (entry.number - 1)
            own = {**self._known.own, (host, job): entry.number}
            self._known = attrs.evolve(self._known, live=live, own=own)
        self._save()

    def _recall(self) -> Known | None:
        """What the file says, which counts from now on where there is one."""
        before = None if self._file is None else self._file.load()
        self._known = before or self._known
        return before

    # --- following -------------------------------------------------------------------------------

    def _follow(self, exchange: Exchange) -> int:
        """Follow the chain to its end; which heads' points are listed, as bits."""
        while True:
            page = ask_page(exchange, self.chain.number)
            if page.number < self.chain.number:
                raise self._rolled_back(
                    f"this machine has seen its head {self.chain.number}, and the provider shows "
                    f"only {page.number}"
                )
            self._append(page.heads)
            if self.chain.number == page.number:
                if self.chain.value != page.value:
                    raise self._rolled_back(f"its head {page.number} is another one than it was")
                return page.live

    def _append(self, heads: Sequence[SignedHead]) -> None:
        chain, anchor = self.chain, self._anchor
        points, digests = [self._known.points], [self._known.digests]
        for head in heads:
            try:
                chain = chain.follow(head)
            except StoredDataDamaged as error:
                raise self._rolled_back(str(error)) from error
            entry = head.entry
            points.append(entry.point or bytes(_POINT_SIZE))
            digests.append(entry.digest)
            if entry.kind is HeadKind.DESCRIPTION:
                self._described = entry.number
            if anchor and entry.number == anchor.number and chain.value != anchor.value:
                raise self._rolled_back(
                    f"its head {entry.number} is another one than the recovery kit says"
                )
        self._known = attrs.evolve(
            self._known, chain=chain, points=b"".join(points), digests=b"".join(digests)
        )

    def _check_anchor(self) -> None:
        anchor = self._anchor
        if anchor is not None and self.chain.number < anchor.number:
            raise self._rolled_back(
                f"the recovery kit names its head {anchor.number}, and the provider shows only "
                f"{self.chain.number}"
            )

    def _check_description(self, before: Known | None) -> None:
        """The description that came at login is that of the chain's newest entry of one."""
        newest, description = self.chain.description, self._description
        digest = hashlib.sha256(description.encode()).digest()
        if newest == digest if newest else description.revision == 0:
            return
        known = not newest or (before is not None and before.chain.description == newest)
        if self._anchor is not None and 0 < self._described <= self._anchor.number:
            known = True
        if known:
            raise self._rolled_back("the provider shows another description than the newest one")
        raise Busy(
            "this repository's keys were changed just now; run the command again. If it says so "
            "each time, the provider shows an older description of the repository"
        )

    def _rolled_back(self, why: str) -> StoredDataDamaged:
        remedy = ""
        if self._file is not None:
            remedy = (
                " Ask the provider. If it had to go back to an older copy, and you accept that, "
                f"remove {self._file.path}"
            )
        return StoredDataDamaged(f"the repository was rolled back or changed: {why}.{remedy}")

    # --- points that are not there ---------------------------------------------------------------

    def _look(self, exchange: Exchange, before: Known | None, live: int) -> None:
        """Ask what became of points that are not listed, and say what there is to say."""
        number, old = self.chain.number, 0 if before is None else before.chain.number
        gone = 0 if before is None else before.live & ~live
        fresh = (1 << number) - (1 << max(old, number - UNSEEN_MAX))
        unseen = [n for n in bits_of(fresh & ~live) if any(self._point(n))]
        told: Counter[tuple[str, str]] = Counter()
        named = []
        for fate in ask_fates(exchange, number, [*bits_of(gone), *unseen]):
            if fate.state == "missing":
                raise StoredDataDamaged(
                    f"restore point {self._point(fate.number).hex()[:8]} (head {fate.number}) is "
                    "gone without a trace: the provider shows neither it nor what became of it"
                )
            if fate.state == "published":  # at this moment
                live |= 1 << (fate.number - 1)
            elif gone >> (fate.number - 1) & 1:
                told[fate.state, fate.by] += 1
                named.append(self._point(fate.number).hex()[:8])
        self._check_latest(live)
        if told:
            self._note(_gone(told, named))
        if before is None and number:
            self._first_look(exchange, live)
        self._known = attrs.evolve(self._known, live=live)

    def _check_latest(self, live: int) -> None:
        if self._latest is None:
            return
        labels, point = self._latest
        number = self._known.own.get(labels, 0)
        made = self._point(number)
        if number and live >> (number - 1) & 1 and made != point:
            points = self._known.points
            later = [points[at : at + _POINT_SIZE] for at in range(0, len(points), _POINT_SIZE)]
            if point not in later[number:]:
                raise StoredDataDamaged(
                    f"the provider says that {point.hex()[:8]} is the newest restore point of "
                    f"{labels[0]}/{labels[1]}, but this machine has made {made.hex()[:8]} later, "
                    "and the repository still has it"
                )

    def _first_look(self, exchange: Exchange, live: int) -> None:
        text = (
            "this machine sees the repository for the first time, and cannot tell whether it was "
            "rolled back before"
        )
        if self._anchor is not None and self._anchor.number:
            text = f"the repository goes on from the recovery kit's head {self._anchor.number}"
        text += f". Its newest head is number {self.chain.number}"
        newest = max(bits_of(live), default=0)
        if newest:
            (fate,) = ask_fates(exchange, self.chain.number, [newest])
            when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(fate.time))
            text += f", its newest restore point of {when}"
        self._note(text)

    def _point(self, number: int) -> bytes:
        return self._known.points[_POINT_SIZE * (number - 1) : _POINT_SIZE * number]

    def _save(self) -> None:
        if self._file is not None:
            try:
                self._file.save(self._known)
            except UsageError as error:  # a restore on a rescue system goes on
                self._note(
                    f"what this machine has seen of the repository is not remembered: {error}"
                )


def look(
    channel: FrameChannel,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    heads: KnownHeads,
) -> None:
    """One whole dialogue that only compares: :meth:`KnownHeads.compare`.

    :raises StoredDataDamaged: the repository was rolled back
    :raises CloudConnectError: the dialogue failed
    """
    try:
        greet(channel, keys, description, "read", heads)
        channel.end()
    except BaseException as error:
        channel.abort(error if isinstance(error, Exception) else Cancelled())
        raise


def _gone(told: Counter[tuple[str, str]], named: Sequence[str]) -> str:
    """What became of points that this machine had seen."""
    words = [
        f"{count} {state}" + (f" by {by}" if by else "")
        for (state, by), count in sorted(told.items())
    ]
    names = ", ".join(named[-NAMED_MAX:]) + (", ..." if len(named) > NAMED_MAX else "")
    return (
        "since this machine last looked, restore points are no longer listed: "
        f"{', '.join(words)} ({names})"
    )
