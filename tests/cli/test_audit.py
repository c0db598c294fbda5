"""Tests of :mod:`cloudconnect.cli.audit`: ``provider audit``."""

from __future__ import annotations

from pathlib import Path

from cloudconnect.config.provider import initialize, load
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.audit.log import AuditLog
from tests.cli.commands import CommandCase


class AuditTests(CommandCase):
    """What an admin reads of the audit log, where no provider runs."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.home / "provider"
        initialize(self.directory, ("localhost",))
        self.words = ("--directory", str(self.directory))
        for words in (["add", "acme"], ["freeze", "acme"], ["list"], ["freeze", "nobody"]):
            self.call("provider", "tenant", *words, *self.words)

    @property
    def path(self) -> Path:
        (path,) = (self.directory / "audit").glob("*.jsonl")
        return path

    def test_listed(self) -> None:
        """Every act stands there with how it ended, and no token; what only looks is none."""
        lines = self.call("provider", "audit", *self.words, "--json").lines()
        found = [(line["act"], line["fields"]["outcome"]) for line in lines]
        self.assertEqual(
            [("add_tenant", "done"), ("freeze", "done"), ("freeze", "not_found")], found
        )
        shown = self.call("provider", "audit", *self.words)
        self.assertEqual(0, shown.status)
        self.assertIn("add_tenant  name=acme", shown.out)
        self.assertIn("head 3:", shown.out)
        last = self.call("provider", "audit", "--last", "1", *self.words, "--json").lines()
        self.assertEqual([3], [line["number"] for line in last])

    def test_verified(self) -> None:
        """The chain is followed, and its head is told; where it breaks the status is 20."""
        done = self.call("provider", "audit", "--verify", *self.words, "--json")
        (line,) = done.lines()
        self.assertEqual((0, 3, True), (done.status, line["lines"], line["intact"]))
        head = line["head"]
        again = self.call("provider", "audit", "--against", head, *self.words)
        self.assertEqual(0, again.status)
        self.path.write_text(self.path.read_text().replace("acme", "acmf"))
        broken = self.call("provider", "audit", "--verify", *self.words)
        self.assertEqual(20, broken.status)
        self.assertIn("SECURITY WARNING", broken.err)

    def test_begins_later(self) -> None:
        """Where older lines are not kept it is told from which one on the chain is whole."""
        old = self.path.rename(self.path.with_name("2001-01.jsonl"))
        self.call("provider", "tenant", "thaw", "acme", *self.words)
        accounts = Accounts(load(self.directory).accounts_url)
        self.assertEqual([old.name], AuditLog(self.directory / "audit", accounts).forget(3))
        accounts.close()
        (line,) = self.call("provider", "audit", "--verify", *self.words, "--json").lines()
        self.assertEqual((4, 2, True), (line["first"], line["lines"], line["intact"]))
        shown = self.call("provider", "audit", "--verify", *self.words)
        self.assertIn("from number 4 on", shown.out)

    def test_other_history(self) -> None:
        """A head that was written down elsewhere is missed where the log never had it."""
        done = self.call("provider", "audit", "--against", f"2:{'0' * 64}", *self.words)
        self.assertEqual(20, done.status)
        wrong = self.call("provider", "audit", "--against", "nonsense", *self.words)
        self.assertEqual(2, wrong.status)
