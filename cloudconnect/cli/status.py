"""Layer 6: ``status``: whether the last backups are there, for a person or a monitor."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from cloudconnect.agent.jobs import load_jobs
from cloudconnect.cli.console import local_time, printable, size
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.cli.values import parse_duration
from cloudconnect.errors import ExitCode
from cloudconnect.tenant.agreement import Agreement


@click.command(cls=SectionedCommand)
@click.option("--max-age", metavar="TIME", help="Exit status 1 where a newest point is older.")
@click.option("--host", default="", metavar="NAME", help="Of this machine; this one by default.")
@click.option("--job", default="", metavar="NAME", help="Only of this job.")
@click.option("--all-hosts", is_flag=True, help="Of every machine of the tenant.")
@tenant_command
def status(
    settings: TenantSettings, max_age: str | None, host: str, job: str, all_hosts: bool
) -> int:
    """Show the newest restore point of each host and job, as the provider has them.

    Below them stands how much the tenant has stored, and of which quota.

    With --max-age 26h it is a check for monitoring: exit status 0 where each newest point is
    younger and every job of this machine has one, 1 where not, 22 where the provider is not
    reachable. No passphrase is needed.
    """
    limit = None if max_age is None else parse_duration(max_age)
    label = "" if all_hosts else host or host_label()

    async def work(line: Line, interrupt: object) -> tuple[list[dict[str, Any]], Agreement | None]:
        return await line.manager.points(label, job), await line.manager.agreement()

    newest: dict[tuple[str, str], dict[str, Any]] = {}
    rows, agreement = on_line(settings, work, passphrase=False)
    for row in rows:  # oldest first
        newest[row["host"], row["job"]] = row
    found: list[tuple[str, str, dict[str, Any] | None]] = [
        (of_host, of_job, row) for (of_host, of_job), row in sorted(newest.items())
    ]
    if label == host_label():
        known = {of_job for _, of_job, _ in found}
        for scheduled in load_jobs(os.environ)[0]:
            mine = scheduled.profile == settings.profile_name and job in ("", scheduled.name)
            if mine and scheduled.name not in known:
                found.append((label, scheduled.name, None))
    return _report(settings, found, limit, agreement)


def _report(
    settings: TenantSettings,
    found: list[tuple[str, str, dict[str, Any] | None]],
    limit: float | None,
    agreement: Agreement | None,
) -> int:
    console, now, late = settings.console, time.time(), 0
    for host, job, row in found:
        age = None if row is None else max(0.0, now - row["time"])
        too_old = limit is not None and (age is None or age > limit)
        late += too_old
        fields = {
            "host": host,
            "job": job,
            "point": None if row is None else row["point"],
            "time": None if row is None else row["time"],
            "age_seconds": None if age is None else round(age),
            "late": too_old,
        }
        if row is None or age is None:
            text = f"{host}/{job}  never"
        else:
            text = f"{host}/{job}  {local_time(row['time'])}  {age_text(age)} ago"
            text += f"  restore point {row['point'][:8]}"
        console.record("job_status", fields, printable(text + ("  LATE" if too_old else "")))
    missing = limit is not None and not found
    if agreement is not None:
        console.say(_used(agreement))
    fields = {
        "jobs": len(found),
        "late": late,
        "ok": not late and not missing,
        **_fields(agreement),
    }
    if not found:
        text = "There are no restore points."
    elif limit is None:
        text = ""
    else:
        text = f"{late} of {len(found)} are late." if late else "OK: none is late."
    console.record("summary", fields, text)
    return ExitCode.FAILED if late or missing else ExitCode.DONE


def _used(agreement: Agreement) -> str:
    """How much of what is agreed is used, for a person."""
    counted, quota = agreement.bytes_counted, agreement.quota
    text = "stored: " + ("not known now" if counted is None else size(counted))
    if quota is not None:
        text += f" of {size(quota)}"
        text += f" ({100 * counted / quota:.0f}%)" if quota and counted is not None else ""
    if agreement.lease_end is not None:
        text += f"; the lease ends on {agreement.lease_end}"
    return text


def _fields(agreement: Agreement | None) -> dict[str, Any]:
    """The same for a program."""
    if agreement is None:
        return {}
    ends = agreement.lease_end
    return {
        "bytes_counted": agreement.bytes_counted,
        "quota": agreement.quota,
        "soft_quota": agreement.soft_quota,
        "lease_end": None if ends is None else ends.isoformat(),
    }


def age_text(seconds: float) -> str:
    """How long ago something was, for a person."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length or (unit == "h" and seconds >= length):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
