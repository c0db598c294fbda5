"""Layer 6: ``retention``: what the provider keeps of each host and job, and until when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cloudconnect.cli.console import local_time, printable, size
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.cli.values import parse_duration
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import UsageError

_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


@click.group(cls=CommandGroup)
def retention() -> None:
    """Which restore points are kept, and which the provider puts into the bin by itself.

    A policy is of a host and a job, of every job of a host, of a job on every host, or of all; the
    most exact one counts. Without any, everything is kept. What keeps less than before takes force
    only after the days that the provider set, so that nobody who got at your login can empty your
    repository.
    """


def _policy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--host", default="", metavar="NAME", help="Of this machine; of every one by default."
        ),
        click.option(
            "--job", default="", metavar="NAME", help="Of this job; of every one by default."
        ),
        *(
            click.option(
                f"--keep-{name}",
                type=click.IntRange(0),
                metavar="N",
                help="The newest N points."
                if name == "last"
                else f"The newest point of each of the last N {_PERIODS[name]} that have one.",
            )
            for name in _COUNTS
        ),
        click.option(
            "--keep-within", metavar="TIME", help="All that are at most so much older, as 30d."
        ),
        click.option("--keep-everything", is_flag=True, help="All of them."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


_PERIODS = {
    "hourly": "hours",
    "daily": "days",
    "weekly": "weeks",
    "monthly": "months",
    "yearly": "years",
}


def _policy(choices: dict[str, Any]) -> tuple[bool, dict[str, int] | None]:
    """Whether a policy was given, and which; None keeps everything.

    :raises UsageError: it keeps nothing, or everything and something
    """
    fields = {f"keep_{name}": choices[f"keep_{name}"] or 0 for name in _COUNTS}
    within = choices["keep_within"]
    fields["keep_within"] = 0 if within is None else int(parse_duration(within))
    given = within is not None or any(choices[f"keep_{name}"] is not None for name in _COUNTS)
    if choices["keep_everything"]:
        if given:
            raise UsageError("give --keep-everything, or what to keep, not both")
        return True, None
    if not given:
        return False, None
    try:
        return True, RetentionPolicy(**fields).as_map()
    except ValueError as error:
        raise UsageError(f"{error}: give --keep-last, --keep-daily or another one") from None


@retention.command()
@tenant_command
def show(settings: TenantSettings) -> None:
    """Show the policies, and what the provider demands and allows."""

    async def work(line: Line, interrupt: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return await line.manager.retention()

    rows, rules = on_line(settings, work, passphrase=False)
    console = settings.console
    if not rows:
        console.say("No policy is set: everything is kept.")
    for row in rows:
        console.record("retention", row, policy_line(row))
    console.record("rules", rules, rules_text(rules))


@retention.command("set")
@_policy_options
@tenant_command
def set_(settings: TenantSettings, host: str, job: str, **choices: Any) -> None:
    """Set what is kept of a host and a job; try it first with retention dry-run."""
    given, policy = _policy(choices)
    if not given:
        raise UsageError("say what to keep: --keep-last, --keep-daily ..., or --keep-everything")

    async def work(line: Line, interrupt: object) -> dict[str, Any]:
        return await line.manager.set_retention(host, job, policy)

    row = on_line(settings, work, passphrase=False)
    console = settings.console
    console.record("summary", row, "" if console.quiet else policy_line(row))


@retention.command("dry-run")
@_policy_options
@tenant_command
def dry_run(settings: TenantSettings, host: str, job: str, **choices: Any) -> None:
    """Show what would be kept and removed, and why: by what is set, or by what is given here."""
    given, policy = _policy(choices)
    if not given and (host or job):
        raise UsageError("with --host and --job say what to keep there: --keep-last and so on")
    proposed = (host, job, policy) if given else None

    async def work(line: Line, interrupt: object) -> list[dict[str, Any]]:
        return await line.manager.preview_retention(proposed)

    rows = on_line(settings, work, passphrase=False)
    console = settings.console
    removed = 0
    for row in rows:
        removed += not row["keep"]
        console.record("decision", row, decision_line(row))
    text = f"{len(rows) - removed} restore points would be kept, {removed} put into the bin."
    fields = {"kept": len(rows) - removed, "removed": removed}
    console.record("summary", fields, "" if console.quiet else text)


def policy_text(policy: dict[str, int] | None) -> str:
    """A policy for a person."""
    return "everything" if policy is None else str(RetentionPolicy.from_map(policy))


def policy_line(row: dict[str, Any]) -> str:
    """A row of the policies for a person."""
    text = f"{row['host'] or 'every host'}, {row['job'] or 'every job'}: keeps "
    text += policy_text(row["policy"])
    if row.get("has_pending"):
        text += (
            f"; from {local_time(row['pending_time'])} on only {policy_text(row['pending'])}, "
            "until then what either keeps"
        )
    return printable(text)


def rules_text(rules: dict[str, Any]) -> str:
    """What the provider demands and allows, for a person."""
    parts = [
        f"what is deleted stays in the bin for {rules['bin_days']} days",
        *([f"the bin holds {size(rules['bin_bytes'])}"] if rules.get("bin_bytes") else []),
        f"a policy that keeps less takes force after {rules['shorten_days']} days",
    ]
    if rules["lock_days"]:
        parts.append(f"new restore points are locked for {rules['lock_days']} days")
    if rules["floor"]:
        parts.append(f"at least {policy_text(rules['floor'])} is kept")
    if rules["ceiling"]:
        parts.append(f"at most {policy_text(rules['ceiling'])} is kept")
    return "The provider: " + "; ".join(parts) + "."


def decision_line(row: dict[str, Any]) -> str:
    """What becomes of one restore point, and why, for a person."""
    what = "keep  " if row["keep"] else "remove"
    why = f"  ({', '.join(row['why'])})" if row["why"] else ""
    return printable(
        f"{what}  {row['point'][:8]}  {local_time(row['time'])}  {row['host']}/{row['job']}{why}"
    )
