"""The model of the key exchange in ``docs/model``: its short form, and what its page says of it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "docs" / "model"

#: The flaws that the model was asked to find.
ASKED = {
    "one-key-a",
    "no-exporter",
    "reusable-key-a",
    "no-confirmation",
    "raw-key-b",
    "plan-unbound",
    "gateway-ends-tls",
    "tags-from-key-b",
}


def rules() -> dict[str, str]:
    """The label of each rule of the model, with its metadata."""
    text = (MODEL / "protocol.maude").read_text("utf-8")
    return dict(re.findall(r"rl \[([a-z-]+)\] :.*?\[metadata \"([^\"]*)\"\] \.", text, re.DOTALL))


class ShortFormTests(SynchronousTestCase):
    """``make model-short``: what takes seconds."""

    if importlib.util.find_spec("maude") is None:
        skip = "PyPI maude is not installed; its wheels are for some platforms only"

    def run_check(self, *options: str) -> tuple[int, list[str], dict[str, Any]]:
        """The exit status, the lines but the last, and what the last one says."""
        done = subprocess.run(
            [sys.executable, str(MODEL / "check.py"), *options],
            capture_output=True,
            text=True,
            timeout=300,
        )
        *lines, last = done.stdout.splitlines() or [""]
        self.assertTrue(last.startswith("{"), done.stdout[-2000:] + done.stderr[-2000:])
        return done.returncode, lines, json.loads(last)

    def test_short_form(self) -> None:
        """Every property holds in every scenario, and every planted flaw is found, with a trace."""
        status, lines, result = self.run_check("--short")
        self.assertEqual((0, []), (status, result["wrong"]), "\n".join(lines))
        self.assertEqual(result["properties"], result["properties_held"])
        self.assertGreater(result["scenarios"], 10)
        self.assertGreater(result["states"], 1000)
        self.assertEqual(set(), ASKED - set(result["found"]))
        self.assertEqual(result["flaws"], result["flaws_found"])
        steps = [line for line in lines if re.match(r" +\d+\. \(sections? \d[\d, ]*\) \S", line)]
        self.assertEqual(sum(flaw["steps"] for flaw in result["found"].values()), len(steps))

    def test_failure(self) -> None:
        """A scenario with a flaw in it is reported, with the way there, and ends with status 1."""
        program = (
            "import sys, scenarios, dataclasses;"
            "worse = dataclasses.replace(scenarios.SCENARIOS[0], switches=('reusable-key-a',));"
            "scenarios.SCENARIOS[:] = [worse];"
            "scenarios.FLAWS[:] = [dataclasses.replace(scenarios.FLAWS[3], broken='no-replay')];"
            "import check; sys.argv = ['check.py', '--short']; check.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=MODEL,
        )
        result = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertEqual(["alice and bob, direct", "no-confirmation"], result["wrong"])
        self.assertLess(result["properties_held"], result["properties"])
        self.assertIn("BROKEN no-replay", done.stdout)
        self.assertIn("NOT FOUND: no-replay", done.stdout)


class PageTests(SynchronousTestCase):
    """The model against its page and the protocol; these need no Maude."""

    page = (MODEL / "README.rst").read_text("utf-8")

    def test_steps(self) -> None:
        """Each rule stands in the table, with the sections that it names itself."""
        table = {
            name: row[1]
            for row in re.findall(r"\* - ((?:``[a-z-]+``(?:, )?)+)\n +- ([\d, ]+)\n", self.page)
            for name in re.findall(r"``([a-z-]+)``", row[0])
        }
        self.assertEqual(table, {name: text.split("|")[0] for name, text in rules().items()})

    def test_sections(self) -> None:
        """The sections that rules name exist in the protocol, and rules explain themselves."""
        protocol = (ROOT / "docs" / "protocol.rst").read_text("utf-8")
        known = set(re.findall(r"^(\d+)\. .+\n-+$", protocol, re.MULTILINE))
        self.assertIn("10", known)
        for name, text in rules().items():
            sections, _, sentence = text.partition("|")
            self.assertEqual(set(), set(sections.split(", ")) - known, name)
            self.assertGreater(len(sentence), 20, name)

    def test_flaws(self) -> None:
        """The page names each switch, and says that this is no proof."""
        text = (MODEL / "protocol.maude").read_text("utf-8")
        switches = re.search(r"planted flaws.*?\n  ops (.*?) : -> Bool", text, re.DOTALL)
        assert switches is not None
        found = set(switches[1].split())
        self.assertEqual(set(), ASKED - found)
        self.assertEqual(set(), {name for name in found if f"* - ``{name}``" not in self.page})
        self.assertIn("**This is bounded checking and not a proof.**", self.page)
