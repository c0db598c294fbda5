"""The story of a machine that logs in with a certificate, with real processes."""

from __future__ import annotations

import os
import stat

from cloudconnect.backup.comparison import compare_trees
from tests.story.processes import Done, Provider, StoryCase


class CertificateTests(StoryCase):
    """A machine is invited and makes a certificate; the next one follows; the first one ends."""

    async def credential(self, *words: str) -> Done:
        done = await self.run_command(
            "provider", "tenant", *words, "--json", "--directory", str(self.provider.directory)
        )
        self.assertStatus(done, 0)
        return done

    async def mine(self, *words: str, status: int = 0) -> Done:
        phrase = {"CLOUDCONNECT_PASSPHRASE_FILE": str(self.phrase)}
        done = await self.run_command(*words, "--json", **phrase)
        self.assertStatus(done, status)
        return done

    async def test_life(self) -> None:
        """No password anywhere: connect, back up, change the key, restore; then it is revoked."""
        self.phrase = self.folder / "passphrase"
        self.phrase.write_bytes(b"passphrase of the story\n")
        self.provider = Provider(self)
        await self.provider.start()
        source = self.folder / "source"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(3000))
        invitation = self.folder / "invitation"
        label = ("--label", "laptop")
        await self.credential("invite", "acme", *label, "--output", str(invitation))
        certificate, key = self.folder / "own.pem", self.folder / "own.key"
        files = ("--certificate", str(certificate), "--key", str(key))
        way = f"localhost:{self.provider.port}"
        await self.mine("connect", way, "--invite", str(invitation), *files)
        self.assertEqual(0o600, stat.S_IMODE(key.stat().st_mode))
        self.assertEqual([], list((self.home / ".config" / "cloudconnect").glob("*.login")))
        await self.mine("backup", str(source))

        # Another machine's certificate does not open it.
        thief = self.folder / "thief.pem", self.folder / "thief.key"
        openssl = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        await self.openssl(*openssl, "-nodes", "-subj", "/CN=x", *("-days", "5"), *thief)
        os.chmod(thief[1], 0o600)
        stolen = ("--certificate", str(thief[0]), "--key", str(thief[1]))
        refused = await self.mine("points", *stolen, status=12)
        self.assertEqual("login_refused", refused.error["reason"])
        self.assertIn("this machine's certificate", refused.error["message"])

        # It becomes the next one, and the first one ends.
        add = ("credential", "add", "acme", *label, "--certificate", str(thief[0]))
        await self.credential(*add)
        await self.credential(
            "credential", "revoke", "acme", "laptop", "--certificate", str(certificate)
        )
        await self.mine("points", status=12)
        thief[0].replace(certificate)
        thief[1].replace(key)
        back = self.folder / "back"
        restored = await self.mine("restore", "latest", "--target", str(back))
        told = [r for r in restored.records if r.get("name") == "own_certificate_expires"]
        self.assertIn("the certificate of this machine expires", told[0]["text"])
        self.assertEqual([], compare_trees(os.fsencode(source), os.fsencode(f"{back}{source}")))
        os.chmod(key, 0o644)
        self.assertIn("open to everybody", (await self.mine("points", status=2)).error["message"])

    async def openssl(self, *words: object) -> None:
        """What the documentation has a tenant type."""
        *options, certificate, key = map(str, words)
        done = await self.done(
            self.start(
                "-c",
                "import subprocess, sys; sys.exit(subprocess.call(['openssl', *sys.argv[1:]]))",
                *options,
                "-keyout",
                key,
                "-out",
                certificate,
            )
        )
        self.assertStatus(done, 0)
