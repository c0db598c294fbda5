"""Tests of :mod:`cloudconnect.config.provider`: a provider's directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config import provider
from cloudconnect.config.provider import CONFIGURATION, ProviderSettings, initialize, load, running
from cloudconnect.errors import Busy, UsageError
from cloudconnect.transports.trust import certificate_fingerprint
from tests.certificates import self_signed


class ProviderCase(SynchronousTestCase):
    """A test with a place for a provider."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    def write(self, text: str) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / CONFIGURATION).write_text(text)


class InitializeTests(ProviderCase):
    """Making a directory."""

    def test_whole(self) -> None:
        """Everything is there, the settings come back as they were, and it can be loaded again."""
        made = initialize(self.directory, ("a.example.com", "192.0.2.1"), ("a.example.com:6180",))
        self.assertEqual(made, load(self.directory))
        self.assertEqual(("a.example.com", "192.0.2.1"), made.hosts)
        self.assertTrue(made.repositories.is_dir())
        self.assertEqual(0o700, stat.S_IMODE(made.keys.stat().st_mode))
        spki, certificate = made.identity.fingerprints()
        self.assertTrue(spki.startswith("SPKI-SHA256:") and certificate.startswith("SHA256:"))
        for name in ("ca.pem", "certificate.pem", "key.pem"):
            self.assertTrue((made.node_authority / "service" / name).is_file(), name)

    def test_private(self) -> None:
        """Nobody else on the machine can look into it, and its keys are readable by their owner
        alone."""
        initialize(self.directory, ("a.example.com",))
        self.assertEqual(0o700, stat.S_IMODE(self.directory.stat().st_mode))
        for path in self.directory.rglob("*"):
            if path.name.endswith("key.pem") or path.name == CONFIGURATION:
                self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode), path)

    def test_empty_folder(self) -> None:
        """An empty folder that is there already will do, and becomes private."""
        self.directory.mkdir(mode=0o755)
        initialize(self.directory, ("a.example.com",))
        self.assertEqual(0o700, stat.S_IMODE(self.directory.stat().st_mode))

    def test_something_there(self) -> None:
        """A folder with something in it, or with a provider, is left as it is."""
        self.directory.mkdir()
        (self.directory / "precious").write_text("mine")
        self.assertRaises(UsageError, initialize, self.directory, ("a.example.com",))
        self.assertEqual(["precious"], os.listdir(self.directory))
        (self.directory / "precious").unlink()
        made = initialize(self.directory, ("a.example.com",))
        before = made.identity.fingerprints()
        error = self.assertRaises(UsageError, initialize, self.directory, ("b.example.com",))
        self.assertIn("already", str(error))
        self.assertEqual(before, load(self.directory).identity.fingerprints())

    def given(self, certificate: Any = None, key: Any = None) -> Any:
        issued, other = self_signed(("a.example.com",)), self_signed(("b.example.com",))
        files = issued.write(self.mktemp()), other.write(self.mktemp())
        self.issued = issued
        chosen = {
            "certificate": files[0].certificate_path,
            "key": files[0].key_path,
            "other key": files[1].key_path,
            "nothing": "/nonexistent/file",
            "garbage": __file__,
            None: None,
        }
        parts = [None if chosen[n] is None else Path(chosen[n]) for n in (certificate, key)]
        return initialize(self.directory, ("a.example.com",), (), *parts)

    def test_own_certificate(self) -> None:
        """A certificate with its key is copied, and the key kept private."""
        made = self.given("certificate", "key")
        self.assertEqual(
            certificate_fingerprint(self.issued.certificate), made.identity.fingerprints()[1]
        )
        mode = (self.directory / made.key).stat().st_mode
        self.assertEqual(0o600, stat.S_IMODE(mode))

    def test_unusable_certificate(self) -> None:
        """Files that cannot be used, or that do not belong together, are named, and leave nothing
        behind: the same command works once they are right."""
        for pair in (
            ("certificate", None),
            (None, "key"),
            ("nothing", "key"),
            ("certificate", "nothing"),
            ("garbage", "key"),
            ("certificate", "garbage"),
            ("certificate", "other key"),
        ):
            self.assertRaises(UsageError, self.given, *pair)
            self.assertFalse(self.directory.exists(), pair)
        self.given("certificate", "key")

    def test_odd_texts(self) -> None:
        """Quotes and backslashes survive; control characters are refused before anything is
        made."""
        for odd in ("a\nb", "\x1b[2J", "\x7f"):
            self.assertRaises(UsageError, initialize, self.directory, ("a",), listen=odd)
        self.assertFalse(self.directory.exists())
        listen = r'tcp:6180:interface=\:\:1 "quoted"'
        made = initialize(self.directory, ("a.example.com",), listen=listen)
        self.assertEqual((listen, made), (load(self.directory).listen, load(self.directory)))


