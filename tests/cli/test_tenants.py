"""Tests of :mod:`cloudconnect.cli.tenants`: what an admin changes and sees of a tenant."""

from __future__ import annotations

from typing import Any

from cloudconnect.cli import administering, tenants
from cloudconnect.cli.tenants import tenant_text
from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import NoSpace
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.data_mover.acts import RepositoryActs
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from cloudconnect.wire.login import TOKEN_PREFIX
from tests.cli.test_provider import DirectoryCase
from tests.repository.repositories import (
    DESCRIBED,
    REPOSITORY,
    blob,
    flip,
    keys,
    name_of,
    record,
)


class TenantCase(DirectoryCase):
    """A test with a tenant, while no provider runs."""

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(0, self.tenant("add", "acme", "--quota", "50GB").status)

    def tenant(self, *words: str) -> Any:
        return self.call("provider", "tenant", *words, *self.where)

    def rules(self) -> Rules:
        return Rules.from_map(self.accounts().tenant("acme").rules)


class SetTests(TenantCase):
    """Changes."""

    def test_rules(self) -> None:
        """Every option of the rules arrives as it was meant, and none takes a limit away."""
        words = ("--bin-days", "5", "--bin-size", "10GB", "--shorten-days", "6", "--lock-days", "7")
        words += ("--keep-at-least", "last=1", "--keep-at-most", "last=9,within=30d")
        self.assertEqual(0, self.tenant("set", "acme", *words).status)
        rules = self.rules()
        self.assertEqual(
            (5, 10**10, 6, 7),
            (rules.bin_days, rules.bin_bytes, rules.shorten_days, rules.lock_days),
        )
        self.assertEqual(("last=1", "last=9,within=30d"), (str(rules.floor), str(rules.ceiling)))
        words = ("--bin-size", "none", "--keep-at-least", "none", "--keep-at-most", "none")
        self.assertEqual(0, self.tenant("set", "acme", *words).status)
        self.assertEqual(Rules(bin_days=5, shorten_days=6, lock_days=7), self.rules())

    def test_limits(self) -> None:
        """Limits change, what is not named stays; the mode none is a mode."""
        words = ("--lease", "2030-01-31", "--max-tasks", "2", "--encryption", "none")
        self.assertEqual(0, self.tenant("set", "acme", *words).status)
        self.assertEqual(0, self.tenant("set", "acme", "--lease", "none").status)
        tenant = self.accounts().tenant("acme")
        self.assertEqual(
            (50 * 10**9, None, 2, ("none",)),
            (tenant.quota, tenant.lease_end, tenant.max_tasks, tenant.modes),
        )
        self.assertEqual(0, self.tenant("set", "acme", "--quota", "none").status)
        self.assertIsNone(self.accounts().tenant("acme").quota)

    def test_token(self) -> None:
        """A new token is printed once; a new password is not."""
        before = self.accounts().verifier("acme")
        done = self.tenant("set", "acme", "--new-token")
        self.assertEqual(1, done.out.count(TOKEN_PREFIX))
        self.assertNotEqual(before, self.accounts().verifier("acme"))
        secret = self.file(b"correct horse\n")
        done = self.tenant("set", "acme", "--password-file", secret)
        self.assertEqual(0, done.status)
        self.assertNotIn("correct horse", done.out + done.err)

    def test_refused(self) -> None:
        """What cannot be is refused by name, and nothing changes."""
        for words in (
            (),
            ("--quota", "much"),
            ("--keep-at-least", "all"),
            ("--keep-at-least", "last=3", "--keep-at-most", "last=2"),
            ("--encryption", "rot13"),
            ("--new-token", "--password-file", self.file(b"x")),
        ):
            self.assertEqual(2, self.tenant("set", "acme", *words).status, words)
        self.assertEqual(10, self.tenant("set", "nobody", "--bin-days", "1").status)
        self.assertEqual({}, self.accounts().tenant("acme").rules)


class ShowTests(TenantCase):
    """What is seen."""

    def test_show(self) -> None:
        """The limits and rules, for people and for programs."""
        done = self.tenant("show", "acme")
        for words in ("Tenant acme", "50.0 GB", "bin for 14 days", "no repository yet"):
            self.assertIn(words, done.out)
        (line,) = self.tenant("show", "acme", "--json").lines()
        self.assertEqual(("tenant", 14), (line["message_type"], line["rules"]["bin_days"]))
        self.assertEqual(10, self.tenant("show", "nobody").status)

    def test_stored(self) -> None:
        """What is stored, needed, and in the bin."""
        row = {
            "name": "acme",
            "disabled": False,
            "frozen": True,
            "lease_end": None,
            "quota": None,
            "soft_quota": 2_000_000,
            "bandwidth": 20_000_000,
            "expect_every": 93_600,
            "max_tasks": 4,
            "modes": ["tenant"],
            "rules": Rules().as_map(),
            "repository": "ab" * 16,
            "mode": "tenant",
            "points": 3,
            "bytes_stored": 5_000_000,
            "bytes_counted": 4_000_000,
            "bytes_live": 3_000_000,
            "bytes_bin": 1_000_000,
            "bytes_garbage": 0,
        }
        text = tenant_text(row)
        for words in ("FROZEN", "3 restore points", "5.0 MB on the disk", "1.0 MB only by the bin"):
            self.assertIn(words, text)
        for words in ("warned over 2.0 MB", "at most 20.0 MB/s", "due every 26 h"):
            self.assertIn(words, text)


