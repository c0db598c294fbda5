"""Tests of :mod:`cloudconnect.provider.audit.auditing`:
what gets into the audit log, and what not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.admin import AddTenant, List, SetTenant
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.errors import NoSpace, NotFound
from cloudconnect.keys import KeyA, Password
from cloudconnect.provider.admin.socket import AdminFactory
from cloudconnect.provider.audit.auditing import (
    COLLECT_SECONDS,
    WAITING_MAX,
    Auditor,
    act_name,
    without_secrets,
)
from cloudconnect.provider.audit.chain import read, verify
from cloudconnect.provider.audit.log import AuditLog, kept_head
from cloudconnect.transports.memory import MemoryPair
from tests.provider.audit.test_log import Kept
from tests.provider.stage import StageCase, idle


class AuditorTests(StageCase):
    """With a whole provider."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.directory / "audit"
        self.auditor = Auditor(AuditLog(self.folder, self.provider.accounts), maybeDeferred)
        self.provider.service.watchers.add(self.auditor)

    def acts(self) -> list[str]:
        return [entry["act"] for entry in read(self.folder)]

    def test_session(self) -> None:
        """Every step of the key exchange stands there, with the keys' identifiers and no key."""
        tenant = self.connected()
        self.reactor.result_of(tenant.session(idle(tenant)))
        acts = self.acts()
        wanted = ["logged_in", "repository_made", "session_started", "key_a_made"]
        wanted += ["key_b_received", "session_ended"]
        self.assertEqual(wanted, [act for act in acts if act in wanted])
        kept = {e["act"]: e for e in read(self.folder)}
        identifier = kept["key_a_made"]["fields"]["key"]
        (session,) = self.provider.accounts.sessions("", 0, 9)
        self.assertEqual(session["key_a"], identifier)
        text = "".join(path.read_text() for path in self.folder.glob("*.jsonl"))
        for secret in (tenant.token.reveal().decode(), tenant.token.reveal().hex()):
            self.assertNotIn(secret, text)
        self.assertEqual([], verify(self.folder, kept_head(self.provider.accounts))[1])

    def test_admin(self) -> None:
        """An act through the admin socket stands there with its outcome, without its password."""
        factory = AdminFactory(
            self.reactor, self.provider.administration, maybeDeferred, self.provider.service
        )
        pair = MemoryPair(self.reactor)
        link = BoundedAMP(self.reactor)
        pair.connect(link, factory.buildProtocol(None))
        password = Password(b"correct horse battery")
        settings = {"quota": 5}
        asked = link.call(AddTenant, name="acme", password=password, settings=settings)
        self.reactor.result_of(asked)
        wrong = link.call(SetTenant, name="none", password=None, new_token=False, settings={})
        self.failure_of(wrong, NotFound)
        self.reactor.result_of(link.call(List, what="tenant", filters={}, after=0, limit=9))
        entries = [entry for entry in read(self.folder) if entry["actor"] == "admin"]
        self.assertEqual(["add_tenant", "set_tenant"], [entry["act"] for entry in entries])
        self.assertEqual(["done", "not_found"], [e["fields"]["outcome"] for e in entries])
        self.assertEqual("(secret)", entries[0]["fields"]["password"])
        self.assertEqual({"quota": 5}, entries[0]["fields"]["settings"])
        self.assertNotIn("correct", "".join(p.read_text() for p in self.folder.glob("*.jsonl")))


class Slow:
    """A thread that writes when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Any, Any]] = []
        self.full = False

    def run(self, call: Any, entries: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, call, entries))
        return done

    def work(self) -> None:
        done, call, entries = self.waiting.pop(0)
        if self.full:
            done.errback(NoSpace("full"))
        else:
            done.callback(call(entries))


class QueueTests(SynchronousTestCase):
    """What waits for the thread."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.thread = Slow()
        self.auditor = Auditor(AuditLog(self.folder, Kept()), self.thread.run)

    def acts(self) -> list[str]:
        return [entry["act"] for entry in read(self.folder)]

    def test_together(self) -> None:
        """What comes while the thread writes is written at once by the next turn, in order."""
        for number in range(9):
            self.auditor.administered(f"act_{number}", {}, "done")
        self.thread.work()
        self.thread.work()
        self.assertEqual([], self.thread.waiting)
        self.assertEqual([f"act_{number}" for number in range(9)], self.acts())

    def test_collected(self) -> None:
        """What comes within a moment is written by one turn; a stop does not wait for more."""
        clock = Clock()
        auditor = Auditor(AuditLog(self.folder, Kept()), self.thread.run, clock)
        auditor.startService()
        for number in range(5):
            auditor.administered(f"act_{number}", {}, "done")
        self.assertEqual([], self.thread.waiting)
        clock.advance(COLLECT_SECONDS)
        self.thread.work()
        self.assertEqual(5, len(self.acts()))
        auditor.administered("last", {}, "done")
        stopped = auditor.stopService()
        self.thread.work()
        self.successResultOf(stopped)
        self.assertEqual("last", self.acts()[-1])
        self.assertEqual([], clock.getDelayedCalls())

    def test_stop(self) -> None:
        """A stop waits until all is written."""
        self.auditor.startService()
        for number in range(3):
            self.auditor.administered(f"act_{number}", {}, "done")
        stopped = self.auditor.stopService()
        self.thread.work()
        self.assertNoResult(stopped)
        self.thread.work()
        self.successResultOf(stopped)
        self.assertEqual(3, len(self.acts()))

    def test_full(self) -> None:
        """On a full disk work goes on; later the log says how many lines it lost."""
        self.thread.full = True
        self.auditor.administered("lost", {}, "done")
        self.auditor.administered("lost_too", {}, "done")
        self.thread.work()
        self.thread.work()
        self.thread.full = False
        self.auditor.administered("kept", {}, "done")
        self.thread.work()
        self.assertEqual(["audit_lost", "kept"], self.acts())
        self.assertEqual(2, next(read(self.folder))["fields"]["entries"])

    def test_too_many(self) -> None:
        """What waits is bounded, and what is too much is counted."""
        for _ in range(WAITING_MAX + 11):
            self.auditor.administered("act", {}, "done")
        self.assertEqual(10, self.auditor.lost)


class SecretTests(SynchronousTestCase):
    """What never gets into an entry."""

    def test_without(self) -> None:
        """Keys by their type, and texts by the name of their field, also further in."""
        given = {
            "password": Password(b"x"),
            "anything": KeyA(bytes(32)),
            "settings": {"token": "abc", "quota": 1},
            "new_token": True,
            "name": "acme",
        }
        self.assertEqual(
            {
                "password": "(secret)",
                "anything": "(secret)",
                "settings": {"token": "(secret)", "quota": 1},
                "new_token": True,
                "name": "acme",
            },
            without_secrets(given),
        )

    def test_name(self) -> None:
        """A command's name becomes a word."""
        self.assertEqual("set_tenant", act_name("SetTenant"))
