"""Tests of :mod:`cloudconnect.config.catalogue`: beside a running provider, and brought back."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import attrs

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.config.catalogue import MANIFEST, back_up, check, restore
from cloudconnect.config.provider import initialize, load
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import NotFound, StoredDataDamaged, UsageError
from cloudconnect.provider.accounts import Accounts
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.store import Repository
from tests.provider.stage import StageCase


class CatalogueCase(StageCase):
    """A test with a provider that runs, whose directory is a whole one."""

    def setUp(self) -> None:
        super().setUp()
        made = initialize(Path(self.mktemp()), ("localhost",))
        for name in ("provider.toml", "tls", "lan", "keys", "lock"):
            source = made.directory / name
            target = self.directory / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)
        self.settings = load(self.directory)
        self.owner = self.connected()
        self.sources = [self.source(), self.source()]
        self.made = [self.reactor.result_of(self.owner.back_up(s)).point for s in self.sources]
        self.backup = Path(self.mktemp())

    @property
    def repository(self) -> Path:
        return self.settings.repositories / self.owner.repository.hex()

    def assert_restores(self) -> None:
        """Every point that was made is listed, and comes back exactly."""
        rows = self.provider.points()
        self.assertEqual([point.hex() for point in self.made], [row["point"] for row in rows])
        for point, source in zip(self.made, self.sources, strict=True):
            target = self.mktemp()
            self.reactor.result_of(self.owner.restore(point, target))
            top = str(Path(target).absolute()) + str(Path(source).absolute())
            self.assertEqual([], compare_trees(str(Path(source)).encode(), top.encode()))


class BackUpTests(CatalogueCase):
    """The backup."""

    def test_whole(self) -> None:
        """Accounts, catalogues, settings and keys are in it, for its owner only, and checked."""
        manifest = back_up(self.settings, self.backup)
        names = set(manifest["files"])
        wanted = {"accounts.sqlite", "provider.toml", "tls/key.pem", "lan/ca-key.pem"}
        self.assertLessEqual(wanted, names)
        self.assertIn(f"catalogues/{self.owner.repository.hex()}.sqlite", names)
        self.assertEqual(manifest, check(self.backup))
        for name in names:
            self.assertEqual(0o600, (self.backup / name).stat().st_mode & 0o777, name)
        self.assertEqual(0o700, self.backup.stat().st_mode & 0o777)
        self.assertRaises(UsageError, back_up, self.settings, self.backup)

    def test_named(self) -> None:
        """So are the files in the directory that settings name; what lies elsewhere is not."""
        elsewhere = Path(self.mktemp()).absolute()
        elsewhere.write_bytes(b"another's")
        (self.directory / "secrets").mkdir()
        (self.directory / "secrets" / "mail").write_bytes(b"password")
        settings = attrs.evolve(
            self.settings,
            alarm_mail_password="secrets/mail",
            alarm_webhook_key=str(elsewhere),
            alarm_mail_ca="../ca.pem",
        )
        names = set(back_up(settings, self.backup)["files"])
        self.assertIn("secrets/mail", names)
        self.assertEqual([], [name for name in names if "another" in name or name == "ca.pem"])
        self.assertEqual(b"password", (self.backup / "secrets" / "mail").read_bytes())

    def test_changed(self) -> None:
        """What was changed, or is missing, is found before anything is replaced."""
        back_up(self.settings, self.backup)
        path = self.backup / "accounts.sqlite"
        octets = path.read_bytes()
        path.write_bytes(octets[:-1] + bytes([octets[-1] ^ 1]))
        self.assertRaises(StoredDataDamaged, restore, self.backup, self.directory)
        path.unlink()
        self.assertRaises(StoredDataDamaged, check, self.backup)
        (self.backup / MANIFEST).unlink()
        self.assertRaises(NotFound, check, self.backup)

    def test_while_writing(self) -> None:
        """A transaction that is open meanwhile is not in it, and is not disturbed."""
        with sqlite3.connect(self.directory / "accounts.sqlite") as other:
            other.execute("UPDATE tenants SET quota = 5")
            back_up(self.settings, self.backup)
            other.execute("UPDATE tenants SET quota = 6")
        other.close()
        accounts = Accounts(f"sqlite:///{self.backup.absolute() / 'accounts.sqlite'}")
        self.addCleanup(accounts.close)
        self.assertIsNone(accounts.tenant("acme").quota)
        self.assertEqual(6, self.provider.accounts.tenant("acme").quota)


class RestoreTests(CatalogueCase):
    """What comes back."""

    def test_all_lost(self) -> None:
        """On a new machine, from the backup and the repositories: every point is served, those too
        that came after the backup, with the tenants and policies as they were."""
        with Repository.open(self.repository) as opened:
            opened.set_retention("some-host", "", RetentionPolicy(keep_last=100))
        back_up(self.settings, self.backup)
        self.sources.append(self.source())
        self.made.append(self.reactor.result_of(self.owner.back_up(self.sources[-1])).point)
        other = Path(self.mktemp())
        other.mkdir()
        shutil.copytree(self.settings.repositories, other / "repositories")
        for path in other.glob(f"repositories/*/{CATALOGUE}*"):
            path.unlink()
        (rebuilt,) = restore(self.backup, other)
        self.assertEqual((3, 1, ()), (rebuilt.points, rebuilt.policies, rebuilt.damaged))
        accounts = Accounts(load(other).accounts_url)
        self.addCleanup(accounts.close)
        self.assertEqual(self.owner.repository, accounts.tenant("acme").repository)
        shutil.rmtree(self.settings.repositories)
        shutil.copytree(other / "repositories", self.settings.repositories)
        self.assert_restores()

    def test_gone_since(self) -> None:
        """A point that has left for good since the backup does not come back as a name without
        content; one that was put into the bin stays there."""
        back_up(self.settings, self.backup)
        self.reactor.result_of(self.owner.manager.delete_points([self.made[0]]))
        restore(self.backup, self.directory)
        self.assertEqual([self.made[1].hex()], [row["point"] for row in self.provider.points()])
