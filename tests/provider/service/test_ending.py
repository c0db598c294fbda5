"""Tests of :mod:`cloudconnect.provider.service.ending`: sessions that end, or are lost."""

from __future__ import annotations

import os

import attrs
from twisted.internet.defer import Deferred

from cloudconnect.errors import (
    ContextMismatch,
    NotReachable,
    Refused,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.service.live import LiveSession
from cloudconnect.settings import (
    ORPHAN_SECONDS,
)
from tests.provider.service_parts import ServiceCase
from tests.provider.stage import TENANT


class FinishTests(ServiceCase):
    """How sessions end."""

    def test_done(self) -> None:
        """The outcome goes to the mover and into the accounts; the task is free."""
        session = self.start()
        self.assertEqual([], self.finish(session, summary={"files": 3}))
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertEqual("done", self.state(session))
        self.assertEqual([], list(self.service.sessions))

    def test_security_warning(self) -> None:
        """So does the tenant's security warning, and what it saw is kept as the tenant's."""
        session = self.start()
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, text="flipped")
        self.finish(session, "security_warning", warnings=[warning])
        self.assertEqual([(session, "security_warning")], self.mover.ends)
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            (session.hex(), TENANT, "source-mover"),
            (row["session"], row["tenant"], row["reported_by"]),
        )

    def test_what_the_mover_saw(self) -> None:
        """The tenant hears what the provider's side saw: of its own session, whatever was said."""
        session = self.start()
        warning = SecurityWarning(time=1.0, kind=WarningKind.REPLAYED, hop="a-hop", text="again")
        self.mover.warnings = [attrs.evolve(warning, session="ab" * 16, tenant="b", role="c")]
        (told,) = self.finish(session)
        ours = {"session": session.hex(), "tenant": TENANT, "role": "target-mover"}
        self.assertEqual({**warning.as_dict(), **ours}, told.as_dict())

    def test_what_cannot_be_read(self) -> None:
        """A role whose warnings cannot be read does not keep the session from its end."""
        session = self.start()
        self.mover.warnings = [{"kind": "nonsense"}]
        self.assertEqual([], self.finish(session))
        self.assertEqual([], list(self.provider.service.sessions))

    def test_no_outcome(self) -> None:
        """A word that is no outcome is refused, and the session goes on."""
        session = self.start()
        for word in ("", "fine", "unreported"):
            with self.assertRaises(Refused):
                self.finish(session, word)
        self.assertEqual([], self.mover.ends)
        self.finish(session)

    def test_not_theirs(self) -> None:
        """A tenant cannot name another's session, nor one that has ended or never was; the answer
        is the same."""
        session = self.start()
        ended = self.start()
        self.finish(ended)
        texts = set()
        for tenant, named in (("other", session), (TENANT, ended), (TENANT, os.urandom(16))):
            error = self.assertRaises(ContextMismatch, self.service.sessions.of, tenant, named)
            texts.add(str(error))
        self.assertEqual(1, len(texts))

    def test_twice(self) -> None:
        """A session ends once, also when its tenant says so twice at the same time."""
        session = self.start()
        live = self.service.sessions.of(TENANT, session)
        ends = [
            Deferred.fromCoroutine(self.service.endings.finish(live, outcome, {}, []))
            for outcome in ("done", "failed")
        ]
        for end in ends:
            self.reactor.result_of(end)
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertEqual("done", self.state(session))

    def test_mover_gone(self) -> None:
        """A session whose mover is gone ends all the same."""
        session = self.start()
        self.service.nodes.movers.lose(self.service.nodes.mover)
        self.assertEqual([], self.finish(session))
        self.assertEqual("done", self.state(session))

    def test_accounts_fail(self) -> None:
        """Whatever fails at the end, the task is free again."""
        session = self.start()
        with self.assertRaises(TypeError):
            self.finish(session, summary={"files": object()})
        self.assertEqual([], list(self.service.sessions))

    def test_warning_of_another(self) -> None:
        """A tenant's warning is of its own session and itself, whatever it wrote."""
        session = self.start()
        forged = SecurityWarning(
            time=1.0,
            kind=WarningKind.TAMPERED,
            session="ff" * 16,
            tenant="other",
            role="target-mover",
        )
        live = self.service.sessions.of(TENANT, session)
        self.reactor.result_of(self.service.reports.warned_by_tenant(live, forged))
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            (session.hex(), TENANT, "source-mover"),
            (row["session"], row["tenant"], row["fields"]["role"]),
        )
        self.assertEqual([], self.told)

    def test_told(self) -> None:
        """The tenant of a session hears at once what the mover saw, and nobody else does."""
        session = self.start()
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.TAMPERED, session=session.hex(), role="target-mover"
        )
        self.reactor.result_of(self.service.reports.warned(warning))
        self.reactor.result_of(
            self.service.reports.warned(attrs.evolve(warning, session="ff" * 16))
        )
        self.assertEqual([warning], self.told)


