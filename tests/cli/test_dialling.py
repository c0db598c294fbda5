"""The connection that is opened while the program is being loaded."""

from __future__ import annotations

import select
import socket

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli import dialling
from cloudconnect.cli.dialling import Dialled, dial
from cloudconnect.config.profile import Profile


class DialledTests(SynchronousTestCase):
    """One connection, for who asks first."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.port = self.listening.getsockname()[1]

    def dialled(self, port: int = 0) -> Dialled:
        dialled = Dialled("127.0.0.1", port or self.port)
        dialled._thread.join()
        self.assertTrue(dialled.over)
        return dialled

    def test_taken(self) -> None:
        """It is up, does not block, and is given away once."""
        dialled = self.dialled()
        with self.listening.accept()[0] as accepted:
            taken = dialled.take()
            assert taken is not None
            with taken:
                self.assertEqual(taken.getpeername(), accepted.getsockname())
                self.assertFalse(taken.getblocking())
                self.assertFalse(taken.get_inheritable())
            self.assertIsNone(dialled.take())

    def test_ended(self) -> None:
        """One that the other side has closed meanwhile is none."""
        dialled = self.dialled()
        accepted = self.listening.accept()[0]
        accepted.shutdown(socket.SHUT_WR)
        self.assertTrue(select.select([dialled._socket], [], [], 60)[0])  # it has come there
        self.assertIsNone(dialled.take())
        with accepted:
            self.assertEqual(b"", accepted.recv(1))

    def test_refused(self) -> None:
        """Where nobody listens, or there is no such name, there is none, and nothing is raised."""
        self.listening.close()
        self.assertIsNone(self.dialled().take())
        nowhere = Dialled("a" * 70 + ".invalid", 1)  # no name may have so long a part
        nowhere._thread.join()
        self.assertIsNone(nowhere.take())

    def test_too_late(self) -> None:
        """One that comes up when nobody wants it any more is closed."""
        dialled = self.dialled()
        self.listening.accept()[0].close()
        dialled.take()
        dialled._connect()
        with self.listening.accept()[0] as accepted:
            self.assertEqual(b"", accepted.recv(1))


class DialTests(SynchronousTestCase):
    """It begins only where the command will connect, and asks nobody before."""

    def setUp(self) -> None:
        self.places: list[tuple[str, int]] = []
        self.patch(dialling, "Dialled", lambda *place: self.places.append(place) or "dialled")
        self.profile = Profile(
            provider="host:77",
            tenant="t",
            password_file="/password",
            encryption="tenant",
            passphrase_file="/phrase",
        )

    def begun(
        self, *arguments: str, profile: Profile | None = None, **environment: str
    ) -> Dialled | None:
        return dial(profile or self.profile, ("backup", *arguments), environment)

    def test_begins(self) -> None:
        """To the profile's provider, where it names what else the command would ask for."""
        self.assertEqual("dialled", self.begun("/home", "--no-such-option", "-q", "-"))
        for changes in (
            {"passphrase_file": "", "key_file": "/key"},
            {"passphrase_file": "", "encryption": "provider"},
            {"password_file": "", "certificate": "/certificate"},
        ):
            self.assertIsNotNone(self.begun(profile=attrs.evolve(self.profile, **changes)), changes)
        self.assertEqual([("host", 77)] * 4, self.places)

    def test_not(self) -> None:
        """Not for a dry run, or where something is missing or asked for."""
        for changes in (
            {"provider": ""},
            {"provider": "host:none"},
            {"tenant": ""},
            {"password_file": ""},
            {"passphrase_file": ""},
        ):
            self.assertIsNone(self.begun(profile=attrs.evolve(self.profile, **changes)), changes)
        self.assertIsNone(self.begun(CLOUDCONNECT_PASSWORD_COMMAND="pass"))
        self.assertIsNone(self.begun("-n"))
        self.assertIsNone(self.begun("-qn"))
        self.assertIsNone(dial(None, ("backup",), {}))
        self.assertEqual([], self.places)
