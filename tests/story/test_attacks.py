"""A changed byte and a cut line, with real processes: what the tenant and the admin see."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attacks.fields import END, Part, Way
from tests.attacks.fields import Line as Kind
from tests.attacks.rules import Cut, Flip, Rule, at_payload, in_field
from tests.attacks.stage import make_files
from tests.story.processes import Line, Provider, StoryCase, in_front_of

TUNNEL, STREAM = Kind.TUNNEL, Kind.STREAM


def attacks() -> Iterator[tuple[Rule, int, str]]:
    """What is done, the exit code, and the kind of warning at both ends."""
    yield Flip(STREAM, Way.UP, in_field(Part.PREAMBLE, 9)), 22, "truncated"
    yield Flip(TUNNEL, Way.UP, in_field(Part.MESSAGE, 12, 0)), 20, "key_a_rejected"
    yield Flip(TUNNEL, Way.DOWN, in_field(Part.MESSAGE, 30, 1)), 20, "tampered"
    yield Flip(STREAM, Way.UP, at_payload(9000)), 20, "tampered"
    yield Flip(STREAM, Way.UP, in_field(Part.BODY, 7, type=END)), 20, "tampered"
    yield Cut(STREAM, Way.UP, at_payload(9000)), 22, "truncated"


class AttackTests(StoryCase):
    """Backups through a proxy that is not honest."""

    async def test_attacks(self) -> None:
        """The right exit code, a warning of the right kind at both ends, and no restore point.

        What was changed on the way is never tried again; a broken line is not with --retry 0.
        """
        provider = Provider(self)
        token = provider.add_tenant()
        await provider.start()
        proxy = in_front_of(self, provider.port)
        line = Line(self, provider, proxy.port, token)
        self.assertStatus(await line.connect(), 0)
        kinds: dict[str, str] = {}
        for number, (rule, status, kind) in enumerate(attacks()):
            source = str(self.folder / f"source-{number}")
            make_files(source)
            proxy.rules = [rule]
            options = ("--retry", "0") if status == 22 else ()
            done = await line.run("backup", source, *options)
            self.assertIsNotNone(rule.hit, rule)
            self.assertStatus(done, status)
            self.assertEqual(done.error["code"], status)
            self.assertIn(kind, done.warnings, rule)
            (started,) = (row for row in done.records if row.get("name") == "started")
            kinds[started["session"]] = kind
        for row in await provider.listed("events", "--warnings"):
            if row["name"] == kinds.get(row["session"]):
                del kinds[row["session"]]
        self.assertEqual(kinds, {}, "sessions whose warning the admin does not see")
        self.assertEqual(provider.rows("point", tenant="acme"), [])
        proxy.rules = []
        clean = await line.run("backup", str(self.folder / "source-0"))
        self.assertStatus(clean, 0)
        self.assertEqual(clean.warnings, [])
