"""Layer 6: ``provider audit``: reads the audit log and follows its chain."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.console import Console, local_time, printable
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.config.provider import ProviderSettings, load
from cloudconnect.errors import ExitCode
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.audit.auditing import admin_entry, append_now
from cloudconnect.provider.audit.chain import Head, beginning, read, verify
from cloudconnect.provider.audit.log import AuditLog, kept_head


@click.command()
@directory_option
@click.option("--verify", "follow", is_flag=True, help="Follow the chain; status 20 if it breaks.")
@click.option("--against", metavar="NUMBER:HASH", help="A head that was written down elsewhere.")
@click.option("--last", default=0, metavar="N", help="Only the last N lines.")
@json_option
@debug_option
def audit(
    directory: Path, follow: bool, against: str | None, last: int, as_json: bool, debug: bool
) -> int:
    """List the audit log: every act of an admin, and every step of a key exchange.

    Keys appear by their identifiers only. With --verify any line that was changed, removed or moved
    is found, also at the end. Who can write both the log and the accounts data base could write
    another history: note the head that is printed last somewhere else now and then, and compare it
    with --against.
    """
    settings, console = load(directory), Console(as_json)
    known = None if against is None else Head.parse(against)
    accounts = Accounts(settings.accounts_url)
    try:
        head = kept_head(accounts)
        if not follow and known is None:
            entries: Iterable[dict[str, Any]] = read(settings.audit)
            for entry in deque(entries, last) if last > 0 else entries:
                console.record("audit", entry, printable(audit_line(entry)))
            console.say(f"head {head}")
            return ExitCode.DONE
        lines, wrong = verify(settings.audit, head, known)
    finally:
        accounts.close()
    for problem in wrong:
        console.note(f"SECURITY WARNING audit log: {problem}")
    first = beginning(settings.audit).number + 1
    fields = {
        "lines": lines,
        "first": first,
        "head": str(head),
        "wrong": wrong,
        "intact": not wrong,
    }
    state = "BROKEN" if wrong else "intact"
    since = "" if first == 1 else f" from number {first} on (older ones are not kept)"
    text = f"{lines} lines{since}, the chain is {state}; head {head}"
    console.record("audit_verified", fields, text)
    return ExitCode.SECURITY_WARNING if wrong else ExitCode.DONE


def audit_line(entry: Mapping[str, Any]) -> str:
    """One line of the log for a person."""
    fields = entry.get("fields") or {}
    shown = {name: value for name, value in fields.items() if value not in ("", None)}
    words = ", ".join(f"{name}={_short(value)}" for name, value in shown.items())
    moment = local_time(float(entry.get("time") or 0))
    return f"{entry.get('number')}  {moment}  {entry.get('actor')}  {entry.get('act')}  {words}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def write_down(settings: ProviderSettings, act: str, **fields: Any) -> None:
    """An act that this command has done by itself, whether the provider runs or not."""
    if settings.read_only:
        return
    accounts = Accounts(settings.accounts_url)
    try:
        append_now(AuditLog(settings.audit, accounts), [admin_entry(act, fields, "done")])
    finally:
        accounts.close()
