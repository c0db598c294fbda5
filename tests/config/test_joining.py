"""Tests of :mod:`cloudconnect.config.joining`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.enrolling import NodeInvitation
from cloudconnect.config import gateway, mover, wan
from cloudconnect.config.joining import NodePlace, join
from cloudconnect.config.node_certificates import make_node_ca, sign_node_request
from cloudconnect.errors import Refused, UsageError
from cloudconnect.keys import EnrollmentToken

PLACE = NodePlace(backend="10.0.0.7:6184")


class JoiningTests(SynchronousTestCase):
    """A host that becomes a node."""

    def setUp(self) -> None:
        self.authority = Path(self.mktemp())
        self.authority.mkdir()
        make_node_ca(self.authority)
        self.directory = Path(self.mktemp()).absolute()
        self.asked = 0

    def signing(self, role: str, name: str = "one") -> Callable[[bytes], Awaitable[Any]]:
        """A provider that issues a certificate for this role and name."""

        async def ask(request: bytes) -> tuple[bytes, bytes]:
            self.asked += 1
            return sign_node_request(self.authority, role, name, request)[:2]

        return ask

    def join(self, role: str, place: NodePlace = PLACE, ask: Any = None) -> Deferred[None]:
        token = EnrollmentToken.generate()
        invitation = NodeInvitation(role, "one", "10.0.0.5:6181", b"i" * 16, token)
        asking = ask or self.signing(role)
        return Deferred.fromCoroutine(join(invitation, self.directory, place, asking))

    def test_roles(self) -> None:
        """Each kind of node gets the settings and certificate that its process starts with."""
        for role, load, more in (
            ("mover", mover.load, {"repositories": "storage"}),
            ("accelerator", wan.load, {}),
            ("gateway", gateway.load, {"backend": "", "advertise": "gw.example:6180"}),
        ):
            self.directory = Path(self.mktemp()).absolute()
            values: dict[str, Any] = {"backend": "10.0.0.7:6184", **more}
            self.successResultOf(self.join(role, NodePlace(**values)))
            settings: Any = load(self.directory)
            self.assertEqual("10.0.0.5:6181", settings.service)
            self.assertIsNotNone(settings.tls)
            self.assertEqual(0o700, self.directory.stat().st_mode & 0o777)
            self.assertEqual(0o600, (self.directory / "key.pem").stat().st_mode & 0o777)

    def test_wrong_place(self) -> None:
        """What cannot be used is said before the token is spent."""
        for place in (NodePlace(), NodePlace(backend="nowhere")):
            self.failureResultOf(self.join("mover", place), UsageError)
        self.failureResultOf(self.join("gateway", NodePlace(advertise="no")), UsageError)
        self.failureResultOf(self.join("cook"), UsageError)
        self.directory.mkdir()
        (self.directory / "something").touch()
        self.failureResultOf(self.join("mover"), UsageError)
        self.assertEqual(0, self.asked)
        self.assertEqual(["something"], os.listdir(self.directory))

    def test_refused(self) -> None:
        """A token that is refused leaves nothing behind, nor does a certificate of another node."""

        async def refuse(request: bytes) -> tuple[bytes, bytes]:
            raise Refused("used before")

        self.failureResultOf(self.join("mover", ask=refuse), Refused)
        self.assertFalse(self.directory.exists())
        self.directory.mkdir()
        self.failureResultOf(self.join("mover", ask=self.signing("gateway")), UsageError)
        self.failureResultOf(self.join("mover", ask=self.signing("mover", "two")), UsageError)
        self.assertEqual([], os.listdir(self.directory))
