"""Layer 6: the connection to the provider, opened while the program is still being loaded.

Where the provider is depends on nothing but the profile, and a way there and back may take as long
as all of the program's modules. So the name is looked up, and TCP connects, in a thread of its own
before they are imported. What is sent on the connection, and whether whoever answers is trusted, is
decided where it always is. One that is not there when it is wanted, or has broken meanwhile, is as
if it had never been: then the reactor connects.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from cloudconnect.cli.side_by_side import connect_first
from cloudconnect.config.profile import Profile
from cloudconnect.errors import UsageError
from cloudconnect.settings import CONNECT_SECONDS

#: What is not connected after so many seconds more, the reactor tries in its own way: by then two
#: ways there and back over a slow line have passed, and four of the host's addresses were tried.
PATIENCE_SECONDS: Final = 1.0

#: Where a login password, or a command that prints it, comes from beside the profile.
_PASSWORDS: Final = ("CLOUDCONNECT_PASSWORD_FILE", "CLOUDCONNECT_PASSWORD_COMMAND")
#: One or more options of one letter each.
_SHORT: Final = re.compile("-[^-]")


class Dialled:
    """One TCP connection, opened ahead of time.

    :param host: host name or address
    :param port: TCP port
    :ivar place: the two
    """

    def __init__(self, host: str, port: int) -> None:
        self.place = (host, port)
        self._lock = threading.Lock()
        self._wanted = True
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._connect, name="cloudconnect-dial", daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        with contextlib.suppress(OSError, UnicodeError):  # who connects then gets the error
            made = connect_first(self.place, CONNECT_SECONDS, lambda: self._wanted)
            with self._lock:
                if self._wanted:
                    self._socket = made
                else:
                    made.close()

    @property
    def over(self) -> bool:
        """Whether it is there, or has failed."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait until it is there or has failed, but no longer than :data:`PATIENCE_SECONDS`."""
        self._thread.join(PATIENCE_SECONDS)

    def take(self) -> socket.socket | None:
        """The connection, once; it is the caller's then. None where there is none that lasts."""
        with self._lock:
            made, self._socket, self._wanted = self._socket, None, False
        if made is None or not select.select([made], [], [], 0)[0]:
            return made
        made.close()  # a provider is silent until it is spoken to: this is an end
        return None


def dial(
    profile: Profile | None, arguments: Sequence[str], environment: Mapping[str, str]
) -> Dialled | None:
    """Begin to connect, where the command will certainly do so, and nobody is asked before.

    :param profile: by which the command will go, as
        :func:`~cloudconnect.cli.foreseen.foreseen` has found it
    :param arguments: of the command line
    """
    if profile is None or not (profile.provider and profile.tenant):
        return None
    if any(environment.get(name) for name in _PASSWORDS):
        return None
    secret = profile.passphrase_file or profile.key_file or profile.encryption != "tenant"
    if not (secret and (profile.password_file or profile.certificate)):
        return None
    if any(_SHORT.match(word) and "n" in word for word in arguments):  # a dry run sends nothing
        return None
    with contextlib.suppress(UsageError):
        return Dialled(*profile.address)
    return None
