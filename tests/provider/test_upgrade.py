"""A provider of the release before credentials of each machine is upgraded, and keeps everything.

``upgrade/before-issue-8.tar.xz`` is the accounts data base and the one repository of a provider of
that time, of tenant ``acme``: two backups of a folder with two files, the second after a change.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from cloudconnect.content.atrest import EncryptionMode, unlock
from cloudconnect.content.generations import keys_of
from cloudconnect.keys import Password
from cloudconnect.provider.accounts.credentials import CAPABILITIES
from cloudconnect.repository.store import Repository
from tests.provider.stage import Provider, StageCase, Tenant

OLD = Path(__file__).with_name("upgrade") / "before-issue-8.tar.xz"
PASSPHRASE, LOGIN = Password(b"a passphrase"), Password(b"a password of a tenant")
POINTS = ["c159fc6617adfc6b6fd37d1007247539", "8ce58e2156c54c8dca5074f26bf00e1d"]


class UpgradeTests(StageCase):
    """A provider's directory of an older release under this one."""

    def setUp(self) -> None:
        super().setUp()
        directory = Path(self.mktemp())
        with tarfile.open(OLD) as archive:
            archive.extractall(directory, filter="data")
        self.upgraded = Provider(self.reactor, directory)
        self.addCleanup(self.upgraded.stop)

    def test_tenants(self) -> None:
        """Tenants, what was agreed with them and their passwords are there; each has one
        credential, which may do everything."""
        accounts = self.upgraded.accounts
        acme = accounts.tenant("acme")
        self.assertEqual((10**9, "2999-12-31", 3), (acme.quota, acme.lease_end, acme.max_tasks))
        self.assertEqual((None, None, None), (acme.bandwidth, acme.soft_quota, acme.removed))
        for name in ("acme", "empty"):
            (row,) = accounts.credentials(name, 0, 10)
            self.assertEqual(
                ("default", list(CAPABILITIES), False, None),
                (row["label"], row["capabilities"], row["invitation"], row["expires"]),
            )

    def test_points(self) -> None:
        """Every point is there and sound, restores, and the next backup goes on from it."""
        tenant = Tenant(self.upgraded, "fresh")
        self.addCleanup(tenant.close)
        tenant.name, tenant.token = "acme", LOGIN
        account = tenant.log_in()
        repository = self.upgraded.accounts.tenant("acme").repository
        assert repository is not None
        self.assertEqual(POINTS, [row["point"] for row in self.upgraded.points()])
        with Repository.open(self.upgraded.mover.acts.folder(repository)) as opened:
            self.assertEqual([], list(opened.scrub().as_map()["findings"]))
            description = opened.description
        self.assertEqual(description.encode(), account.repository)
        master = unlock(description, EncryptionMode.TENANT, PASSPHRASE)
        tenant.description, tenant.keys = description, keys_of(description, master)
        tenant.repository = repository
        for point, content in zip(POINTS, ("hello\n", "changed\n"), strict=True):
            target = self.mktemp()
            result = self.reactor.result_of(tenant.restore(bytes.fromhex(point), target))
            self.assertEqual((2, 0), (result.files, result.damaged.count))
            self.assertEqual(content, Path(f"{os.path.abspath(target)}/tmp/of/src/a").read_text())
        self.reactor.result_of(tenant.back_up(self.source()))
        self.assertEqual(3, len(self.upgraded.points()))