class FreezeTests(TenantCase):
    """Freezing."""

    def test_there_and_back(self) -> None:
        """It is written down, and shown in the list."""
        self.assertEqual(0, self.tenant("freeze", "acme").status)
        self.assertIn("frozen", self.tenant("list").out)
        self.assertEqual(0, self.tenant("thaw", "acme").status)
        self.assertNotIn("frozen", self.tenant("list").out)
        self.assertEqual(10, self.tenant("freeze", "nobody").status)

    def test_read_only(self) -> None:
        """On a read-only disk nothing can go; that nothing was written down is said."""
        self.patch(ProviderSettings, "read_only", True)
        done = self.tenant("freeze", "acme", "--json")
        self.assertEqual(0, done.status)
        self.assertFalse(done.lines()[0]["kept"])
        self.assertIn("read-only", self.tenant("freeze", "acme").out)
        self.assertFalse(self.accounts().tenant("acme").frozen)

    def test_full(self) -> None:
        """With a full disk, no reserve and no provider that runs, it fails by name."""

        def full(*_: Any) -> None:
            raise NoSpace("the provider's disk is full")

        self.patch(Accounts, "change_tenant", full)
        self.assertEqual(11, self.tenant("freeze", "acme").status)
        self.assertIs(tenants.administrate, administering.administrate)


class CareTests(TenantCase):
    """Collecting and scrubbing, by the commands of :mod:`cloudconnect.cli.provider`."""

    def test_nothing(self) -> None:
        """Without repositories there is nothing to do; who has none is told."""
        for words in (("gc",), ("scrub",), ("scrub", "--limit", "1GB"), ("points", "--deleted")):
            done = self.call("provider", *words, *self.where)
            self.assertEqual((0, ""), (done.status, done.out), words)
        for word in ("gc", "scrub"):
            self.assertEqual(
                10, self.call("provider", word, "--tenant", "acme", *self.where).status
            )

    def made(self) -> Repository:
        """The tenant's repository, with a blob that a point needs and one that nobody does."""
        self.accounts().set_repository("acme", REPOSITORY)
        repository = Repository.create(
            self.directory / "repositories" / REPOSITORY.hex(), DESCRIBED, clock=lambda: 1e9
        )
        self.addCleanup(repository.close)
        repository.add(blob(1, 5000))
        repository.flush()
        made = record(b"p" * 16)
        repository.publish(made, made.encode(), keys().sign(made.encode()), [name_of(1)])
        repository.add(blob(2, 7000))
        repository.flush()
        return repository

    def test_collect(self) -> None:
        """Garbage goes at the second collection that sees it, and the counts are told."""
        self.made().close()
        where = ("provider", "gc", "--json", *self.where)
        (line,) = self.call(*where).lines()
        self.assertEqual(("collection", "acme", 1), tuple(line[n] for n in _COUNTED))
        (line,) = self.call(*where).lines()
        self.assertEqual(1, line["deleted"])
        self.assertEqual([True, False], self.made_again().have([name_of(1), name_of(2)]))
        out = self.call("provider", "gc", *self.where).out
        self.assertRegex(out, r"^acme  0 B given back; .* are needed, .* by nothing\n$")

    def test_collect_frozen(self) -> None:
        """Nothing goes of a frozen tenant, also where the repository could not be told of it."""
        self.made().close()
        where = ("provider", "gc", "--tenant", "acme", *self.where)
        self.assertEqual(0, self.call(*where).status)
        self.accounts().change_tenant("acme", {"frozen": True})
        self.patch(RepositoryActs, "set_rules", lambda *_: False)
        self.assertNotEqual(0, self.call(*where).status)
        self.assertEqual([True, True], self.made_again().have([name_of(1), name_of(2)]))

    def made_again(self) -> Repository:
        opened = Repository.open(self.directory / "repositories" / REPOSITORY.hex())
        self.addCleanup(opened.close)
        return opened

    def test_scrub(self) -> None:
        """What is damaged is named with its points, ends with 20, and is kept as a warning."""
        repository = self.made()
        repository.close()
        where = ("provider", "scrub", *self.where)
        self.assertIn("nothing is damaged", self.call(*where).out)
        for path in (self.directory / "repositories").glob("*/packs/*"):
            flip(path, path.stat().st_size // 2)
        done = self.call(*where, "--json")
        self.assertEqual(20, done.status)
        (line,) = done.lines()
        self.assertEqual(("scrub", "acme"), (line["message_type"], line["tenant"]))
        self.assertGreaterEqual(line["found"], 2)
        self.assertTrue(any((b"p" * 16).hex() in text for text in line["findings"]))
        rows = self.call("provider", "events", "--warnings", "--json", *self.where).lines()
        self.assertIn("stored_data_damaged", {row["name"] for row in rows})
        self.assertEqual({"acme"}, {row["tenant"] for row in rows})

    def test_one_that_fails(self) -> None:
        """What fails for one tenant is said, and done for the others all the same."""
        self.made().close()
        self.tenant("add", "aaa")
        self.accounts().set_repository("aaa", b"x" * 16)
        for word in ("gc", "scrub"):
            done = self.call("provider", word, *self.where)
            self.assertEqual(10, done.status)
            self.assertIn("acme", done.out)
            self.assertIn("aaa: there is no repository", done.err)

    def test_points_deleted(self) -> None:
        """What is in the bin is listed with its end."""
        with self.made() as repository:
            repository.delete([b"p" * 16], "provider")
        self.assertEqual("", self.call("provider", "points", *self.where).out)
        done = self.call("provider", "points", "--deleted", *self.where)
        for words in ("acme", "in the bin until", "by provider"):
            self.assertIn(words, done.out)


_COUNTED = ("message_type", "tenant", "points")
