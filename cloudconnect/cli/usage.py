"""Layer 6: ``provider usage``: what each tenant has used in a month, for the bill."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from cloudconnect.cli.administering import Acts, administrate, rows
from cloudconnect.cli.console import Console, aligned, size
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.commands.admin import ShowTenant
from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.history.session_counts import month_of
from cloudconnect.provider.usage import check_month

#: The columns, in this order.
COLUMNS: Final = (
    "tenant",
    "month",
    "points",
    "bytes_stored",
    "bytes_counted",
    "quota",
    "bytes_average",
    "bytes_most",
    "days_measured",
    "backups",
    "restores",
    "other_sessions",
    "bytes_sent",
)
#: What only this moment has, and no month that is over.
_NOW: Final = ("points", "bytes_stored", "bytes_counted")


@click.command()
@directory_option
@click.option("--month", metavar="YYYY-MM", help="Of this month (UTC); the current one by default.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated, with a line of names.")
@json_option
@debug_option
def usage(directory: Path, month: str | None, as_csv: bool, as_json: bool, debug: bool) -> None:
    """Report what each tenant has stored and sent.

    bytes_stored is what lies on the disk now, bytes_counted what counts against the quota,
    bytes_average and bytes_most are over the days of the month that were measured while the
    provider ran. bytes_sent is what tenants said of their backups. The last line adds up.
    """
    now = month_of(time.time())
    wanted = check_month(month or now)

    async def work(acts: Acts) -> list[dict[str, Any]]:
        found = {row["tenant"]: row for row in await rows(acts, "usage", {"month": wanted})}
        for tenant in await rows(acts, "tenant", {}) if wanted == now else []:
            name = tenant["name"]
            row = found.setdefault(name, {"tenant": name, "month": wanted})
            row["quota"] = tenant["quota"]
            if tenant["repository"]:
                try:
                    measured = (await acts.call(ShowTenant, name=name))["tenant"]
                except CloudConnectError as error:
                    failed.append(f"{name}: {error}")
                    continue
                row |= {column: measured[column] for column in _NOW}
        return [found[name] for name in sorted(found)]

    failed: list[str] = []
    listed = [
        {column: row.get(column, None if column == "quota" else 0) for column in COLUMNS}
        for row in administrate(directory, work, debug)
    ]
    console = Console(as_json)
    if as_csv:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*listed, total(listed, wanted)])
    elif as_json:
        for row in listed:
            console.record("usage", row, "")
        console.record("usage_total", total(listed, wanted), "")
    else:
        lines = [shown(row) for row in [*listed, total(listed, wanted)]]
        header = ["tenant", "points", "stored", "counted", "quota", "used"]
        header += ["average", "most", "backups", "sent"]
        for line in aligned([header, *lines], range(1, len(header))):
            click.echo(line)
    for problem in failed:
        console.note(f"not measured: {problem}")


def total(listed: list[dict[str, Any]], month: str) -> dict[str, Any]:
    """The sum of all rows."""
    sums = {
        column: sum(row[column] or 0 for row in listed)
        for column in COLUMNS
        if column not in ("tenant", "month", "quota", "days_measured")
    }
    return {
        "tenant": "TOTAL",
        "month": month,
        "quota": None,
        "days_measured": max((row["days_measured"] for row in listed), default=0),
        **sums,
    }


def shown(row: dict[str, Any]) -> list[str]:
    """A row for a person."""
    quota, counted = row["quota"], row["bytes_counted"]
    return [
        row["tenant"],
        str(row["points"]),
        size(row["bytes_stored"]),
        size(counted),
        "-" if quota is None else size(quota),
        "-" if not quota else f"{100 * counted / quota:.0f}%",
        size(row["bytes_average"]),
        size(row["bytes_most"]),
        str(row["backups"]),
        size(row["bytes_sent"]),
    ]
