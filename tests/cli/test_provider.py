"""Tests of :mod:`cloudconnect.cli.provider`: on a directory, and at a provider that runs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.twist._twist import Twist
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase

from cloudconnect.cli import administering
from cloudconnect.cli.administering import rows
from cloudconnect.cli.resting import ActsHere
from cloudconnect.cli.running import run_at_once
from cloudconnect.commands.admin import AddTenant
from cloudconnect.config.provider import load, running
from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.assembly import EmbeddedProvider
from cloudconnect.provider.places import Places
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.wire.login import TOKEN_PREFIX, Verifier
from tests.certificates import self_signed
from tests.cli.commands import CommandCase
from tests.story.processes import ROOT, Process

VERIFIER = Verifier(b"s" * 16, bytes(32), bytes(32), 4096)


class DirectoryCase(CommandCase):
    """A test with a provider's directory on which none runs."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.home / "provider"
        done = self.call("provider", "init", "--host", "a.example.com", *self.where)
        self.assertEqual(0, done.status, done.err)

    @property
    def where(self) -> tuple[str, str]:
        return "--directory", str(self.directory)

    def accounts(self) -> Accounts:
        accounts = Accounts(load(self.directory).accounts_url)
        self.addCleanup(accounts.close)
        return accounts


class InitTests(DirectoryCase):
    """Making a provider."""

    def test_fingerprints(self) -> None:
        """The fingerprints are printed, the one that survives a renewal first; again on demand."""
        wanted = load(self.directory).identity.fingerprints()
        shown = self.call("provider", "fingerprint", *self.where).out.split()
        self.assertEqual(list(wanted), shown)
        (line,) = self.call("provider", "fingerprint", "--json", *self.where).lines()
        self.assertEqual(wanted, (line["spki"], line["certificate"]))

    def test_again(self) -> None:
        """It is made once."""
        done = self.call("provider", "init", *self.where)
        self.assertEqual((2, ""), (done.status, done.out))

    def test_own_certificate(self) -> None:
        """With a certificate of one's own."""
        issued = self_signed(("a.example.com",))
        files = issued.write(self.home / "tls")
        done = self.call(
            *("provider", "init", "--json", "--directory", str(self.home / "other")),
            *("--certificate", files.certificate_path, "--key", files.key_path),
        )
        self.assertEqual(issued.spki, done.lines()[0]["spki"])

    def test_environment(self) -> None:
        """The directory may be in the environment; without any the use is wrong."""
        self.assertEqual(2, self.call("provider", "fingerprint").status)
        self.environment["CLOUDCONNECT_DIRECTORY"] = str(self.directory)
        self.assertEqual(0, self.call("provider", "fingerprint").status)

    def test_no_provider(self) -> None:
        """A directory without a provider is said to be one."""
        done = self.call("provider", "tenant", "list", "--directory", str(self.home))
        self.assertEqual(2, done.status)
        self.assertIn("provider init", done.err)

    def test_serve_twice(self) -> None:
        """A provider that runs is not started again."""
        with running(load(self.directory)):
            done = self.call("provider", "serve", *self.where)
        self.assertEqual(15, done.status)
        self.assertIn("stop it first", done.err)

    def test_serve_roles(self) -> None:
        """Roles go to what runs; those that there are not are refused before anything does."""
        called: list[list[str]] = []
        self.patch(Twist, "main", called.append)
        self.assertEqual(0, self.call("provider", "serve", *self.where).status)
        done = self.call("provider", "serve", *self.where, "--roles", "service,mover")
        self.assertEqual(0, done.status, done.err)
        self.assertEqual(["--roles", "service,mover"], called[1][-2:])
        self.assertNotIn("--roles", called[0])
        for wrong in ("", "mover", "service,cook"):
            done = self.call("provider", "serve", *self.where, "--roles", wrong)
            self.assertEqual(2, done.status, wrong)
        self.assertEqual(2, len(called))

    def test_gateway_for_programs(self) -> None:
        """What was made is one line of JSON, and what is missing is not in it."""
        words = ("--output", str(self.home / "g"), "--service", "10.0.0.1:6181", "--pool", "west")
        done = self.call("provider", "gateway", "enroll", "edge", *self.where, *words, "--json")
        (line,) = done.lines()
        self.assertEqual(
            ("gateway", "edge", str(self.home / "g"), "west"),
            (line["message_type"], line["name"], line["directory"], line["pool"]),
        )

    def test_gateway(self) -> None:
        """A gateway is enrolled; what is still missing at the provider is said."""
        output = self.home / "gateway"
        done = self.call(
            *("provider", "gateway", "enroll", "edge", *self.where),
            *("--output", str(output), "--service", "10.0.0.1:6181"),
        )
        self.assertEqual(0, done.status)
        self.assertTrue((output / "gateway.toml").is_file())
        self.assertIn("lan_listen", done.err)