class LoadTests(ProviderCase):
    """Reading provider.toml."""

    def test_defaults(self) -> None:
        """What is not said is as usual."""
        self.write('hosts = ["a.example.com"]')
        self.assertEqual(
            ProviderSettings(directory=self.directory, hosts=("a.example.com",)),
            load(self.directory),
        )
        self.assertEqual("tcp:6180", load(self.directory).listen)
        made = load(self.directory)
        self.assertEqual((1, 24, 30), (made.maintenance_hours, made.gc_hours, made.scrub_days))

    def test_places(self) -> None:
        """Everything lies in the directory, wherever the command was called."""
        self.write('hosts = ["a.example.com"]')
        made = load(Path(os.path.relpath(self.directory)))
        self.assertEqual(self.directory / "admin.sock", made.admin_socket)
        self.assertEqual(f"sqlite:///{self.directory}/accounts.sqlite", made.accounts_url)
        self.assertEqual(str(self.directory / "tls/key.pem"), made.identity.key_path)

    def test_how_often(self) -> None:
        """How often the provider tends what it stores can be said in whole hours and days."""
        self.write('hosts = ["a.example.com"]\nmaintenance_hours = 6\nscrub_days = 90')
        made = load(self.directory)
        self.assertEqual((6, 24, 90), (made.maintenance_hours, made.gc_hours, made.scrub_days))

    def test_nothing_there(self) -> None:
        """Where there is no provider the text says how to make one."""
        error = self.assertRaises(UsageError, load, self.directory)
        self.assertIn("provider init", str(error))

    def test_unusable(self) -> None:
        """What cannot be used is named, with its file."""
        for text, word in (
            ("hosts = [", "cannot be used"),
            ("", "hosts"),
            ("hosts = []", "hosts"),
            ('hosts = "a"', "hosts"),
            ("hosts = [1]", "hosts"),
            ('hosts = ["a"]\nlisten = 5', "listen"),
            ('hosts = ["a"]\nlistne = "tcp:1"', "listne"),
            ('hosts = ["a"]\ndirectory = "/"', "directory"),
            ('hosts = ["a"]\nadvertise = "a:1"', "advertise"),
            ('hosts = ["a"]\nmaintenance_hours = 0', "maintenance_hours"),
            ('hosts = ["a"]\ngc_hours = 721', "gc_hours"),
            ('hosts = ["a"]\nscrub_days = true', "scrub_days"),
            ('hosts = ["a"]\nsessions_days = 179', "sessions_days is 0"),
            ('hosts = ["a"]\nevents_days = -1', "events_days"),
            ('hosts = ["a"]\ntenant_events = 0', "tenant_events"),
            ('hosts = ["a"]\nscrub_days = "30"', "scrub_days"),
        ):
            self.write(text)
            error = self.assertRaises(UsageError, load, self.directory)
            self.assertIn(word, str(error))
            self.assertIn(CONFIGURATION, str(error))

    def test_not_text(self) -> None:
        """A file that is no text is refused and not printed."""
        self.directory.mkdir()
        (self.directory / CONFIGURATION).write_bytes(b"\xff\xfe")
        self.assertRaises(UsageError, load, self.directory)


class RunningTests(ProviderCase):
    """The lock."""

    def test_one(self) -> None:
        """One provider runs on a directory; the next one may when it has ended."""
        made = initialize(self.directory, ("a.example.com",))
        with running(made):

            def second() -> None:
                with running(made):
                    self.fail("two providers run")

            error = self.assertRaises(Busy, second)
            self.assertIn(str(self.directory), str(error))
        with running(made):
            pass

    def test_after_a_failure(self) -> None:
        """However the first one ended."""
        made = initialize(self.directory, ("a.example.com",))
        with self.assertRaises(ValueError), running(made):
            raise ValueError
        with running(made):
            pass

    def test_lost_lock(self) -> None:
        """A lock file that somebody has removed is made again."""
        made = initialize(self.directory, ("a.example.com",))
        (self.directory / "lock").unlink()
        with running(made):
            self.assertEqual(0o600, stat.S_IMODE((self.directory / "lock").stat().st_mode))
        self.assertTrue(callable(provider.running))
