"""The story of a tenant whose machines are invited, with real processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cloudconnect.backup.comparison import compare_trees
from tests.story.processes import Done, Provider, StoryCase


class InvitedTests(StoryCase):
    """A tenant is invited, backs up from two machines, loses one; is disabled, removed, back."""

    async def admin(self, *words: str) -> Done:
        done = await self.run_command(
            "provider", "tenant", *words, "--json", "--directory", str(self.provider.directory)
        )
        self.assertStatus(done, 0)
        return done

    async def mine(self, *words: str, profile: str = "first", status: int = 0) -> Done:
        done = await self.run_command(
            *words,
            "--profile",
            profile,
            "--json",
            CLOUDCONNECT_PASSPHRASE_FILE=str(self.phrase),
        )
        self.assertStatus(done, status)
        return done

    async def join(self, profile: str, *words: str) -> None:
        """Invite a machine, and connect it."""
        invitation = self.folder / f"{profile}.invitation"
        await self.admin("invite", "acme", *words, "--output", str(invitation))
        way = f"localhost:{self.provider.port}"  # the system has chosen the port
        await self.mine("connect", way, "--invite", str(invitation), profile=profile)

    async def test_life(self) -> None:
        """From the invitation to the bin and back: each step with its exit status."""
        self.phrase = self.folder / "passphrase"
        self.phrase.write_bytes(b"passphrase of the story\n")
        self.provider = Provider(self)
        await self.provider.start()
        source = self.folder / "source"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(3000))

        await self.join("first", "--quota", "1GB", "--soft-quota", "4kB")
        way, spent = f"localhost:{self.provider.port}", str(self.folder / "first.invitation")
        await self.mine("connect", way, "--invite", spent, profile="thief", status=12)
        await self.mine("backup", str(source))
        await self.join("second", "--can", "write")
        (summary,) = self.summaries(await self.mine("backup", str(source), profile="second"))
        self.assertEqual(1, len(summary["notes"]))  # over the soft quota
        target = str(self.folder / "stolen")
        restore = ("restore", "latest", "--target", target)
        await self.mine(*restore, profile="second", status=1)
        self.assertFalse(Path(target, str(source)[1:]).exists())

        # The second machine is stolen: its credential ends, the first one goes on.
        await self.admin("credential", "revoke", "acme", "machine-2")
        await self.mine("backup", str(source), profile="second", status=12)
        await self.admin("remove", "acme")
        await self.mine("points", status=14)
        await self.admin("restore", "acme")
        back = self.folder / "back"
        await self.mine("restore", "latest", "--target", str(back))
        self.assertEqual([], compare_trees(os.fsencode(source), os.fsencode(f"{back}{source}")))
        events = {row["name"] for row in self.provider.rows("event", tenant="acme")}
        self.assertLessEqual(
            {
                "tenant_invited",
                "invitation_accepted",
                "credential_revoked",
                "soft_quota_passed",
                "tenant_removed",
                "tenant_enabled",
            },
            events,
        )

    def summaries(self, done: Done) -> list[dict[str, Any]]:
        return [record for record in done.records if record["message_type"] == "summary"]