class TenantTests(DirectoryCase):
    """Tenants, while no provider runs."""

    def add(self, *words: str) -> Any:
        return self.call("provider", "tenant", "add", "acme", *self.where, *words)

    def test_pool(self) -> None:
        """A tenant is made with its pool of gateways, by an invitation too; default where none is
        said, and a name that is none makes no tenant."""
        self.assertEqual(2, self.add("--pool", "No Pool").status)
        self.assertEqual(0, self.add("--pool", "west").status)
        for name, words in (("other", ("--pool", "east")), ("third", ())):
            done = self.call("provider", "tenant", "invite", name, *self.where, *words)
            self.assertEqual(0, done.status, done.err)
        rows = self.call("provider", "tenant", "list", *self.where, "--json").lines()
        self.assertEqual(
            {"acme": "west", "other": "east", "third": "default"},
            {row["name"]: row["pool"] for row in rows},
        )

    def test_token(self) -> None:
        """A token is made and printed once, with a warning to people."""
        done = self.add()
        self.assertEqual(0, done.status, done.err)
        self.assertIn("only now", done.out)
        token = done.out.split()[-1]
        self.assertTrue(token.startswith(TOKEN_PREFIX))
        for words in (("tenant", "list"), ("events",), ("sessions",)):
            self.assertNotIn(token, self.call("provider", *words, *self.where).out)

    def test_json(self) -> None:
        """A program gets it as a field."""
        (line,) = self.add("--json").lines()
        self.assertEqual(("tenant", "acme"), (line["message_type"], line["name"]))
        self.assertTrue(line["token"].startswith(TOKEN_PREFIX))

    def test_password_file(self) -> None:
        """A password from a file is not printed, nor is a token made."""
        done = self.add("--password-file", self.file(b"correct horse\n"), "--json")
        self.assertEqual([{"message_type": "tenant", "name": "acme"}], done.lines())
        verifier = self.accounts().verifier("acme")
        self.assertEqual(600_000, verifier and verifier.iterations)

    def test_settings(self) -> None:
        """What was agreed is kept."""
        words = ("--quota", "50GB", "--lease", "2030-01-31", "--max-tasks", "2")
        self.assertEqual(0, self.add(*words, "--encryption", "tenant, none").status)
        tenant = self.accounts().tenant("acme")
        self.assertEqual(
            (50 * 10**9, "2030-01-31", 2, ("tenant", "none")),
            (tenant.quota, tenant.lease_end, tenant.max_tasks, tenant.modes),
        )

    def test_refused(self) -> None:
        """What cannot be is refused by name, and no tenant is made."""
        for words in (
            ("--quota", "much"),
            ("--lease", "soon"),
            ("--max-tasks", "0"),
            ("--encryption", "rot13"),
            ("--password-file", "/nonexistent"),
            ("--password-file", self.file(b"")),
        ):
            self.assertEqual(2, self.add(*words).status, words)
        self.assertEqual([], self.accounts().tenants())

    def test_list(self) -> None:
        """Tenants are listed by name."""
        self.add("--quota", "50GB", "--lease", "2030-01-31")
        self.call("provider", "tenant", "add", "aaa", *self.where)
        lines = self.call("provider", "tenant", "list", *self.where).out.splitlines()
        self.assertEqual(["aaa", "acme"], [line.split()[0] for line in lines])
        for part in ("50.0 GB", "2030-01-31", "enabled"):
            self.assertIn(part, lines[1])
        rows = self.call("provider", "tenant", "list", "--json", *self.where).lines()
        self.assertEqual(["aaa", "acme"], [row["name"] for row in rows])


