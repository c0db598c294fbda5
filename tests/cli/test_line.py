"""Tests of :mod:`cloudconnect.cli.line`."""

from __future__ import annotations

import json
import os
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cloudconnect.cli.line import BUSY_SECONDS, Line
from cloudconnect.cli.tenant import TenantSettings, resolve
from cloudconnect.commands.control import SessionKind
from cloudconnect.config.profile import Profile, save
from cloudconnect.content.atrest import (
    Argon2Costs,
    EncryptionMode,
    RepositoryDescription,
    describe,
    make_slot,
)
from cloudconnect.content.generations import new_master
from cloudconnect.content.kit import Kit
from cloudconnect.errors import (
    Busy,
    Cancelled,
    ContextMismatch,
    NoAccelerator,
    NotFound,
    StoredDataDamaged,
    Truncated,
    UsageError,
    WrongPassphrase,
)
from cloudconnect.keys import MasterKey, Password
from cloudconnect.tenant.accelerated import Wanted
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.retrying import RETRY_SECONDS
from tests.cli.commands import CommandCase
from tests.cli.test_tenant import NOTHING

PASSPHRASE = b"a passphrase of these tests"


class Manager:
    """A job manager whose provider is busy so many times, after so many sessions were cut."""

    def __init__(self, busy: int, cut: int = 0) -> None:
        self.busy, self.cut = busy, cut
        self.cancelled = False

    async def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        self.cancelled = True

    async def session(self, *arguments: Any, **options: Any) -> str:
        if self.cut:
            self.cut -= 1
            raise Truncated("the line broke")
        if self.busy:
            self.busy -= 1
            raise Busy("busy")
        return "done"


class Silence:
    """A dialogue's channel on which nothing is said."""

    bytes_sent = bytes_received = 0


class Talking(Manager):
    """A job manager whose sessions come to their dialogue."""

    def __init__(self) -> None:
        super().__init__(0)

    async def session(self, *arguments: Any, **options: Any) -> str:
        result: str = arguments[5](Silence(), b"s" * 16)
        return result


class Unaccelerated(Manager):
    """A job manager whose provider has no accelerator."""

    def __init__(self) -> None:
        super().__init__(0)

    async def session(self, *arguments: Any, **options: Any) -> str:
        if arguments[-1]:
            raise NoAccelerator("the provider has none")
        return "direct"


class Shelf(Manager):
    """A job manager whose first listing breaks off."""

    async def points(self, *arguments: Any) -> list[Any]:
        if self.cut:
            self.cut -= 1
            raise Truncated("the line broke")
        return list(arguments)


