"""Keys, kits and heads with real processes: what a person types, from the first minute to the worst
day."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cloudconnect.cli
from cloudconnect.backup.comparison import compare_trees
from cloudconnect.content.kit import parse_kit
from tests.attacks.stage import make_files
from tests.backup.trees import make_odd_tree
from tests.story.processes import Done, Line, Provider, StoryCase


class KeyTests(StoryCase):
    """A tenant with a provider, and another machine with nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.source = str(self.folder / "source")

    async def set_up(self) -> None:
        self.provider = Provider(self)
        self.token = self.provider.add_tenant()
        await self.provider.start()
        self.line = Line(self, self.provider, self.provider.port, self.token)
        self.kit = self.folder / "first-kit.txt"
        address = self.line.environment["CLOUDCONNECT_PROVIDER"]
        made = await self.line.run("connect", address, "--kit-output", str(self.kit))
        self.assertStatus(made, 0)
        self.assertEqual(made.summary["kit"], str(self.kit))

    def passphrase(self, text: str) -> str:
        path = self.folder / f"passphrase-{text}"
        path.write_text(text + "\n")
        return str(path)

    def empty_machine(self, name: str) -> dict[str, str]:
        """The environment of a machine on which nobody was before."""
        home = self.folder / name
        home.mkdir()
        return {"HOME": str(home)}

    def assertRefused(self, done: Done, status: int, reason: str) -> str:
        self.assertStatus(done, status)
        self.assertEqual((done.error["code"], done.error["reason"]), (status, reason))
        return str(done.error["message"])

    async def backup(self, **environment: str) -> Done:
        done = await self.line.run("backup", self.source, **environment)
        self.assertStatus(done, 0)
        return done

    def slots(self, done: Done) -> list[dict[str, Any]]:
        """The key slots that were listed."""
        self.assertStatus(done, 0)
        return [row for row in done.records if row["message_type"] == "slot"]

    async def test_worst_day(self) -> None:
        """An empty machine, the kit's text, and a login that was just reset restore exactly; the
        same text makes a profile, and backups go on. Who mistypes it, or has an older one, is
        told."""
        make_odd_tree(os.fsencode(self.source))
        await self.set_up()
        first = parse_kit(self.kit.read_text())
        self.assertEqual(
            (first.tenant, first.head_number, first.pins), ("acme", 0, (self.provider.pin,))
        )
        self.assertEqual(self.kit.stat().st_mode & 0o777, 0o600)
        await self.backup()
        printed = await self.line.run("key", "kit", "--output", str(self.folder / "kit.txt"))
        self.assertStatus(printed, 0)
        text = (self.folder / "kit.txt").read_text()
        kit = parse_kit(text)
        self.assertEqual((kit.head_number, kit.repository), (1, first.repository))
        self.assertNotIn(kit.groups().split()[2], printed.out.decode() + printed.err.decode())

        # The machine is gone, the old login too.
        shutil.rmtree(self.home)
        reset = await self.run_command(
            "provider", "tenant", "set", "acme", "--new-token", "--json",
            "--directory", str(self.provider.directory),
            HOME=str(self.folder),
        )  # fmt: skip
        self.assertStatus(reset, 0)
        login = self.folder / "new-login"
        login.write_text(reset.records[0]["token"] + "\n")
        typed = self.folder / "typed.txt"
        lines = text.splitlines()
        begin = lines.index("-----BEGIN CLOUDCONNECT RECOVERY KIT-----")
        end = lines.index("-----END CLOUDCONNECT RECOVERY KIT-----")
        typed.write_text("\n".join(lines[begin : end + 1]) + "\n")
        target = self.folder / "restored"
        words = (
            "--host",
            "story-host",
            "--job",
            "default",
            "--password-file",
            str(login),
            "--json",
        )
        empty = self.empty_machine("empty")
        restore = ("restore", "latest", "--target", str(target), "--kit", str(typed))
        done = await self.run_command(*restore, *words, **empty)
        self.assertStatus(done, 0)
        self.assertEqual(
            compare_trees(os.fsencode(self.source), os.fsencode(target) + os.fsencode(self.source)),
            [],
        )
        self.assertIn(b"recovery kit's head 1", done.err + done.out)

        group = kit.groups().split()[6]
        bad = self.folder / "mistyped.txt"
        other = "0" if group[0] != "0" else "1"
        bad.write_text(typed.read_text().replace(group, other + group[1:]))
        refused = await self.run_command(*restore[:-1], str(bad), *words, **empty)
        self.assertIn("group 5 of the key", self.assertRefused(refused, 2, "usage"))

        again = await self.run_command(
            "connect", "--kit", str(typed), "--password-file", str(login), "--json", **empty
        )
        self.assertStatus(again, 0)
        self.assertFalse(again.summary["created"])
        added = await self.run_command(
            "key", "add", "--kit", str(typed), "--new-passphrase-file", self.passphrase("fresh"),
            "--json", **empty,
        )  # fmt: skip
        self.assertStatus(added, 0)
        more = await self.run_command(
            "backup", self.source, "--passphrase-file", self.passphrase("fresh"), "--json", **empty
        )
        self.assertStatus(more, 0)
        self.assertEqual(more.summary["bytes_new"], 0)

    async def test_slots(self) -> None:
        """Passphrases and key files come and go; a wrong one is 13 before anything moves; the last
        one stays; the profile follows a rotation."""
        make_files(self.source)
        await self.set_up()
        await self.backup()
        new = self.passphrase("second")
        added = await self.line.run("key", "add", "--new-passphrase-file", new)
        self.assertStatus(added, 0)
        keyfile = self.folder / "keyfile"
        keyfile.write_bytes(os.urandom(1000))
        added = await self.line.run(
            "key", "add", "--new-key-file", str(keyfile), CLOUDCONNECT_PASSPHRASE_FILE=new
        )
        self.assertStatus(added, 0)
        listed = await self.line.run("key", "list", CLOUDCONNECT_PASSPHRASE_FILE=new)
        slots = self.slots(listed)
        kinds = [(row["kind"], row["used"]) for row in slots]
        self.assertEqual(kinds, [("passphrase", False), ("passphrase", True), ("key-file", False)])
        third = self.passphrase("third")
        rotated = await self.line.run("key", "rotate", "--new-passphrase-file", third)
        self.assertStatus(rotated, 0)
        old = self.line.environment["CLOUDCONNECT_PASSPHRASE_FILE"]
        sessions = len(self.provider.rows("session"))
        for command in (("backup", self.source), ("key", "list"), ("ls", "latest")):
            refused = await self.line.run(*command, CLOUDCONNECT_PASSPHRASE_FILE=old)
            self.assertRefused(refused, 13, "wrong_passphrase")
        self.assertEqual(len(self.provider.rows("session")), sessions)
        self.line.environment["CLOUDCONNECT_PASSPHRASE_FILE"] = third
        ids = [row["slot"] for row in slots]
        listed = await self.line.run("key", "list")
        (used,) = [row["slot"] for row in self.slots(listed) if row["used"]]
        refused = await self.line.run("key", "remove", used)
        self.assertIn("opened the repository just now", self.assertRefused(refused, 2, "usage"))
        for slot in (ids[1], ids[2]):
            self.assertStatus(await self.line.run("key", "remove", slot[:6]), 0)
        left = self.slots(await self.line.run("key", "list"))
        self.assertEqual(len(left), 1)
        self.assertRefused(await self.line.run("key", "remove", left[0]["slot"]), 2, "usage")
        self.assertRefused(await self.line.run("key", "remove", ids[1]), 10, "not_found")
        self.assertEqual((await self.backup()).summary["bytes_new"], 0)

    async def test_stolen_laptop(self) -> None:
        """After a new master key the old passphrase and the old kit open nothing, old and new
        points restore with the new one, and the first backup sends everything again."""
        make_files(self.source)
        await self.set_up()
        first = await self.backup()
        new = self.passphrase("after the theft")
        same = await self.line.run(
            "key", "rotate", "--new-master", "--new-passphrase-file",
            self.line.environment["CLOUDCONNECT_PASSPHRASE_FILE"],
        )  # fmt: skip
        self.assertIn("another passphrase", self.assertRefused(same, 2, "usage"))
        renewed = await self.line.run("key", "rotate", "--new-master", "--new-passphrase-file", new)
        self.assertStatus(renewed, 0)
        self.assertTrue(renewed.summary["new_master"])
        refused = await self.line.run("backup", self.source)
        self.assertRefused(refused, 13, "wrong_passphrase")
        thief = self.empty_machine("thief")
        words = ("--password-file", str(self.token), "--json")
        stolen = await self.run_command(
            "ls", "latest", "--host", "story-host", "--kit", str(self.kit), *words, **thief
        )
        self.assertIn("newer kit", self.assertRefused(stolen, 13, "wrong_passphrase"))
        self.line.environment["CLOUDCONNECT_PASSPHRASE_FILE"] = new
        second = await self.backup()
        self.assertEqual(second.summary["bytes_new"], first.summary["bytes_new"])
        self.assertEqual((await self.backup()).summary["bytes_new"], 0)
        for number, point in enumerate((first, second)):
            target = self.folder / f"restored-{number}"
            done = await self.line.run("restore", point.summary["point"], "--target", str(target))
            self.assertStatus(done, 0)
            self.assertEqual(
                compare_trees(os.fsencode(self.source), os.fsencode(f"{target}{self.source}")), []
            )

    async def test_rolled_back(self) -> None:
        """A provider that goes back to an older copy: every command that opens the repository ends
        with 20, before a point is opened or a chunk sent."""
        make_files(self.source)
        await self.set_up()
        point = (await self.backup()).summary["point"]
        there = (self.provider.directory / "repositories").iterdir()
        (folder,) = [path for path in there if path.is_dir()]
        await self.provider.stop()
        copy = self.folder / "copy"
        shutil.copytree(folder, copy)
        await self.provider.start()
        self.line.environment["CLOUDCONNECT_PROVIDER"] = f"localhost:{self.provider.port}"
        await self.backup()
        await self.provider.stop()
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
        await self.provider.start()
        self.line.environment["CLOUDCONNECT_PROVIDER"] = f"localhost:{self.provider.port}"
        commands = {
            "backup": ("backup", self.source),
            "restore": ("restore", point, "--target", str(self.folder / "target")),
            "ls": ("ls", point),
            "dump": ("dump", point, f"{self.source}/a"),
            "points": ("points", "--path", self.source),
            "check": ("check",),
            "find": ("find", "a"),
            "diff": ("diff", point, point),
            "key": ("key", "kit", "--output", str(self.folder / "kit")),
        }
        self.assertEqual(set(commands), dialogues())
        for name, command in commands.items():
            refused = await self.line.run(*command)
            text = self.assertRefused(refused, 20, "stored_data_damaged")
            self.assertIn("rolled back", text, name)
        self.assertFalse((self.folder / "target").exists())
        self.assertEqual(len(self.provider.rows("point", tenant="acme")), 1)


def dialogues() -> set[str]:
    """The commands in whose modules a session is started: none may be forgotten above."""
    found = set()
    for path in Path(cloudconnect.cli.__path__[0]).glob("*.py"):
        text = path.read_text("utf-8")
        if path.stem != "line" and ("line.session(" in text or "line.look(" in text):
            found.add(path.stem)
    more = {"restore": {"restore", "dump"}, "points": {"points", "ls"}, "connect": set()}
    more["published"] = {"backup"}  # a step of it
    return {name for stem in found for name in more.get(stem, {stem})}