class ListingTests(DirectoryCase):
    """Listings."""

    def setUp(self) -> None:
        super().setUp()
        accounts = self.accounts()
        accounts.add_tenant("acme", VERIFIER)
        warning = SecurityWarning(
            time=1.0,
            kind=WarningKind.TAMPERED,
            tenant="acme",
            session="ab" * 16,
            text="evil\x1b[2J\nfake line",
        )
        accounts.keep_warning(warning, "source-mover")
        accounts.session_started(
            session="ab" * 16,
            tenant="acme",
            kind="backup",
            job_id="cd" * 16,
            host="evil\x1b[2J",
            job="job\n",
            peer="",
            started=1.0,
            key_a="0123456789abcdef",
            key_b="",
            summary="{}",
        )

    def test_terminal(self) -> None:
        """What tenants have written cannot move an admin's cursor, nor fake a line."""
        for what in ("events", "sessions"):
            out = self.call("provider", what, *self.where).out
            self.assertEqual(1, len(out.splitlines()), what)
            self.assertTrue(out.rstrip("\n").isprintable(), what)
            self.assertIn("acme", out)

    def test_programs(self) -> None:
        """A program gets what was kept, exactly."""
        (row,) = self.call("provider", "events", "--json", *self.where).lines()
        self.assertEqual("evil\x1b[2J\nfake line", row["text"])

    def test_filters(self) -> None:
        """Warnings alone, and one tenant's alone."""
        for words, count in (
            (("events", "--warnings"), 1),
            (("events", "--tenant", "other"), 0),
            (("sessions", "--tenant", "acme"), 1),
            (("sessions", "--tenant", "other"), 0),
        ):
            done = self.call("provider", *words, "--json", *self.where)
            self.assertEqual(count, len(done.lines()), words)

    def test_last(self) -> None:
        """The newest of those that are asked for, in their order."""
        accounts = self.accounts()
        for number in range(3):
            warning = SecurityWarning(
                time=2.0 + number, kind=WarningKind.TAMPERED, tenant="acme", text=f"text {number}"
            )
            accounts.keep_warning(warning, "source-mover")
        words = ("provider", "events", "--json", *self.where, "--last")
        texts = [row["text"] for row in self.call(*words, "2").lines()]
        self.assertEqual(["text 1", "text 2"], texts)
        self.assertEqual(4, len(self.call(*words, "99").lines()))
        rows = self.call("provider", "sessions", "--last", "1", "--json", *self.where).lines()
        self.assertEqual(1, len(rows))
        self.assertEqual(2, self.call(*words, "0").status)

    def test_points(self) -> None:
        """Points of all tenants that have a repository; of one that is not there an error."""
        self.assertEqual("", self.call("provider", "points", *self.where).out)
        self.assertEqual(
            10, self.call("provider", "points", "--tenant", "nobody", *self.where).status
        )

    def test_many(self) -> None:
        """A listing of more than a page has every row once."""
        accounts = self.accounts()
        for number in range(3):
            accounts.add_tenant(f"t{number}", VERIFIER)
        self.patch(administering, "PAGE_ROWS_MAX", 2)
        rows = self.call("provider", "tenant", "list", "--json", *self.where).lines()
        self.assertEqual(["acme", "t0", "t1", "t2"], [row["name"] for row in rows])


class HereTests(DirectoryCase):
    """The acts by themselves."""

    def test_all_pages(self) -> None:
        """Pages are asked for until there is no more; a page without rows ends it."""

        class Endless:
            """Says that there is more, for ever."""

            async def call(self, command: Any, after: int, **asked: Any) -> Any:
                rows = [{"cursor": after + 1}] if after < 5 else []
                return {"rows": rows, "more": True}

        found = run_at_once(rows(Endless(), "event", {}))
        self.assertEqual([1, 2, 3, 4, 5], [row["cursor"] for row in found])

    def test_here(self) -> None:
        """On the directory itself they are done at once."""
        acts = ActsHere(Administration(self.accounts(), self.directory / "repositories"))
        made = run_at_once(acts.call(AddTenant, name="acme", password=None, settings={}))
        self.assertIsNotNone(made["token"])
        found = run_at_once(rows(acts, "tenant", {}))
        self.assertEqual(["acme"], [row["name"] for row in found])
        self.assertLessEqual(len(found), PAGE_ROWS_MAX)


class ThereTests(TestCase):
    """At a provider that runs, through its admin socket."""

    timeout = 120

    @inlineCallbacks
    def test_running(self) -> Any:
        """The same commands work while a provider runs, and act at once."""
        temporary = tempfile.TemporaryDirectory(prefix="cloudconnect-")
        self.addCleanup(temporary.cleanup)
        directory = Path(temporary.name, "provider")
        yield self.command("init", "--host", "localhost", "--directory", str(directory))
        settings = load(directory)
        with running(settings):
            provider = EmbeddedProvider(
                reactor,
                Places(
                    accounts_url=settings.accounts_url,
                    repositories=settings.repositories,
                    identity=settings.identity,
                    admin_socket=settings.admin_socket,
                    public=TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
                ),
            )
            self.addCleanup(provider.stopService)
            yield Deferred.fromCoroutine(provider.listen())
            where = ("--directory", str(directory))
            out: str = yield self.command("tenant", "add", "acme", *where)
            self.assertIn(TOKEN_PREFIX, out)
            out = yield self.command("tenant", "list", *where)
            self.assertTrue(out.startswith("acme"), out)
            yield self.command("tenant", "add", "acme", *where, status=2)
            out = yield self.command("tenant", "set", "acme", "--bin-days", "3", *where)
            self.assertIn("3 days", out)
            out = yield self.command("tenant", "freeze", "acme", *where)
            self.assertIn("frozen", out)
            yield self.command("gc", "--tenant", "acme", *where, status=1)
            yield self.command("tenant", "thaw", "acme", *where)
            yield self.command("gc", "--tenant", "acme", *where, status=10)  # no repository yet
            yield provider.stopService()
            # The lock is held, and nobody answers at the socket: a provider that hangs.
            yield self.command("tenant", "list", *where, status=22)

    @inlineCallbacks
    def command(self, *words: str, status: int = 0) -> Any:
        line = [sys.executable, "-m", "cloudconnect", "provider", *words]
        process = Process(line, {**os.environ, "PYTHONPATH": str(ROOT)}, os.getcwd(), forked=True)
        self.addCleanup(process.stop)
        code = yield process.end()
        self.assertEqual(status, code, process.text())
        return process.out.decode()
