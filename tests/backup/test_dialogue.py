"""How a dialogue begins."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.dialogue import CODINGS, Limits, Remembers, expect, greet
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.description import describe
from cloudconnect.errors import ContextMismatch, Downgrade, NoSpace, ProtocolViolation
from cloudconnect.keys import MasterKey
from cloudconnect.testing import PipePair
from cloudconnect.wire.frames import Frame, FrameKind, decode_body, encode_body
from tests.backup.support import channels


class GreetTests(SynchronousTestCase):
    """HELLO and WELCOME."""

    def setUp(self) -> None:
        self.left, self.right = channels(PipePair(timeout=5.0))
        master = MasterKey.generate()
        self.description = describe(master, os.urandom(16), EncryptionMode.TENANT, ())
        self.keys = RepositoryKeys(master, self.description.repository)

    def welcome(self, heads: Remembers | None = None, **changes: Any) -> Limits:
        """What :func:`greet` makes of a WELCOME with some fields changed."""
        body = {
            "version": 1,
            "repository": self.description.repository,
            "codings": list(CODINGS),
            "limits": {"ids": 8192, "chunk": 4 << 20, "body": 8 << 20},
        }
        self.right.send(FrameKind.WELCOME, 0, encode_body(**{**body, **changes}))
        return greet(self.left, self.keys, self.description, "backup", heads)

    def test_hello(self) -> None:
        """HELLO says versions, key check, codings, chunking and purpose, and nothing else."""
        self.welcome()
        hello = decode_body(expect(self.right.receive(), FrameKind.HELLO))
        self.assertEqual(
            hello,
            {
                "versions": [1],
                "id_check": self.keys.id_check,
                "codings": [0, 1, 16, 17],
                "chunking": self.description.chunking.as_map(),
                "purpose": "backup",
            },
        )

    def test_first_question(self) -> None:
        """What is known of the past asks while the greeting is under way, and judges behind it."""
        told: list[str] = []

        class Heads:
            def ask(self, channel: Any) -> None:
                told.append("asked")
                channel.send(FrameKind.HEADS, 0, encode_body(after=0, about=[]))

            def check(self, channel: Any) -> None:
                told.append("checked")

            def vouches(self, point: bytes, record: bytes) -> bool | None:
                return None

        self.welcome(heads=Heads(), version=1)
        kinds = [self.right.receive().kind for _ in range(2)]
        self.assertEqual(([FrameKind.HELLO, FrameKind.HEADS], ["asked", "checked"]), (kinds, told))
        with self.assertRaises(Downgrade):
            self.welcome(heads=Heads(), version=0)
        self.assertEqual(["asked", "checked", "asked"], told)

    def test_limits(self) -> None:
        """The repository's limits hold, but none above our own."""
        limits = {"ids": 100, "chunk": 1 << 40, "body": 1 << 16}
        self.assertEqual(self.welcome(limits=limits), Limits(100, 4 << 20, 1 << 16))

    def test_version(self) -> None:
        """A version that is not the highest common one is a downgrade."""
        for version in (0, 2, "1", None):
            self.setUp()
            with self.assertRaises(Downgrade):
                self.welcome(version=version)

    def test_another_repository(self) -> None:
        """A mover that answers for another repository is not talked to."""
        with self.assertRaises(ContextMismatch):
            self.welcome(repository=bytes(16))

    def test_impossible_limits(self) -> None:
        """Limits that nothing could be sent under, or of other types, are refused."""
        good = {"ids": 8192, "chunk": 4 << 20, "body": 8 << 20}
        for change in ({"ids": 0}, {"ids": "8"}, {"chunk": 1000}, {"body": 1}, {"body": None}):
            self.setUp()
            with self.assertRaises(ProtocolViolation, msg=str(change)):
                self.welcome(limits={**good, **change})
        self.setUp()
        with self.assertRaises(ProtocolViolation):
            self.welcome(limits=[])

    def test_refusal(self) -> None:
        """A refusal is raised as the error that the repository names."""
        self.right.send_failure(0, NoSpace("the quota is used up"))
        with self.assertRaises(NoSpace) as caught:
            greet(self.left, self.keys, self.description, "backup")
        self.assertIn("the quota is used up", str(caught.exception))

    def test_expect(self) -> None:
        """Another frame than the one due is a violation."""
        frame = Frame(FrameKind.WANT, 0, 0, 1, b"\x00")
        self.assertIs(expect(frame, FrameKind.WANT), frame)
        self.assertRaises(ProtocolViolation, expect, frame, FrameKind.STORED)
