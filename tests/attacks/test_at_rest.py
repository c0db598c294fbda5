"""Who has the provider's disk: what can be read there in each encryption mode."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.commands.lan import OfferKeyA
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import ContextMismatch, Refused
from cloudconnect.keys import MasterKey
from cloudconnect.repository.store import Repository
from tests.provider.stage import TENANT, StageCase, Tenant

#: Random, so that compression leaves it as it is; in a file's content and in a name.
CONTENT, NAME = os.urandom(4000), os.urandom(40).hex()
MODES = list(EncryptionMode)


class AtRestTests(StageCase):
    """A backup through the whole stack, then a look at every file of the provider."""

    def setUp(self) -> None:
        super().setUp()
        self.top = Path(self.mktemp())
        self.top.mkdir()
        (self.top / "file").write_bytes(CONTENT)
        (self.top / NAME).write_bytes(b"something else")

    def of(self, mode: EncryptionMode) -> Tenant:
        """A connected tenant with a repository of this mode."""
        made = Tenant(self.provider, f"{TENANT}-{mode.value}", mode)
        self.addCleanup(made.close)
        return made.connect()

    def files(self, *folders: Path) -> Iterator[tuple[Path, bytes]]:
        for folder in folders or (self.directory,):
            for path in folder.rglob("*"):
                if path.is_file():
                    yield path, path.read_bytes()

    def readable(self, *folders: Path) -> bool:
        """Whether the canary of a file's content stands somewhere."""
        return any(CONTENT[:64] in octets for _, octets in self.files(*folders))

    def back_up(self, tenant: Tenant) -> bytes:
        return self.reactor.result_of(tenant.back_up(str(self.top))).point

    def test_modes(self) -> None:
        """What was stored stands there in clear in mode none, and in no other."""
        found = {}
        for mode in MODES:
            tenant = self.of(mode)
            self.back_up(tenant)
            folder = self.provider.repositories / tenant.repository.hex()
            found[mode.value] = self.readable(folder)
            if mode is not EncryptionMode.NONE:
                for path, octets in self.files():
                    self.assertNotIn(NAME.encode(), octets, path)
                    self.assertNotIn(CONTENT[:32], octets, path)
        self.assertEqual({"tenant": False, "provider": False, "none": True}, found)

    def test_restore(self) -> None:
        """What was stored comes back exactly, in each mode."""
        for mode in MODES:
            tenant = self.of(mode)
            target = self.mktemp()
            result = self.reactor.result_of(tenant.restore(self.back_up(tenant), target))
            self.assertEqual((2, 0), (result.files, result.damaged.count))
            came_back = os.fsencode(target + os.path.abspath(self.top))
            self.assertEqual([], compare_trees(os.fsencode(self.top.absolute()), came_back))

    def test_key_opens_everything(self) -> None:
        """In mode provider the provider's key, and only that, makes the stored bytes readable."""
        tenant = self.of(EncryptionMode.PROVIDER)
        self.back_up(tenant)
        with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
            keys = self.provider.mover._keys.keys(opened)
            assert keys is not None
            (chunk,) = [
                name
                for part in opened.references(opened.point(opened.points()[0].point))
                for name in part
            ]
            (stored,) = opened.read([chunk])
            self.assertNotIn(CONTENT[:32], bytes(stored.data))
            self.assertIn(CONTENT[:64], bytes(keys.unseal_stored("chunk", stored).data))

    def test_without_the_key(self) -> None:
        """Without its key the provider stores nothing and gives nothing out, and says why."""
        tenant = self.of(EncryptionMode.PROVIDER)
        point = self.back_up(tenant)
        keys = self.directory / "keys"
        shutil.move(keys, self.directory / "away")
        (self.top / "more").write_bytes(CONTENT[::-1])
        for waited in (tenant.back_up(str(self.top)), tenant.restore(point, self.mktemp())):
            error = self.failure_of(waited, Refused)
            self.assertIn("key file", str(error))
        repositories = self.provider.repositories
        self.assertFalse(any(CONTENT[::-1][:64] in o for _, o in self.files(repositories)))
        self.assertEqual([point.hex()], [row["point"] for row in self.provider.points(tenant.name)])
        shutil.move(self.directory / "away", keys)
        self.reactor.result_of(tenant.back_up(str(self.top)))

    def test_with_another_key(self) -> None:
        """A key file of another repository is refused before anything is stored under it."""
        tenant = self.of(EncryptionMode.PROVIDER)
        self.back_up(tenant)
        path = self.directory / "keys" / f"{tenant.repository.hex()}.key"
        path.write_bytes(MasterKey.generate().reveal())
        error = self.failure_of(tenant.back_up(str(self.top)), Refused)
        self.assertIn("not the one", str(error))

    def test_not_allowed(self) -> None:
        """A mode that the provider does not allow makes no repository and no key."""
        for mode in (EncryptionMode.PROVIDER, EncryptionMode.NONE):
            tenant = self.tenant(f"strict-{mode.value}", mode=mode, modes=["tenant"])
            tenant.log_in()
            self.failure_of(tenant.manager.create_repository(tenant.description.encode()), Refused)
        self.assertEqual([], list(self.provider.repositories.iterdir()))
        self.assertFalse((self.directory / "keys").exists())

    def test_another_mode_in_the_package(self) -> None:
        """A session that the service offers in another mode than the repository's is refused."""
        tenant = self.of(EncryptionMode.TENANT)
        calls = self.provider.service.nodes.mover

        def call(command: object, *arguments: object, **values: object) -> object:
            if command is OfferKeyA:
                package: dict[str, object] = values["package"]  # type: ignore[assignment]
                package["mode"] = "none"
            return real(command, *arguments, **values)

        real = calls.call
        self.patch(calls, "call", call)
        self.failure_of(tenant.back_up(str(self.top)), ContextMismatch)
        self.assertFalse(self.readable())
