"""A provider's directory that the release before made: opened, used and kept by this one.

``release-0.1.0.dev0.tar.xz`` is what that release left behind, made with its own commands: a
provider with the tenant ``acme``, its login token and encryption passphrase, two restore points of
the job ``first``, and the folders that they were made of (``day0`` and ``source``).
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from cloudconnect.config.certificates import make_server_certificate
from tests.story.processes import Line, Provider, StoryCase

ARCHIVE = Path(__file__).with_name("release-0.1.0.dev0.tar.xz")
#: Where the sources stood when they were backed up.
TOP = Path("tmp/fx/source")


def contents(top: Path) -> dict[str, object]:
    """What a tree holds: bytes of files, targets of links."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


class UpgradeTests(StoryCase):
    """An older provider directory under this release."""

    async def test_older_provider(self) -> None:
        """Its points restore exactly, before and after a backup by this release."""
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(self.folder, filter="data")
        # Renewed as an admin would: the archive grows older than any certificate.
        make_server_certificate(["localhost"], self.folder / "provider/tls", keep_key=True)
        provider = Provider(self)
        await provider.start()
        line = Line(self, provider, provider.port, self.folder / "token")
        line.environment["CLOUDCONNECT_TENANT"] = "acme"
        records = (await line.run("points")).records
        listed = [record for record in records if record["message_type"] == "point"]
        self.assertEqual([row["job"] for row in listed], ["first", "first"])
        await self.restores(line, listed[0]["point"], "day0", "one")
        await self.restores(line, listed[1]["point"], "source", "two")

        (self.folder / "source/new").write_bytes(b"made after the upgrade")
        done = await line.run("backup", str(self.folder / "source"), "--job", "second")
        self.assertStatus(done, 0)
        await self.restores(line, listed[0]["point"], "day0", "three")
        target = self.folder / "four"
        point = done.summary["point"]
        self.assertStatus(await line.run("restore", point, "--target", str(target)), 0)
        restored = target / (self.folder / "source").relative_to("/")
        self.assertEqual(contents(restored), contents(self.folder / "source"))

    async def restores(self, line: Line, point: str, source: str, target: str) -> None:
        """The point holds what ``source`` does."""
        done = await line.run("restore", point, "--target", str(self.folder / target))
        self.assertStatus(done, 0)
        restored = self.folder / target / TOP
        self.assertEqual(contents(restored), contents(self.folder / source))
