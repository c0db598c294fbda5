"""Tests of :mod:`cloudconnect.cli.published`: one job, one point, whatever is lost."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from cloudconnect.backup.leading import Upload
from cloudconnect.backup.options import BackupOptions, BackupResult, Labels, StandardInput
from cloudconnect.cli import backup as backup_module
from cloudconnect.cli.console import Console
from cloudconnect.cli.line import Line
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.tenant import TenantSettings
from cloudconnect.config.profile import Profile
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import ContextMismatch, Tampered, Truncated
from cloudconnect.keys import Password
from cloudconnect.tenant.mover import UNLIMITED
from tests.provider.stage import LABELS, TENANT
from tests.tenant.managers import ManagerCase


class PublishingCase(ManagerCase):
    """A test with a backup whose line breaks around the publishing of its point."""

    def setUp(self) -> None:
        super().setUp()
        home = Path(self.mktemp()).absolute()
        self.patch(os, "environ", {**os.environ, "HOME": str(home), "XDG_STATE_HOME": ""})
        self.acme = self.connected(mode=EncryptionMode.NONE)
        account = self.acme.log_in()
        self.notes: list[str] = []
        console = Console(quiet=True)
        self.patch(console, "note", self.notes.append)
        settings = TenantSettings(
            profile=Profile(provider="localhost", tenant=TENANT, encryption="none"),
            profile_name="default",
            console=console,
            debug=False,
        )
        login = Password(self.acme.token.reveal())
        self.line = Line(self.reactor, self.acme.manager, account, settings, None, login)

    def breaking(self, before: bool, control: bool) -> None:
        """Let the first point's publishing break, before or behind what the provider does.

        :param control: the control channel breaks too
        """
        real, broken = Upload.publish, []

        def publish(upload: Upload, *arguments: Any) -> None:
            if broken:
                return real(upload, *arguments)
            broken.append(True)
            if not before:
                real(upload, *arguments)
            if control:
                self.reactor.callFromThread(self.cut)
            raise Truncated("the line broke")

        self.patch(Upload, "publish", publish)

    def back_up(self, stdin: bytes | None = None) -> tuple[BackupResult, str]:
        """Back up, by the command's own coroutine."""
        name = None if stdin is None else "dump"
        if stdin is not None:
            self.patch(backup_module.sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        paths = () if name else (os.fsencode(os.path.abspath(self.source())),)

        def options(
            given: StandardInput | None, cache: Path | None, round_trip: float | None
        ) -> BackupOptions:
            return BackupOptions(paths=paths, stdin=given, round_trip=round_trip)

        host, job = LABELS
        labels = Labels(host=host, job=job, job_id=os.urandom(16))
        done = backup_module._back_up(
            self.line, Interrupt(), options, (UNLIMITED, "off"), (name, None, ()), labels
        )
        result, session, *_ = self.come_to(Deferred.fromCoroutine(done))
        return result, session

    def published(self) -> list[str]:
        rows = self.come_to(Deferred.fromCoroutine(self.acme.manager.points()))
        return [row["point"] for row in rows]

    def kinds(self) -> list[str]:
        return [row["kind"] for row in self.provider.accounts.sessions("", 0, 100)]


class PublishingTests(PublishingCase):
    """One job has one restore point."""

    def one_point(self, result: BackupResult, session: str) -> None:
        """The result is that of the one point."""
        self.assertEqual([result.point.hex()], self.published())
        assert result.record is not None
        self.assertEqual(session, result.record.session.hex())
        self.assertEqual((1, 1), (result.files, len({result.arrival})))

    def test_acknowledgement_lost(self) -> None:
        """Where only the acknowledgement was lost the point is found, and no other is made."""
        self.breaking(before=False, control=True)
        self.one_point(*self.back_up())
        self.assertEqual(["backup", "read"], self.kinds())
        self.assertEqual(1, len(self.notes))
        self.assertTrue(self.notes[0].startswith("interrupted: the line broke. Trying again in"))

    def test_not_published(self) -> None:
        """Where it was not published the next session does it."""
        self.breaking(before=True, control=True)
        self.one_point(*self.back_up())
        self.assertEqual(["backup", "read", "backup"], self.kinds())

    def test_writer(self) -> None:
        """A machine that may only write cannot look: it makes its point once more, and is done."""
        _, token = self.provider.administration.tenants.add_credential(
            TENANT, "writer", None, ["write"]
        )
        assert token is not None
        name, self.acme.name, self.acme.token = TENANT, f"{TENANT}/writer", token
        account = self.acme.log_in()
        settings = attrs.evolve(
            self.line.settings,
            profile=attrs.evolve(self.line.settings.profile, tenant=f"{name}/writer"),
        )
        self.line = Line(
            self.reactor, self.acme.manager, account, settings, None, Password(token.reveal())
        )
        self.breaking(before=False, control=True)
        result, _ = self.back_up()
        points = [row["point"] for row in self.provider.points()]
        self.assertEqual(2, len(points))
        self.assertIn(result.point.hex(), points)

    def test_taken_back(self) -> None:
        """Where the provider heard of the end of the session, and took the point back, too."""
        self.breaking(before=False, control=False)
        self.one_point(*self.back_up())
        self.assertEqual(["backup", "read", "backup"], self.kinds())

    def last_word_lost(self, seen: Exception | None) -> None:
        """Let the control channel break once the first point is published, and nothing else.

        :param seen: what a role of the provider sees meanwhile
        """
        real, broken = Upload.publish, []

        def cut() -> None:
            for session in self.provider.mover._by_session.values():
                session.core.error = seen  # type: ignore[assignment]
            control: Any = self.acme.manager._control
            control.transport.abortConnection()

        def publish(upload: Upload, *arguments: Any) -> None:
            real(upload, *arguments)
            if not broken:
                broken.append(True)
                self.reactor.callFromThread(cut)

        self.patch(Upload, "publish", publish)

    def test_last_word_lost(self) -> None:
        """Where all went well but for the provider's last word the point is looked for, and is
        there."""
        self.last_word_lost(None)
        self.one_point(*self.back_up())
        self.assertEqual(["backup", "read"], self.kinds())

    def test_failed_at_the_last_word(self) -> None:
        """Where a role of the provider saw meanwhile that something was changed, the point that was
        acknowledged is not there any more: the backup does not end before there is one."""
        self.last_word_lost(Tampered("seen there alone"))
        self.one_point(*self.back_up())
        self.assertEqual(["backup", "read", "backup"], self.kinds())
        states = [row["state"] for row in self.provider.accounts.sessions("", 0, 100)]
        self.assertEqual("interrupted", states[0])

    def test_nothing_lost(self) -> None:
        """A backup that nothing happens to is one session."""
        self.one_point(*self.back_up())
        self.assertEqual((["backup"], []), (self.kinds(), self.notes))

    def test_standard_input(self) -> None:
        """What was read from standard input can be published no second time: where the point is
        there all is well, where it is not the backup ends with the reason."""
        self.breaking(before=False, control=True)
        self.one_point(*self.back_up(b"content"))
        self.breaking(before=True, control=True)
        error = self.assertRaises(Truncated, self.back_up, b"content")
        self.assertIn("standard input was read in part", str(error))
        self.assertEqual(1, len(self.published()))


class SameProviderTests(PublishingCase):
    """Behind an interruption there is the same provider, with the same repository."""

    def change(self, real: Callable[..., Any], **changes: Any) -> Callable[..., Any]:
        async def log_in(*arguments: Any) -> Any:
            return attrs.evolve(await real(*arguments), **changes)

        return log_in

    def test_other(self) -> None:
        """Another one is an error."""
        self.breaking(before=True, control=True)
        log_in = self.change(self.acme.manager.log_in, provider=b"q" * 16)
        self.patch(self.acme.manager, "log_in", log_in)
        self.assertRaises(ContextMismatch, self.back_up)
