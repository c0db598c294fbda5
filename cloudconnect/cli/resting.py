"""Layer 6: an admin's acts on a provider's directory itself, where no provider runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import maybeDeferred

from cloudconnect.cli.administering import Acts
from cloudconnect.commands.admin import Reload
from cloudconnect.commands.answering import find_responder
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import CloudConnectError, LocalError
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.admin.reach import RestingProvider
from cloudconnect.provider.admin.socket import admin_answers
from cloudconnect.provider.audit.auditing import act_name, admin_entry, append_now, is_act
from cloudconnect.provider.audit.log import AuditLog
from cloudconnect.provider.data_mover.reserve import Reserve


class ActsHere:
    """The acts on a directory on which no provider runs.

    :param administration: does them
    """

    def __init__(self, administration: Administration) -> None:
        reach = RestingProvider(administration)
        self._answers = admin_answers(administration, maybeDeferred, reach)

    async def call(self, command: type[BoundedCommand], **arguments: Any) -> dict[str, Any]:
        """Do it at once."""
        found = find_responder(self._answers, command.commandName)
        if found is None:
            raise LocalError(f"nobody does {command.__name__}")
        answer: dict[str, Any] = await maybeDeferred(found[1], **arguments)
        return answer


class Audited:
    """Passes acts on, and writes down in the audit log what was done; what only looks is not.

    :param acts: who does them
    """

    def __init__(self, acts: Acts, log: AuditLog) -> None:
        self._acts = acts
        self._log = log

    async def call(self, command: type[BoundedCommand], **arguments: Any) -> dict[str, Any]:
        """Do it, and write it down."""
        if not is_act(command) or command is Reload:  # which does nothing where none runs
            return await self._acts.call(command, **arguments)
        outcome = "failed"
        try:
            answer = await self._acts.call(command, **arguments)
            outcome = "done"
        except CloudConnectError as error:
            outcome = error.reason
            raise
        finally:
            entry = admin_entry(act_name(command.__name__), arguments, outcome)
            append_now(self._log, [entry])
        return answer


@contextlib.contextmanager
def acts_here(settings: ProviderSettings) -> Iterator[Acts]:
    """The acts on the directory of these settings, which the caller has for himself."""
    accounts = Accounts(settings.accounts_url)
    try:
        reserve = Reserve(settings.reserve)
        administration = Administration(
            accounts, settings.repositories, reserve, settings.removed_days
        )
        acts: Acts = ActsHere(administration)
        if not settings.read_only:
            acts = Audited(acts, AuditLog(settings.audit, accounts))
        yield acts
    finally:
        accounts.close()
