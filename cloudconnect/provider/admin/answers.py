"""Layer 4: what those have in common who answer an admin's commands, each its own subject.

Each command is declared once, in :mod:`cloudconnect.commands.admin`; these are its acts, whether it
came through the admin socket or the command line does it on the directory itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.amp import CommandLocator

from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.admin.reach import Reach


class AdminAnswers(CommandLocator):
    """Answers some of an admin's commands.

    :param administration: does them, blocking
    :param in_accounts_thread: runs a blocking call and fires with its result
    :param reach: what they reach beside the accounts
    """

    def __init__(
        self,
        administration: Administration,
        in_accounts_thread: Callable[..., Deferred[Any]],
        reach: Reach,
    ) -> None:
        super().__init__()
        self._administration = administration
        self._run = in_accounts_thread
        self._reach = reach
