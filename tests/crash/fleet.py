"""A provider whose roles are processes of their own, and tenants that use it."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from typing import Any, Final

import attrs

from tests.crash.forks import Child
from tests.crash.namespaces import Namespaces
from tests.crash.stage import PATIENCE, Command, Failed, _be_tenant, check_text

#: What each kind of node is called: its role, the settings of its place, its plugin.
KINDS: Final = {
    "gateway": "cloudconnect-gateway",
    "mover": "cloudconnect-datamover",
    "wan": "cloudconnect-wan",
}
SERVICE: Final = "service"
REGISTERED: Final = re.compile(r"[^t] registered with the service, |\] registered with the serv")
#: What a process says when it can be used.
_READY: Final = {SERVICE: "provider is ready", **dict.fromkeys(KINDS, "#info] registered with")}
_PORT: Final = {SERVICE: 6181, "gateway": 6180, "mover": 6184, "wan": 6183}
_BACK_END: Final = 6182
_PACK_SIZE: Final = 256 << 10
_PASSPHRASE: Final = b"passphrase of the churn\n"


@attrs.define
class Member:
    """One process of the fleet, while it runs or not."""

    name: str
    kind: str
    address: str
    port: int
    directory: Path
    child: Child | None = None
    starts: int = 0

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"


class Fleet:
    """A service, gateways, movers over one storage, and WAN accelerators.

    :param folder: is made; everything lies in it
    :param numbers: how many there are of each kind of node
    :param tenants: how many tenants there are; each second one's repository is of mode ``provider``
    :param spaces: gives each process a host of its own; None: all are on loopback
    """

    def __init__(
        self, folder: Path, numbers: dict[str, int], tenants: int, spaces: Namespaces | None
    ) -> None:
        self.folder = folder
        self._spaces = spaces
        self._numbers = 0
        folder.mkdir(mode=0o700)
        self.members: dict[str, Member] = {}
        self._add(SERVICE, SERVICE)
        self._back_end = _BACK_END if spaces is not None else _free_port()
        for kind, number in numbers.items():
            for index in range(number):
                self._add(f"{kind}{index + 1}", kind)
        if spaces is not None:
            spaces.add("tenants")
        self.tenants = [f"tenant{number:02}" for number in range(tenants)]
        made = Child(self._make, folder / "make.log")
        if not made.wait(PATIENCE) or made.status != 0:
            raise Failed(made.text())
        self.pin = (folder / "pin").read_text()
        (folder / "passphrase").write_bytes(_PASSPHRASE)

    def _add(self, name: str, kind: str) -> None:
        spaces = self._spaces
        address = "127.0.0.1" if spaces is None else spaces.add(name)
        port = _free_port() if spaces is None else _PORT[kind]
        self.members[name] = Member(name, kind, address, port, self.folder / name)

    def of(self, kind: str) -> list[Member]:
        """The members of a kind."""
        return [member for member in self.members.values() if member.kind == kind]

    # --- how it is made: in a process of its own, what opens a data base should not be forked ----

    def _make(self) -> None:
        from cloudconnect.config.provider import CONFIGURATION, initialize
        from tests.attacks.stage import add_tenant

        service = self.members[SERVICE]
        hosts = sorted({member.address for member in self.of("gateway")})
        settings = initialize(service.directory, tuple(hosts))
        settings = attrs.evolve(
            settings,
            roles=("service",),
            lan_listen=f"tcp:{service.port}:interface={service.address}",
            backend_listen=f"tcp:{self._back_end}:interface={service.address}",
            backend_address=f"{service.address}:{self._back_end}",
        )
        (service.directory / CONFIGURATION).write_text(settings.to_toml())
        for number, tenant in enumerate(self.tenants):
            (self.folder / tenant).mkdir(mode=0o700)
            modes = [self.mode(number)]
            token = add_tenant(settings, tenant, max_tasks=1000, modes=modes)
            (self.folder / tenant / "token").write_bytes(token + b"\n")
        (self.folder / "pin").write_text(settings.identity.fingerprints()[0])
        for member in self.members.values():
            if member.kind != SERVICE:
                self._make_node(settings, member)

    def _make_node(self, settings: Any, member: Member) -> None:
        from cloudconnect.commands.enrolling import NodeInvitation
        from cloudconnect.config.joining import SPOKEN, NodePlace, configuration
        from cloudconnect.config.node_certificates import issue_node_certificate
        from cloudconnect.keys import EnrollmentToken

        role, storage = SPOKEN[member.kind], self.folder / "storage"
        member.directory.mkdir(mode=0o700)
        issue_node_certificate(settings.node_authority, member.name, role, member.directory)
        token = EnrollmentToken.generate()
        invitation = NodeInvitation(
            role, member.name, self.members[SERVICE].place, bytes(16), token
        )
        place = NodePlace(
            listen=f"tcp:{member.port}:interface={member.address}",
            backend=member.place,
            advertise=member.place if member.kind == "gateway" else "",
            repositories=str(storage / "repositories"),
            keys=str(storage / "keys"),
        )
        name, text = configuration(invitation, member.directory, place)
        (member.directory / name).write_text(text)

    @staticmethod
    def mode(number: int) -> str:
        """The encryption mode of a tenant's repository, by its number."""
        return "provider" if number % 2 else "tenant"

    # --- processes -------------------------------------------------------------------------------

    def start(self, *members: Member) -> None:
        """Start processes, and wait until each can be used.

        :raises Failed: one cannot
        """
        for member in members:
            member.starts += 1
            log = self.folder / f"{member.name}.{member.starts}.log"
            member.child = Child(
                lambda member=member: self._be(member), log, _environment(self.folder)
            )
        for member in members:
            self.wait_until(lambda member=member: self._is_ready(member), f"{member.name} is ready")

    def _is_ready(self, member: Member) -> bool:
        assert member.child is not None
        if member.child.wait(0):
            raise Failed(f"{member.name} has ended: {member.child.text()}")
        return _READY[member.kind] in member.child.text()

    def registrations(self) -> int:
        """How often the nodes that run now have registered."""
        texts = [m.child.text() for m in self.members.values() if m.child and m.kind != SERVICE]
        return sum(text.count(_READY["mover"]) for text in texts)

    def wait_until(self, done: Any, what: str, seconds: float = PATIENCE) -> None:
        """Look again and again.

        :raises Failed: it takes too long
        """
        poll = self.members[SERVICE].child
        for _ in range(int(seconds / 0.1)):
            if done():
                return
            assert poll is not None
            if poll.wait(0.1) and poll is self.members[SERVICE].child:
                raise Failed(f"the service has ended: {poll.text()}")
        raise Failed(f"not in {seconds:g} s: {what}")

    def stop(self, member: Member, number: int = signal.SIGTERM) -> None:
        """End a process: by a signal that it ends cleanly by, or by SIGKILL.

        :raises Failed: it has met a bug, or does not end
        """
        child, member.child = member.child, None
        assert child is not None
        child.send(number)
        if not child.wait(PATIENCE):
            child.kill()
            raise Failed(f"{member.name} does not end: {child.text()}")
        check_text(member.name, child.text())

    def stop_all(self) -> None:
        """Leave nothing behind, however things went."""
        for member in self.members.values():
            if member.child is not None:
                member.child.kill()

    def _be(self, member: Member) -> None:
        from twisted.application.twist._twist import Twist

        from cloudconnect.repository import packs

        self._enter(member.name)
        packs.PACK_SIZE = _PACK_SIZE  # type: ignore[misc]
        plugin = KINDS.get(member.kind, "cloudconnect-provider")
        words = ["twist", "--log-format=text", plugin, "--directory", str(member.directory)]
        Twist.main(words)

    def _enter(self, name: str) -> None:
        if self._spaces is not None:
            self._spaces.enter(name)

    # --- commands --------------------------------------------------------------------------------

    def administer(self, *arguments: str) -> Command:
        """Start a command of the provider's admin, with ``--json``."""
        log = self._numbered("admin.log")
        directory = str(self.members[SERVICE].directory)
        words = ["provider", *arguments, "--json", "--directory", directory]
        child = Child(lambda: _be_tenant(words, None), log, _environment(self.folder))
        return Command(arguments, child, log.with_suffix(".notes"))

    def command(self, number: int, gateway: Member, *arguments: str) -> Command:
        """Start a command of a tenant's, with ``--json``, through a gateway."""
        tenant = self.tenants[number]
        home = self.folder / tenant
        environment = {
            **_environment(home),
            "CLOUDCONNECT_HOST": f"host-of-{tenant}",
            "CLOUDCONNECT_TENANT": tenant,
            "CLOUDCONNECT_PASSWORD_FILE": str(home / "token"),
            "CLOUDCONNECT_PROVIDER": gateway.place,
            "CLOUDCONNECT_FINGERPRINT": self.pin,
            "CLOUDCONNECT_ENCRYPTION": self.mode(number),
        }
        if self.mode(number) == "tenant":
            environment["CLOUDCONNECT_PASSPHRASE_FILE"] = str(self.folder / "passphrase")
        words = [*arguments, "--json"]

        def be() -> None:
            self._enter("tenants")
            _be_tenant(words, None)

        log = self._numbered(f"{tenant}.log")
        return Command(arguments, Child(be, log, environment), log.with_suffix(".notes"))

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a listing of the admin's says.

        :raises Failed: it fails
        """
        command = self.administer(*arguments)
        if command.finish() != 0:
            raise Failed(f"{arguments}: {command.child.text()}")
        return command.records

    def _numbered(self, name: str) -> Path:
        self._numbers += 1
        return self.folder / f"{self._numbers:05}-{name}"


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home)}


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    return port
