"""Tests of :mod:`cloudconnect.cli.wan_nodes`: making the directories of accelerators."""

from __future__ import annotations

from cloudconnect.config.wan import Side, load
from cloudconnect.errors import Refused
from tests.cli.commands import CommandCase


class NodeTests(CommandCase):
    """The commands that make directories."""

    def test_enroll(self) -> None:
        """The provider's accelerator is made; what is still missing at the provider is said."""
        provider = ("--directory", str(self.home / "provider"))
        self.assertEqual(0, self.call("provider", "init", *provider, "--host", "a.example").status)
        output = self.home / "accelerator"
        words = ("provider", "wan", "enroll", "one", *provider, "--output", str(output))
        addresses = ("--service", "10.0.0.1:6181", "--backend", "10.0.0.6:6183")
        done = self.call(*words, *addresses)
        self.assertEqual(0, done.status, done.err)
        self.assertIn("cloudconnect-wan --directory", done.out)
        self.assertIn("lan_listen", done.err)
        settings = load(output)
        self.assertEqual((Side.TARGET, "10.0.0.6:6183"), (settings.side, settings.backend))
        self.assertEqual(2, self.call(*words, *addresses).status)  # it is there
        words = ("provider", "wan", "enroll", "two", *provider, "--output", str(self.home / "two"))
        (line,) = self.call(*words, *addresses, "--json").lines()
        self.assertEqual(
            ("accelerator", "two", str(self.home / "two"), "10.0.0.6:6183"),
            (line["message_type"], line["name"], line["directory"], line["backend"]),
        )

    def test_init_and_client(self) -> None:
        """A tenant's accelerator and what a machine needs are made, and what to do next is said."""
        directory = self.home / "branch"
        done = self.call("wan", "init", "--directory", str(directory))
        self.assertEqual(0, done.status, done.err)
        self.assertIs(Side.SOURCE, load(directory).side)
        self.assertIn("wan client", done.out)
        machine = self.home / "laptop"
        words = ("wan", "client", "laptop", "--directory", str(directory), "--output", str(machine))
        done = self.call(*words)
        self.assertEqual(0, done.status, done.err)
        self.assertIn(f"CLOUDCONNECT_WAN_NODE={machine}", done.out)
        self.assertTrue((machine / "key.pem").is_file())
        self.assertEqual(2, self.call(*words).status)

    def test_remove(self) -> None:
        """A machine is removed, and comes back with another folder; of the provider's accelerator
        there is none to remove."""
        directory = self.home / "branch"
        self.call("wan", "init", "--directory", str(directory))
        words = ("laptop", "--directory", str(directory))
        self.call("wan", "client", *words, "--output", str(self.home / "one"))
        identity = load(directory).machines
        done = self.call("wan", "remove", *words, "--json")
        self.assertEqual((0, True), (done.status, done.lines()[0]["removed"]))
        self.assertRaises(Refused, identity.admit, "laptop", "SPKI-SHA256:any")
        self.assertEqual(2, self.call("wan", "remove", "No Name", *words[1:]).status)
        settings = load(directory).to_toml().replace('"source"', '"target"')
        (directory / "wan.toml").write_text(settings + 'service = "a:1"\nbackend = "b:2"\n')
        self.assertEqual(2, self.call("wan", "remove", *words).status)

    def test_for_programs(self) -> None:
        """Programs are told of both in a line each."""
        directory, machine = self.home / "branch", self.home / "laptop"
        (made,) = self.call("wan", "init", "--directory", str(directory), "--json").lines()
        self.assertEqual(("accelerator", str(directory)), (made["message_type"], made["directory"]))
        words = ("wan", "client", "laptop", "--directory", str(directory), "--output", str(machine))
        (made,) = self.call(*words, "--json").lines()
        self.assertEqual(
            ("client", "laptop", str(machine)),
            (made["message_type"], made["name"], made["directory"]),
        )
