"""Accelerators that lie, and changes on the way between two, with real processes."""

from __future__ import annotations

from tests.attacks.fields import Line as Kind
from tests.attacks.fields import Part, Way
from tests.attacks.rules import Flip, at_payload, in_field
from tests.attacks.stage import make_files
from tests.story.processes import Done, Line, Process, Provider, StoryCase, in_front_of


class LiarTests(StoryCase):
    """Commands with ``--wan on`` that must not believe what they get."""

    async def connected(self, provider: Provider, port: int) -> Line:
        """A tenant with a repository whose content accelerators see."""
        line = Line(self, provider, port, self.token)
        del line.environment["CLOUDCONNECT_PASSPHRASE_FILE"]
        done = await line.run(
            "connect", line.environment["CLOUDCONNECT_PROVIDER"], "--encryption", "provider"
        )
        self.assertStatus(done, 0)
        return line

    async def provider(self, *lie: str) -> Provider:
        provider = Provider(self)
        self.token = provider.add_tenant(modes=["provider"])
        await provider.start(*lie)
        return provider

    def lying(self, line: Line, lie: str, *arguments: str) -> Process:
        """Start a command whose own accelerator lies."""
        return self.start(
            *("-m", "tests.attacks.lying", "tenant", *lie.split(), *arguments, "--json"),
            **line.environment,
        )

    async def judged(self, provider: Provider, done: Done, kind: str) -> None:
        """The command ended with 20; both ends have a warning of the kind; there is no point."""
        self.assertStatus(done, 20)
        self.assertEqual(kind, done.error["reason"])
        self.assertIn(kind, done.warnings)
        (started,) = (row for row in done.records if row.get("name") == "started")
        rows = await provider.listed("events", "--warnings")
        self.assertIn((kind, started["session"]), [(row["name"], row["session"]) for row in rows])
        self.assertEqual([], provider.rows("point", tenant="acme"))

    def source(self) -> str:
        path = self.folder / "source"
        if not path.exists():
            make_files(str(path))
        return str(path)

    async def test_target(self) -> None:
        """A provider whose accelerator flips a bit of a chunk after its checks."""
        provider = await self.provider("up", "CHUNK", "40")
        line = await self.connected(provider, provider.port)
        done = await line.run("backup", self.source(), "--wan", "on")
        await self.judged(provider, done, "frame_mismatch")
        direct = await line.run("backup", self.source(), "--wan", "off")
        self.assertStatus(direct, 0)

    async def test_source(self) -> None:
        """A tenant's own accelerator that flips a bit: of a chunk, and of an answer."""
        provider = await self.provider()
        line = await self.connected(provider, provider.port)
        for lie in ("up CHUNK 40", "up POINT -1", "down WELCOME 14"):
            process = self.lying(line, lie, "backup", self.source(), "--wan", "on")
            await self.judged(provider, await self.done(process), "frame_mismatch")

    async def test_between(self) -> None:
        """A bit flipped on the way between the accelerators, and in the tunnel to one."""
        provider = await self.provider()
        proxy = in_front_of(self, provider.port)
        line = await self.connected(provider, proxy.port)
        for rule, kind in (
            (Flip(Kind.STREAM, Way.UP, at_payload(2000)), "tampered"),
            (Flip(Kind.STREAM, Way.DOWN, in_field(Part.BODY, 3)), "tampered"),
            (Flip(Kind.TUNNEL, Way.UP, in_field(Part.MESSAGE, 12, 0)), "key_a_rejected"),
        ):
            proxy.rules = [rule]
            done = await line.run("backup", self.source(), "--wan", "on")
            self.assertIsNotNone(rule.hit)
            await self.judged(provider, done, kind)
        proxy.rules = []
        done = await line.run("backup", self.source(), "--wan", "on")
        self.assertStatus(done, 0)
        self.assertEqual([], done.warnings)
        self.assertTrue(done.summary["wan"]["used"])