class LineTests(CommandCase):
    """What a command knows of its repository."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        master, self.repository = MasterKey.generate(), os.urandom(16)
        self.master = master
        costs = Argon2Costs(iterations=1, lanes=1, memory_kib=64)
        slot = make_slot(master, self.repository, Password(PASSPHRASE), costs=costs)
        self.encoded = describe(master, self.repository, EncryptionMode.TENANT, (slot,)).encode()

    def settings(self, **options: Any) -> TenantSettings:
        return resolve(**{**NOTHING, "tenant": "acme", **options})

    def line(
        self,
        manager: Any = None,
        encoded: bytes | None = None,
        passphrase: bytes = PASSPHRASE,
        **options: Any,
    ) -> Line:
        account = Account(b"p" * 16, self.encoded if encoded is None else encoded, ("tenant",))
        return Line(self.clock, manager, account, self.settings(**options), Password(passphrase))

    def test_keys(self) -> None:
        """The right passphrase opens the repository's keys."""
        description, keys = self.line().keys()
        self.assertEqual(self.repository, description.repository)
        self.assertEqual(description.id_check, keys.id_check)

    def test_wrong_passphrase(self) -> None:
        """Another one does not."""
        self.assertRaises(WrongPassphrase, self.line(passphrase=b"another").keys)

    def test_no_repository(self) -> None:
        """Where there is no repository yet the text says what to do."""
        error = self.assertRaises(NotFound, self.line(encoded=b"").keys)
        self.assertIn("connect", str(error))

    def test_other_repository(self) -> None:
        """A repository that is not the profile's is refused: a provider may not swap it."""
        save(self.environment, "default", Profile(repository="ab" * 16))
        self.assertRaises(ContextMismatch, self.line().keys)
        save(self.environment, "default", Profile(repository=self.repository.hex()))
        self.line().keys()

    def kit_of(self, master: MasterKey, **changes: Any) -> str:
        """The file of a recovery kit of this repository."""
        kit = Kit(
            provider="p:1",
            tenant="acme",
            pins=(),
            repository=self.repository,
            mode=EncryptionMode.TENANT,
            head_number=0,
            head_value=bytes(32),
            master=master,
        )
        return self.file(attrs.evolve(kit, **changes).text().encode(), "kit.txt")

    def test_kit(self) -> None:
        """The master key of a recovery kit opens the repository, and no passphrase is looked at."""
        line = self.line(passphrase=b"another", kit_file=self.kit_of(self.master))
        unlocked = line.unlocked()
        self.assertEqual((unlocked.master, unlocked.slot), (self.master, None))

    def test_wrong_kit(self) -> None:
        """A kit of another repository, mode or key does not; one from before a new master key says
        what is wrong with it."""
        other = self.line(kit_file=self.kit_of(self.master, repository=bytes(16)))
        self.assertRaises(ContextMismatch, other.keys)
        other = self.line(kit_file=self.kit_of(self.master, mode=EncryptionMode.NONE))
        self.assertRaises(ContextMismatch, other.keys)
        fresh = MasterKey.generate()
        self.assertRaises(StoredDataDamaged, self.line(kit_file=self.kit_of(fresh)).keys)
        renewed = new_master(RepositoryDescription.decode(self.encoded), self.master, fresh, ())
        old = self.line(encoded=renewed.encode(), kit_file=self.kit_of(self.master))
        error = self.assertRaises(WrongPassphrase, old.keys)
        self.assertIn("newer kit", str(error))
        new = self.line(encoded=renewed.encode(), kit_file=self.kit_of(fresh))
        self.assertEqual(len(new.keys()[1].older), 1)

    def test_heads(self) -> None:
        """What is remembered lies by the provider's and the repository's ids."""
        line = self.line()
        description, keys = line.keys()
        line.heads(description, keys).begin()
        path = self.home / ".local/state/cloudconnect" / (b"p" * 16).hex() / self.repository.hex()
        self.assertTrue((path / "heads").is_file())

    def test_printed(self) -> None:
        """What is printed of a line does not show the passphrase."""
        self.assertNotIn(PASSPHRASE.decode(), repr(self.line()))

    def session(self, busy: int, wait: str | None, cut: int = 0, **options: Any) -> Deferred[Any]:
        self.used = line = self.line(Manager(busy, cut), wait=wait, **options)
        asked = line.session(SessionKind.READ, b"j" * 16, "host", "job", lambda *_: None)
        return Deferred.fromCoroutine(asked)

    def test_busy(self) -> None:
        """Without --wait a busy provider is an error at once."""
        self.failureResultOf(self.session(1, None), Busy)

    def test_wait(self) -> None:
        """With it the session is asked for again, now and then, until it is there."""
        asked = self.session(3, "1m")
        for _ in range(3):
            self.assertNoResult(asked)
            self.clock.advance(BUSY_SECONDS)
        self.assertEqual("done", self.successResultOf(asked))

    def test_waited(self) -> None:
        """But not longer than was said."""
        asked = self.session(1000, "1m")
        for _ in range(11):
            self.clock.advance(BUSY_SECONDS)
            self.assertNoResult(asked)
        self.clock.advance(BUSY_SECONDS)
        self.failureResultOf(asked, Busy)

    def test_busy_repository(self) -> None:
        """A repository that is busy in the middle of a dialogue is waited for too, but not where
        the dialogue could not be had again: it would store less than was to be stored."""
        for why, sessions in (("", 3), ("standard input was read in part", 1)):
            begun: list[int] = []

            def dialogue(*_: Any, begun: list[int] = begun) -> str:
                begun.append(1)
                if len(begun) < 3:
                    raise Busy("blobs are being removed from the repository")
                return "done"

            line = self.line(Talking(), wait="1m")
            asked = Deferred.fromCoroutine(
                line.session(
                    SessionKind.BACKUP,
                    b"j" * 16,
                    "host",
                    "job",
                    dialogue,
                    unrepeatable=lambda why=why: why,
                )
            )
            self.clock.pump([BUSY_SECONDS] * 3)
            if why:
                self.failureResultOf(asked, Busy)
            else:
                self.assertEqual("done", self.successResultOf(asked))
            self.assertEqual(sessions, len(begun))

    def test_no_accelerator(self) -> None:
        """Where a session may do without accelerators and there are none, it does, and says so;
        where it may not, or the dialogue was begun, that is an error."""
        for optional in (True, False):
            wan = Wanted(used=True, optional=optional)
            line = self.line(Unaccelerated())
            asked = Deferred.fromCoroutine(
                line.session(SessionKind.READ, b"j" * 16, "host", "job", lambda *_: None, wan=wan)
            )
            if optional:
                self.assertEqual("direct", self.successResultOf(asked))
                self.assertIn("going on without WAN acceleration", self.err.text())
            else:
                self.failureResultOf(asked, NoAccelerator)

        def dialogue(*_: Any) -> None:
            raise NoAccelerator("nobody says this in a dialogue")

        wan = Wanted(used=True)
        line = self.line(Talking())
        asked = Deferred.fromCoroutine(
            line.session(SessionKind.READ, b"j" * 16, "host", "job", dialogue, wan=wan)
        )
        self.failureResultOf(asked, NoAccelerator)
        self.assertTrue(wan.used)

    def test_cut(self) -> None:
        """Behind a line that broke another session is asked for, also where the provider then is
        busy for a while; a person reads one line of it, a program gets events."""
        asked = self.session(2, None, cut=1)
        self.clock.pump([1.0] * 10)
        self.assertEqual("done", self.successResultOf(asked))
        self.assertEqual(3, self.err.text().count("Trying again in"))
        self.fresh_output()
        asked = self.session(0, None, cut=1, as_json=True)
        self.clock.pump([1.0])
        self.assertEqual("done", self.successResultOf(asked))
        events = [json.loads(line) for line in self.out.text().splitlines()]
        names = [event["name"] for event in events]
        self.assertEqual(["session_interrupted", "reconnecting"], names)
        self.assertEqual("truncated", events[0]["fields"]["reason"])
        self.assertEqual("", self.err.text())

    def test_retry(self) -> None:
        """--retry says for how long; 0 is never, and what is no time is refused."""
        asked = self.session(0, None, cut=1, retry="0")
        self.failureResultOf(asked, Truncated)
        asked = self.session(0, None, cut=100, retry="3s")
        self.clock.pump([1.0] * 5)
        self.failureResultOf(asked, Truncated)
        self.assertRaises(UsageError, self.settings, retry="soon")
        self.assertEqual(RETRY_SECONDS, self.settings().retry)

    def test_stop(self) -> None:
        """The user's interrupt ends the session and whatever is waited for."""
        for busy, wait, cut in ((0, None, 1), (1, "1m", 0)):
            asked = self.session(busy, wait, cut)
            self.assertNoResult(asked)
            self.used.stop()
            self.failureResultOf(asked, Cancelled)
            self.assertTrue(self.used.manager.cancelled)
            self.assertEqual([], self.clock.getDelayedCalls())

    def test_points_again(self) -> None:
        """Where the line breaks it is tried again, unless nothing is to be retried."""
        line = self.line(manager=Shelf(0, 1))
        asked = Deferred.fromCoroutine(line.points("here", "job"))
        self.clock.pump([1.0] * 3)
        self.assertEqual(["here", "job", "", ("published",)], self.successResultOf(asked))
        refused = self.line(manager=Shelf(0, 1), retry="0s").points()
        self.failureResultOf(Deferred.fromCoroutine(refused), Truncated)
