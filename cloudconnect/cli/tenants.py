"""Layer 6: ``provider tenant``: who may back up here, and what is agreed with each."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate, listed
from cloudconnect.cli.agreement import READERS, agreement_options, new_settings
from cloudconnect.cli.console import Console, size
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.retention import rules_text
from cloudconnect.cli.secret_files import SECRET_MAX, as_password, read_bounded
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.cli.values import parse_size
from cloudconnect.commands.admin import AddTenant, Freeze, SetTenant, ShowTenant
from cloudconnect.config.provider import load
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password

#: A login password of fewer characters is warned of.
SHORT_PASSWORD = 12


@click.group(cls=CommandGroup)
def tenant() -> None:
    """The provider's tenants."""


@tenant.command("add")
@click.argument("name")
@directory_option
@click.option("--password-file", type=click.Path(path_type=Path), help="The login password.")
@agreement_options
@json_option
@debug_option
def tenant_add(
    name: str,
    directory: Path,
    password_file: Path | None,
    as_json: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Make a tenant. Without --password-file a token of 256 bits is made and printed once."""
    password = _password(name, password_file)
    settings, lease = new_settings(choices), choices["lease"]
    asked = {"name": name, "password": password, "settings": settings}
    made = administrate(directory, lambda acts: acts.call(AddTenant, **asked), debug)
    console = Console(as_json)
    console.say(f"Tenant {name} is there.")
    _note_short(console, password)
    if lease is not None and lease < datetime.date.today().isoformat():
        console.note(f"The lease has ended already ({lease}): this tenant cannot back up.")
    _show_token(console, name, made["token"])


def _password(name: str, file: Path | None) -> Password | None:
    what = f"login password of {name}"
    return None if file is None else as_password(read_bounded(file, what, SECRET_MAX), what)


def _note_short(console: Console, password: Password | None) -> None:
    if password is not None and len(password.reveal()) < SHORT_PASSWORD:
        console.note(
            f"The password has fewer than {SHORT_PASSWORD} characters: who gets the tenant to "
            "connect to a false server can guess it. Without --password-file a token is made."
        )


def _show_token(console: Console, name: str, token: Password | None) -> None:
    if token is not None:
        shown = token.reveal().decode()
        console.say("Its login token, shown only now; hand it over on a safe way:")
        console.record("tenant", {"name": name, "token": shown}, shown)
    else:
        console.record("tenant", {"name": name}, "")


@tenant.command("list")
@directory_option
@json_option
@debug_option
def tenant_list(directory: Path, as_json: bool, debug: bool) -> None:
    """List the tenants."""
    console = Console(as_json)
    for row in listed(directory, "tenant", {}, debug):
        quota = "no quota" if row["quota"] is None else size(row["quota"])
        lease = f"lease until {row['lease_end']}" if row["lease_end"] else "no lease end"
        state = "disabled" if row["disabled"] else "enabled"
        if row["removed"] is not None:
            state = f"removed, {days_left(row['removal_left'])} left in the bin"
        state += ", frozen" if row["frozen"] else ""
        text = f"{row['name']}  {state}  {quota}  {lease}  {row['max_tasks']} tasks"
        console.record("tenant", row, text)


@tenant.command("set")
@click.argument("name")
@directory_option
@click.option("--quota", metavar="SIZE|none", help="Such as 50GB.")
@click.option("--soft-quota", metavar="SIZE|none", help="Warn when more than this is stored.")
@click.option("--bandwidth", metavar="RATE|none", help="Such as 20MB/s, over all its sessions.")
@click.option("--expect-every", metavar="TIME|none", help="Such as 26h: when a backup is due.")
@click.option("--pool", metavar="NAME", help="The pool of gateways that it uses.")
@click.option("--lease", metavar="YYYY-MM-DD|none", help="Last day of the lease.")
@click.option("--max-tasks", type=click.IntRange(1), help="Tasks at the same time.")
@click.option("--encryption", metavar="MODES", help="At-rest modes allowed, as tenant,provider.")
@click.option("--bin-days", type=click.IntRange(0), help="What is deleted stays so long.")
@click.option("--bin-size", metavar="SIZE|none", help="With so much in the bin it is full.")
@click.option("--shorten-days", type=click.IntRange(0), help="A policy that keeps less waits.")
@click.option("--lock-days", type=click.IntRange(0), help="New points are locked so long.")
@click.option("--keep-at-least", metavar="POLICY|none", help="As daily=7,weekly=4,within=30d.")
@click.option("--keep-at-most", metavar="POLICY|none", help="Likewise.")
@click.option("--new-token", is_flag=True, help="Another login token; the old one ends.")
@click.option("--password-file", type=click.Path(path_type=Path), help="Another login password.")
@json_option
@debug_option
def tenant_set(
    name: str,
    directory: Path,
    new_token: bool,
    password_file: Path | None,
    as_json: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Change what is agreed with a tenant; what is not named stays.

    Rules for the bin and for locks hold for what is deleted and stored from now on.
    """
    settings = _settings(choices)
    if new_token and password_file is not None:
        raise UsageError("give --new-token or --password-file, not both")
    if not settings and not new_token and password_file is None:
        raise UsageError("say what to change: --quota, --lease, --bin-days ...")
    password = _password(name, password_file)

    async def work(acts: Acts) -> tuple[Password | None, dict[str, Any]]:
        asked = {"name": name, "password": password, "new_token": new_token, "settings": settings}
        token: Password | None = (await acts.call(SetTenant, **asked))["token"]
        return token, await shown_tenant(acts, name)

    token, row = administrate(directory, work, debug)
    console = Console(as_json)
    _note_short(console, password)
    if token is not None:
        _show_token(console, name, token)
    console.record("tenant", row, tenant_text(row))


def _settings(choices: dict[str, Any]) -> dict[str, Any]:
    """What was named of the options of ``tenant set``, as the acts take it."""
    rules: dict[str, tuple[str, Any]] = {
        "bin_days": ("bin_days", int),
        "bin_size": ("bin_bytes", parse_size),
        "shorten_days": ("shorten_days", int),
        "lock_days": ("lock_days", int),
        "keep_at_least": ("floor", lambda text: RetentionPolicy.parse(text).as_map()),
        "keep_at_most": ("ceiling", lambda text: RetentionPolicy.parse(text).as_map()),
    }

    def read(named: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        given = {option: choices[option] for option in named if choices[option] is not None}
        return {
            named[option][0]: None
            if value == "none" and option in _CLEARED
            else named[option][1](value)
            for option, value in given.items()
        }

    settings, changed = read(READERS), read(rules)
    return {**settings, "rules": changed} if changed else settings


#: The options that take away a limit when they are given ``none``.
_CLEARED = (
    "quota",
    "soft_quota",
    "bandwidth",
    "expect_every",
    "lease",
    "bin_size",
    "keep_at_least",
    "keep_at_most",
)


@tenant.command("show")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_show(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Show what is agreed with a tenant, and what is stored for it."""

    row = administrate(directory, lambda acts: shown_tenant(acts, name), debug)
    Console(as_json).record("tenant", row, tenant_text(row))


async def shown_tenant(acts: Acts, name: str) -> dict[str, Any]:
    """What is agreed with a tenant, and what its repository holds."""
    found: dict[str, Any] = (await acts.call(ShowTenant, name=name))["tenant"]
    return found


def tenant_text(row: dict[str, Any]) -> str:
    """A tenant for a person."""
    quota = "none" if row["quota"] is None else size(row["quota"])
    lines = [
        f"Tenant {row['name']}" + _state_text(row),
        f"  quota: {quota}; lease until: {row['lease_end'] or 'no end'}; tasks at the same time: "
        f"{row['max_tasks']}",
        *_limits_text(row),
        f"  encryption allowed: {', '.join(row['modes'])}",
        "  " + rules_text(row["rules"]),
    ]
    if row["frozen"]:
        lines.append("  FROZEN: nothing is deleted, expires or is removed")
    if row["repository"] is None:
        lines.append("  no repository yet")
        return "\n".join(lines)
    lines.append(
        f"  repository {row['repository'][:8]}, encryption {row['mode']}: {row['points']} restore "
        f"points, {size(row['bytes_stored'])} on the disk, {size(row['bytes_counted'])} count "
        "against the quota"
    )
    lines.append(
        f"  at the last collection: {size(row['bytes_live'])} needed, {size(row['bytes_bin'])} "
        f"only by the bin, {size(row['bytes_garbage'])} by nothing"
    )
    return "\n".join(lines)


def days_left(seconds: float) -> str:
    """Whole days, rounded up, as a person reads them."""
    days = max(0, math.ceil(seconds / 86400))
    return "1 day" if days == 1 else f"{days} days"


def _state_text(row: dict[str, Any]) -> str:
    if row.get("removed") is not None:
        return f", REMOVED: what it stored is deleted in {days_left(row['removal_left'])}"
    return ", DISABLED" if row["disabled"] else ""


def _limits_text(row: dict[str, Any]) -> list[str]:
    """A line with the limits that most tenants do not have; no line for a tenant without any."""
    limits = []
    if row["soft_quota"] is not None:
        limits.append(f"warned over {size(row['soft_quota'])}")
    if row["bandwidth"] is not None:
        limits.append(f"at most {size(row['bandwidth'])}/s")
    if row["expect_every"] is not None:
        limits.append(f"a backup is due every {row['expect_every'] / 3600:g} h")
    return [f"  {'; '.join(limits)}"] if limits else []


@tenant.command("freeze")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_freeze(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Stop at once all that removes anything of a tenant's: deletion, retention, expiry, gc.

    Backups and restores go on. The time that the bin and locks wait for stands still meanwhile.
    """
    _freeze(name, directory, True, as_json, debug)


@tenant.command("thaw")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_thaw(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Let deletion, retention, expiry and gc of a tenant go on."""
    _freeze(name, directory, False, as_json, debug)


def _freeze(name: str, directory: Path, frozen: bool, as_json: bool, debug: bool) -> None:
    read_only = load(directory).read_only

    async def work(acts: Acts) -> bool:
        if read_only:
            await shown_tenant(acts, name)  # says where there is none
            return False
        kept: bool = (await acts.call(Freeze, name=name, frozen=frozen))["kept"]
        return kept

    kept = administrate(directory, work, debug)
    console = Console(as_json)
    if read_only:
        console.record(
            "tenant",
            {"name": name, "frozen": True, "kept": False},
            f"{directory} is read-only: nothing of tenant {name} can be deleted, expire or be "
            "removed while it is. Nothing was written down: say it again when it can be.",
        )
        return
    text = f"Tenant {name} is {'frozen' if frozen else 'not frozen any more'}."
    console.record("tenant", {"name": name, "frozen": frozen, "kept": kept}, text)
    if not kept:
        console.note(
            "The disk cannot be written, so it is not written down: it holds for as long as the "
            "provider runs, which writes it down as soon as it can."
        )
