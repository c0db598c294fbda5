"""Tests of :mod:`cloudconnect.cli.provider_nodes` and :mod:`cloudconnect.cli.node`, while no
provider runs; the running one is in the stories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudconnect.commands.enrolling import NodeInvitation
from tests.cli.test_provider import DirectoryCase

SERVICE = "10.0.0.5:6181"


class NodeCase(DirectoryCase):
    """A test with a provider's directory."""

    def node(self, *words: str) -> Any:
        return self.call("provider", "node", *words, *self.where)

    def enroll(self, name: str, role: str = "mover", *words: str) -> Any:
        return self.node("enroll", name, "--role", role, "--service", SERVICE, *words)

    def states(self) -> dict[tuple[str, str], str]:
        rows = self.node("list", "--json").lines()
        return {(row["role"], row["name"]): row["state"].partition(" ")[0] for row in rows}


class EnrollTests(NodeCase):
    """``provider node enroll``."""

    def test_token(self) -> None:
        """It prints a token for this role and name, alone on standard output, and says on the other
        what is missing; the node is listed as invited."""
        done = self.enroll("one")
        self.assertEqual(0, done.status)
        invitation = NodeInvitation.from_text(done.out)
        self.assertEqual(
            ("mover", "one", SERVICE), (invitation.role, invitation.name, invitation.service)
        )
        self.assertIn("lan_listen", done.err)
        self.assertEqual({("mover", "one"): "invited"}, self.states())
        self.assertNotIn(invitation.secret.reveal().hex(), self.node("list", "--json").out)

    def test_wrong(self) -> None:
        """Names, addresses and times that cannot be used are refused."""
        for words in (
            ("One Mover", "mover"),
            ("one", "mover", "--expires", "5s"),
            ("one", "mover", "--service", "nowhere"),
            ("one", "cook"),
        ):
            self.assertEqual(2, self.enroll(*words).status, words)
        self.assertEqual({}, self.states())


class ActTests(NodeCase):
    """``provider node drain``, ``undrain`` and ``remove``."""

    def test_acts(self) -> None:
        """A node that was enrolled by hand is drained, undrained and removed; then its name is free
        for a token, and not for another certificate by hand."""
        output = ("--output", str(self.home / "edge"), "--service", SERVICE)
        words = ("provider", "gateway", "enroll", "edge", *output, *self.where)
        self.assertEqual(0, self.call(*words).status)
        self.assertEqual({("gateway", "edge"): "enrolled"}, self.states())
        for act, state in (("drain", "drained"), ("undrain", "enrolled"), ("remove", "removed")):
            self.assertEqual(0, self.node(act, "edge").status)
            self.assertEqual({("gateway", "edge"): state}, self.states())
        self.assertEqual(10, self.node("remove", "edge").status)
        again = ("--output", str(self.home / "again"), "--service", SERVICE)
        words = ("provider", "gateway", "enroll", "edge", *again, *self.where)
        self.assertEqual(2, self.call(*words).status)
        self.assertEqual(0, self.enroll("edge", "gateway").status)

    def test_which(self) -> None:
        """Where nodes of two roles have a name, the role has to be said."""
        for role in ("mover", "wan"):
            self.enroll("one", role)
        self.assertEqual(2, self.node("remove", "one").status)
        self.assertEqual(0, self.node("remove", "one", "--role", "wan").status)
        self.assertEqual("invited", self.states()["mover", "one"])
        self.assertEqual(10, self.node("drain", "two").status)

    def test_own_port(self) -> None:
        """The own port cannot be drained, which is explained; no gateway has its name."""
        for act in ("drain", "undrain", "remove"):
            done = self.call("provider", "gateway", act, "here", *self.where)
            self.assertEqual(1, done.status)
            self.assertIn("roles in provider.toml", done.err)
        service = ("--service", "10.0.0.5:6181")
        enroll = ("provider", "gateway", "enroll", "here", "--output", "made", *service)
        self.assertEqual(2, self.call(*enroll, *self.where).status)
        self.assertFalse(Path("made").exists())
        node = ("provider", "node", "enroll", "here", "--role", "gateway", *service)
        self.assertEqual(2, self.call(*node, *self.where).status)


class JoinTests(NodeCase):
    """``node join``."""

    def test_no_token(self) -> None:
        """What is no token is refused, and nothing is made."""
        target = self.home / "node"
        for content in (b"", b"nonsense", b"\xff" * 2000):
            words = ("--directory", str(target), "--token-file", self.file(content))
            self.assertEqual(2, self.call("node", "join", *words).status)
        self.assertFalse(target.exists())
