"""Tests of :mod:`cloudconnect.config.wan_machines`: who is let in at a tenant's accelerator."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.config.node_certificates import install_node_certificate, make_node_request
from cloudconnect.config.wan import add_client, initialize
from cloudconnect.errors import ProtocolViolation, Refused, UsageError
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import JOB_MANAGER


def spki_in(folder: Path, prefix: str = "") -> str:
    """The fingerprint of a machine's key."""
    identity = ServerIdentity(str(folder / f"{prefix}certificate.pem"), str(folder / "key.pem"))
    return identity.fingerprints()[0]


class MachineTests(SynchronousTestCase):
    """A machine with a folder, and its accelerator."""

    def setUp(self) -> None:
        self.settings = initialize(Path(self.mktemp()), "tcp:6183")
        self.machines = self.settings.machines
        self.folder = add_client(self.settings, "laptop", Path(self.mktemp()))
        self.first = spki_in(self.folder)

    def renewed(self, shown: str | None = None, name: str = "laptop") -> str:
        """The fingerprint of the next key."""
        request = make_node_request(self.folder, JOB_MANAGER, name, "next-")
        made = self.machines.renew(name, shown or self.first, request)
        install_node_certificate(self.folder, JOB_MANAGER, name, *made, "next-")
        return spki_in(self.folder, "next-")

    def test_renewed(self) -> None:
        """Both certificates are taken until the next one was shown; then only that one."""
        following = self.renewed()
        self.assertNotEqual(self.first, following)
        self.machines.admit("laptop", self.first)
        self.machines.admit("laptop", following)
        error = self.assertRaises(Refused, self.machines.admit, "laptop", self.first)
        self.assertIn("another certificate", str(error))
        self.settings.machines.admit("laptop", following)

    def test_again(self) -> None:
        """Who has lost the answer asks again; what it got first is worth nothing then."""
        lost = self.renewed()
        following = self.renewed()
        self.assertRaises(Refused, self.machines.admit, "laptop", lost)
        self.machines.admit("laptop", following)

    def test_old_line(self) -> None:
        """A line that was opened with a certificate that is worth nothing now gets no other one."""
        self.machines.admit("laptop", self.renewed())
        request = make_node_request(self.folder, JOB_MANAGER, "laptop", "next-")
        self.assertRaises(Refused, self.machines.renew, "laptop", self.first, request)

    def test_removed(self) -> None:
        """Who was removed is not let in and gets nothing, until it gets another folder."""
        following = self.renewed()
        self.machines.remove("laptop")
        for spki in (self.first, following):
            self.assertRaises(Refused, self.machines.admit, "laptop", spki)
            self.assertRaises(Refused, self.renewed, spki)
        again = add_client(self.settings, "laptop", Path(self.mktemp()))
        self.machines.admit("laptop", spki_in(again))
        self.assertRaises(Refused, self.machines.admit, "laptop", self.first)

    def test_older(self) -> None:
        """A machine that an older release has let in is taken as before, and may be removed."""
        path = self.settings.directory / "machines.json"
        path.unlink()
        self.machines.admit("laptop", self.first)
        self.machines.admit("laptop", self.renewed())
        self.assertRaises(Refused, self.machines.admit, "laptop", self.first)
        path.unlink()
        self.machines.remove("laptop")
        self.assertRaises(Refused, self.machines.admit, "laptop", self.first)

    def test_others(self) -> None:
        """What happens to one machine is nothing to another one."""
        other = add_client(self.settings, "desktop", Path(self.mktemp()))
        self.machines.remove("laptop")
        self.machines.admit("desktop", spki_in(other))
        path = self.settings.directory / "machines.json"
        self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode))

    def test_owner(self) -> None:
        """Where root changes it, it stays readable for whom the directory belongs to."""
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        os.chown(self.settings.directory, 12345, 12345)
        self.machines.remove("laptop")
        found = (self.settings.directory / "machines.json").stat()
        self.assertEqual((12345, 12345), (found.st_uid, found.st_gid))

    def test_given_away(self) -> None:
        """Nor does root give anything else away, whatever that user puts in the file's place."""
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        os.chown(self.settings.directory, 12345, 12345)
        victim = Path(self.mktemp()).absolute()
        victim.write_text("root's")
        chown, fchown = os.chown, os.fchown

        def exchange() -> None:
            for path in self.settings.directory.glob("*machines.json*"):
                path.unlink()
                path.symlink_to(victim)

        def by_name(path: Any, user: int, group: int, **values: Any) -> None:
            exchange()
            chown(path, user, group, **values)

        def by_descriptor(descriptor: int, user: int, group: int) -> None:
            exchange()
            fchown(descriptor, user, group)

        self.patch(os, "chown", by_name)
        self.patch(os, "fchown", by_descriptor)
        self.machines.remove("laptop")
        found = victim.stat()
        self.assertEqual((0, 0), (found.st_uid, found.st_gid))
        self.assertEqual("root's", victim.read_text())

    def test_unreadable(self) -> None:
        """Where it cannot be read who was removed nobody is let in."""
        path = self.settings.directory / "machines.json"
        for text in ("", "[]", "{", '{"laptop": 5}', '{"laptop": {"spki": null}}'):
            path.write_text(text)
            self.assertRaises(UsageError, self.machines.admit, "laptop", self.first)

    def test_requests(self) -> None:
        """What is no request, or too long, gets nothing and changes nothing."""
        before = (self.settings.directory / "machines.json").read_bytes()
        self.assertRaises(Refused, self.machines.renew, "laptop", self.first, b"no request")
        self.assertRaises(ProtocolViolation, self.machines.renew, "laptop", self.first, bytes(5000))
        self.assertEqual(before, (self.settings.directory / "machines.json").read_bytes())
