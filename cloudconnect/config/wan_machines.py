"""Layer 5: which machines a tenant's own WAN accelerator takes, and with which certificates.

``machines.json`` in its directory. A machine that got its next certificate may show that one and
the one before it, until it has shown the next one: with that the other one is worth nothing. One
that was removed is not taken with any. Machines that are not in the file have a folder of an older
release: whatever certificate of theirs the authority has issued is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cloudconnect.commands.enrolling import REQUEST_MAX
from cloudconnect.config.node_certificates import sign_node_request
from cloudconnect.errors import ProtocolViolation, Refused, UsageError
from cloudconnect.transports.nodes import JOB_MANAGER

_FILE: Final = "machines.json"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Machines:
    """The machines of one accelerator; its methods block, for some milliseconds.

    :param directory: the accelerator's
    :param authority: folder of the small authority
    """

    def __init__(self, directory: Path, authority: Path) -> None:
        self._directory = directory
        self._authority = authority

    def admit(self, name: str, spki: str) -> None:
        """Judge a machine that has proved its certificate.

        :param spki: fingerprint of the key that it has proved
        :raises Refused: it was removed, or has another certificate by now
        :raises UsageError: the file cannot be read: then nobody is let in
        """
        if _judge(self._read(), name, spki):
            with self._changing() as machines:
                _judge(machines, name, spki)  # somebody may have removed it just now
                machines[name] = {"spki": spki, "next": None}

    def renew(self, name: str, spki: str, request: bytes) -> tuple[bytes, bytes]:
        """Issue the next certificate of a machine; certificate and authority, PEM.

        :param spki: fingerprint of the key that it has proved, maybe long ago
        :param request: PKCS #10, DER
        :raises Refused: it is no request, or the machine is not taken with that key any more
        :raises ProtocolViolation: it is too long
        """
        if len(request) > REQUEST_MAX:
            raise ProtocolViolation(f"a request has at most {REQUEST_MAX} bytes")
        with self._changing() as machines:
            _judge(machines, name, spki)
            certificate, authority, following = sign_node_request(
                self._authority, JOB_MANAGER, name, request
            )
            machines[name] = {"spki": spki, "next": following}
        return certificate, authority

    def issued(self, name: str, spki: str) -> None:
        """A machine got a folder by hand: it is taken with that certificate, and no other one."""
        with self._changing() as machines:
            machines[name] = {"spki": spki, "next": None}

    def remove(self, name: str) -> None:
        """Take a machine's certificate back, also where it is not known."""
        with self._changing() as machines:
            machines[name] = {"spki": None, "next": None}

    def _read(self) -> dict[str, dict[str, Any]]:
        path = self._directory / _FILE
        try:
            machines = json.loads(path.read_bytes())
            if any(set(entry) != {"spki", "next"} for entry in machines.values()):
                raise ValueError("other fields")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UsageError(f"{path} cannot be used: {error}") from None
        found: dict[str, dict[str, Any]] = machines
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """All of them, to be changed; nobody else changes them meanwhile."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            machines = self._read()
            yield machines
            self._write(json.dumps(machines, indent=1).encode(), descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _write(octets: bytes, directory: int) -> None:
        """Write the file, whole or not at all, for whom the directory belongs to: root's own would
        keep the accelerator's user from it.

        The owner is changed by the descriptor: by its name that user could have root give away
        whatever file it has put in its place.
        """
        following = f"{_FILE}.next"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(following, dir_fd=directory)
        descriptor = os.open(following, _NEW, 0o600, dir_fd=directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            if os.geteuid() == 0:
                owner = os.fstat(directory)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fsync(descriptor)
        os.replace(following, _FILE, src_dir_fd=directory, dst_dir_fd=directory)


def _judge(machines: dict[str, dict[str, Any]], name: str, spki: str) -> bool:
    """Whether a machine shows its next certificate for the first time.

    :raises Refused: it is not taken with this one
    """
    entry = machines.get(name)
    if entry is None or entry["spki"] == spki:
        return False
    if entry["spki"] is None:
        raise Refused(f"machine {name} was removed")
    if entry["next"] != spki:
        raise Refused(f"machine {name} has another certificate by now")
    return True