class OrphanTests(ServiceCase):
    """Sessions whose control channel is lost."""

    def test_goes_on(self) -> None:
        """It may finish for a while, and is then ended as interrupted."""
        session = self.start()
        self.service.endings.orphan([session])
        self.reactor.pass_time(ORPHAN_SECONDS - 1)
        self.assertEqual([], self.mover.ends)
        self.reactor.pass_time(2)
        self.assertEqual([(session, "unreported")], self.mover.ends)
        self.assertEqual("interrupted", self.state(session))

    def test_finished_meanwhile(self) -> None:
        """One that was finished on another channel meanwhile stays as it was finished."""
        session = self.start()
        self.service.endings.orphan([session])
        self.finish(session)
        self.reactor.pass_time(ORPHAN_SECONDS + 1)
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertEqual("done", self.state(session))

    def test_goes_on_in_another(self) -> None:
        """A Start of the same job ends it at once, and tells what was seen of it; one of another
        job leaves it alone."""
        session = self.start(job=b"1" * 16)
        self.service.endings.orphan([session])
        self.start(job=b"2" * 16)
        self.assertEqual([], self.mover.ends)
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.TAMPERED, role="target-mover", text="seen"
        )
        self.mover.warnings = [warning]
        self.told.clear()
        self.start(job=b"1" * 16)
        self.assertEqual([(session, "unreported")], self.mover.ends)
        self.assertEqual("interrupted", self.state(session))
        self.assertEqual(["seen"], [warning.text for warning in self.told])

    def test_twice(self) -> None:
        """Losing it again does not give it more time."""
        session = self.start()
        self.service.endings.orphan([session, os.urandom(16)])
        self.reactor.pass_time(ORPHAN_SECONDS / 2)
        self.service.endings.orphan([session])
        self.reactor.pass_time(ORPHAN_SECONDS / 2 + 1)
        self.assertEqual("interrupted", self.state(session))

    def test_spoiled(self) -> None:
        """One whose channel was changed ends at once, and leaves no point."""
        session = self.start()
        self.service.endings.spoil([session, os.urandom(16)])
        self.reactor.settle()
        self.assertEqual([(session, "security_warning")], self.mover.ends)
        self.assertEqual("security_warning", self.state(session))

    def test_cut_all_at_once(self) -> None:
        """Where a session of who is cut does not come to its end, the others end all the same."""
        hangs, other = self.start(job=b"1" * 16), self.start(job=b"2" * 16)
        real, never = self.service.endings.over, Deferred[None]()

        async def over(live: LiveSession) -> None:
            await (never if live.session == hangs else Deferred.fromCoroutine(real(live)))

        self.patch(self.service.endings, "over", over)
        cutting = Deferred.fromCoroutine(self.service.endings.interrupt(TENANT))
        self.reactor.settle()
        self.assertEqual([(other, "unreported")], self.mover.ends)
        self.assertNoResult(cutting)
        never.errback(NotReachable("gone"))
        self.failureResultOf(cutting, NotReachable)

    def test_stop(self) -> None:
        """When the service stops every session is ended, and nothing of it is left waiting."""
        sessions = [self.start(), self.start()]
        self.service.endings.orphan(sessions[:1])
        self.reactor.result_of(self.service.stopService())
        self.assertEqual(["interrupted"] * 2, [self.state(session) for session in sessions])
        self.reactor.result_of(self.provider.mover.maintenance.stopService())
        self.assertEqual([], self.reactor.getDelayedCalls())
