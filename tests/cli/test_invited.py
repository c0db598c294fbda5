"""Tests of :mod:`cloudconnect.cli.invited`: an invitation, and providers that are stood in for."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

import cloudconnect.cli.connect
from cloudconnect.cli import invited
from cloudconnect.cli.running import Interrupt
from cloudconnect.config.profile import Profile, config_folder, save
from cloudconnect.errors import CloudConnectError, LoginRefused, NotReachable
from cloudconnect.keys import Password
from cloudconnect.wire.login import Verifier, is_token
from tests.cli.commands import CommandCase
from tests.config.test_invitation import INVITATION

#: Not the command of the same name in it.
module = sys.modules[cloudconnect.cli.connect.__name__]


class FakeManager:
    """Stands in for a job manager; how each address answers is told by :attr:`answers`.

    :cvar answers: what logging in raises, by host; None: it succeeds
    :cvar log: what was done
    """

    answers: dict[str, CloudConnectError | None]
    log: list[tuple[str, ...]]

    def __init__(self, reactor: Any, host: str, port: int, trust: Any, *, identity: Any) -> None:
        self.host, self.identity = host, identity

    async def log_in(self, login: str, password: Password) -> None:
        self.log.append(("log in", self.host, login, password.reveal().decode()))
        if (error := self.answers.get(self.host)) is not None:
            raise error

    async def accept_invitation(self, verifier: Verifier) -> str:
        self.log.append(("accept", self.host))
        return "laptop"

    async def accept_with_certificate(self) -> str:
        self.log.append(("accept by certificate", self.host, self.identity.key_path))
        return "laptop"

    async def close(self) -> None:
        self.log.append(("close", self.host))

    def cancel(self) -> None:
        """Nothing is under way."""


class ConnectTests(CommandCase):
    """``connect --invite``, up to where the own login password would be used."""

    def setUp(self) -> None:
        super().setUp()
        self.logins: list[str] = []
        FakeManager.answers, FakeManager.log = {}, []
        self.patch(invited, "JobManager", FakeManager)

        def on_line(settings: Any, work: Any, *, login: Any, first: Any, **_: Any) -> None:
            interrupt = Interrupt()
            ended: list[Any] = []
            Deferred.fromCoroutine(first(Clock(), interrupt)).addBoth(ended.append)
            (found,) = ended
            if isinstance(found, Failure):
                found.raiseException()
            self.logins.append("" if login is None else login.reveal().decode())
            raise NotReachable(f"{found.profile.provider} as {found.tenant} went away")

        self.patch(module, "on_line", on_line)
        self.login_file = config_folder(os.environ) / "default.login"

    def connect(self, *words: str, text: bytes | None = None) -> tuple[int, str]:
        octets = INVITATION.encode().encode() if text is None else text
        files = ("--invite", self.file(octets, "invitation"))
        files += ("--passphrase-file", self.file(b"y" * 20, "phrase"))
        done = self.call("connect", *files, *words)
        return done.status, done.err

    def acts(self) -> list[tuple[str, ...]]:
        return [entry[:2] for entry in FakeManager.log]

    def test_accepted(self) -> None:
        """The machine logs in with its own password from then on, which only it can read."""
        status, error = self.connect()
        self.assertEqual(22, status)
        self.assertIn("backup.example.net:6180 as acme/laptop", error)
        host, token = "backup.example.net", INVITATION.token.reveal().decode()
        self.assertEqual(("log in", host, "acme/laptop", token), FakeManager.log[0])
        self.assertEqual([("accept", host), ("close", host)], self.acts()[1:])
        own = self.login_file.read_text().strip()
        self.assertEqual(
            ([own], 0o600), (self.logins, stat.S_IMODE(self.login_file.stat().st_mode))
        )
        self.assertNotEqual(token, own)
        self.assertNotIn(token, error)

    def test_next_address(self) -> None:
        """An address that cannot be reached is followed by the next one."""
        FakeManager.answers["backup.example.net"] = NotReachable("nobody is there")
        _, error = self.connect()
        self.assertIn("trying the next address", error)
        self.assertIn("[2001:db8::1]:6180 as acme/laptop", error)
        self.assertIn(("accept", "2001:db8::1"), self.acts())

    def test_one_address(self) -> None:
        """One that is given stands above those of the invitation, and alone."""
        FakeManager.answers["other.example.net"] = NotReachable("nobody is there")
        status, _ = self.connect("other.example.net")
        self.assertEqual(22, status)
        self.assertEqual(
            [("log in", "other.example.net"), ("close", "other.example.net")], self.acts()
        )
        self.assertEqual([], self.logins)

    def test_spent(self) -> None:
        """An invitation that is spent is said to be that, and leaves nothing behind."""
        FakeManager.answers["backup.example.net"] = LoginRefused("no")
        status, error = self.connect()
        self.assertEqual(12, status)
        self.assertIn("spent", error)
        self.assertFalse(self.login_file.exists())

    def test_killed_between(self) -> None:
        """A command that was killed behind the acceptance logs in with what it has left."""
        self.connect()
        FakeManager.answers["backup.example.net"] = LoginRefused("no")
        self.connect()
        self.assertEqual(2, len(self.logins))
        self.assertEqual(1, len(set(self.logins)))

    def test_typed_before(self) -> None:
        """A login password that somebody typed for an older profile is not taken for an own one."""
        self.login_file.parent.mkdir(parents=True)
        self.login_file.write_bytes(b"typed once\n")
        self.connect()
        self.assertTrue(is_token(Password(self.logins[0].encode())))

    def test_who_says_what(self) -> None:
        """Tenant and password come from the invitation alone."""
        for words in (("--tenant", "acme"), ("--password-file", self.file(b"x", "login"))):
            status, error = self.connect(*words)
            self.assertEqual(2, status)
            self.assertIn("invitation", error)

    def test_another_profile_is_kept(self) -> None:
        """A profile of another tenant is not written over, and nothing is spent."""
        save(os.environ, "default", Profile(provider="backup.example.net", tenant="other"))
        status, error = self.connect()
        self.assertEqual(2, status)
        self.assertIn("--profile", error)
        self.assertEqual([], FakeManager.log)

    def test_unusable(self) -> None:
        """What is no invitation is said at once."""
        status, error = self.connect(text=b"format = 5\n")
        self.assertEqual(2, status)
        self.assertIn("invitation", error)
        self.assertFalse(self.login_file.exists())

    def test_certificate(self) -> None:
        """With --certificate and --key the machine makes both, and its invitation is spent for
        them; no password is made, and the key is nobody else's."""
        certificate, key = os.path.abspath("own.pem"), os.path.abspath("own-key.pem")
        words = ("--certificate", certificate, "--key", key)
        status, _ = self.connect(*words)
        self.assertEqual(22, status)
        self.assertEqual([""], self.logins)
        self.assertIn(("accept by certificate", "backup.example.net", key), FakeManager.log)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(key).st_mode))
        self.assertFalse(self.login_file.exists())
        made = Path(key).read_bytes()
        self.connect(*words)
        self.assertEqual(made, Path(key).read_bytes())

    def test_half_a_certificate(self) -> None:
        """A certificate without its key, or the other way round, is a mistake."""
        for words in (("--certificate", "x"), ("--key", "x")):
            status, error = self.connect(*words)
            self.assertEqual(2, status)
            self.assertIn("both --certificate and --key", error)
        self.assertEqual([], FakeManager.log)
