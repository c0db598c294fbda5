"""Layer 4: what looks on while a provider works, put together.

The audit log, usage, expected backups, and what forgets all of it after its days.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.alarms.expected import FORGOTTEN_SECONDS, ExpectedBackups, told_name
from cloudconnect.provider.alarms.jumps import JumpWatch
from cloudconnect.provider.audit.auditing import Auditor
from cloudconnect.provider.audit.log import AuditLog
from cloudconnect.provider.history.forgetting import Forgetting, forgetter
from cloudconnect.provider.history.keep import Keep
from cloudconnect.provider.one_thread import OneThread
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.usage import UsageRecorder, keep_measured


def oversee(
    reactor: Any,
    service: CloudConnectService,
    accounts: Accounts,
    in_accounts_thread: Callable[..., Deferred[Any]],
    audit: Path | None,
    keep: Keep,
) -> tuple[UsageRecorder, Forgetting, list[Service]]:
    """Have a service watched.

    :param audit: folder of the audit log, or None for none
    :param keep: how long what happened is kept
    :return: what knows how much is stored, what forgets, and all services to start behind the
        accounts thread
    """
    run, found = in_accounts_thread, list[Service]()
    forget_lines = None
    if audit is not None:
        thread = OneThread(reactor, "audit log")  # it waits for the disk, and nobody for it
        log = AuditLog(audit, accounts)
        auditor = Auditor(log, thread.run, reactor)
        forget_lines = forgetter(log, thread.run)
        service.watchers.add(auditor)
        found += [thread, auditor]

    def with_repositories() -> list[str]:
        return [row["name"] for row in accounts.tenants() if row["repository"]]

    def due() -> tuple[Any, Any, Any]:
        # Machines that were given up are known for a while, so that nobody waits for a first one.
        last = accounts.last_backups(time.time() - 2 * FORGOTTEN_SECONDS)
        return accounts.tenants(), last, accounts.value(told_name())

    usage = UsageRecorder(
        reactor,
        service,
        lambda: run(with_repositories),
        lambda stored: run(keep_measured, accounts, time.time(), stored),
    )
    expected = ExpectedBackups(
        reactor,
        service,
        lambda: run(due),
        lambda told: run(accounts.keep_value, told_name(), told),
    )
    for watcher in (expected, JumpWatch(service)):
        service.watchers.add(watcher)
    # It looks at many rows at once, which nobody who logs in shall wait for.
    history = OneThread(reactor, "history")
    forgetting = Forgetting(reactor, service, accounts, history.run, forget_lines, keep)
    return usage, forgetting, [*found, usage, expected, history, forgetting]
