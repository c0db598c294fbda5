"""Layer 6: ``status``: whether the last backups are there, for a person or a monitor."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from cloudconnect.agent.jobs import load_jobs
from cloudconnect.cli.console import local_time, printable
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.cli.values import parse_duration
from cloudconnect.errors import ExitCode


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

    With --max-age 26h it is a check for monitoring: exit status 0 where each newest point is
    younger and every job of this machine has one, 1 where not, 22 where the provider is not
    reachable. No passphrase is needed.
    """
    limit = None if max_age is None else parse_duration(max_age)
    label = "" if all_hosts else host or host_label()

    async def work(line: Line, interrupt: object) -> list[dict[str, Any]]:
        return await line.manager.points(label, job)

    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in on_line(settings, work, passphrase=False):  # oldest first
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
    return _report(settings, found, limit)


def _report(
    settings: TenantSettings,
    found: list[tuple[str, str, dict[str, Any] | None]],
    limit: float | None,
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
    fields = {"jobs": len(found), "late": late, "ok": not late and not missing}
    if not found:
        text = "There are no restore points."
    elif limit is None:
        text = ""
    else:
        text = f"{late} of {len(found)} are late." if late else "OK: none is late."
    console.record("summary", fields, text)
    return ExitCode.FAILED if late or missing else ExitCode.DONE


def age_text(seconds: float) -> str:
    """How long ago something was, for a person."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
