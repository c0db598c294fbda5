"""Layer 6: ``key``: the recovery kit, key slots, and new master keys."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import click

from cloudconnect.cli.completion import FILE
from cloudconnect.cli.kit import kit_of, kit_page, save_kit
from cloudconnect.cli.line import Line, Unlocked, on_line
from cloudconnect.cli.secret_files import KEY_FILE_MAX, SECRET_MAX, as_password, read_bounded
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.config.profile import load, save
from cloudconnect.content.atrest import (
    EncryptionMode,
    KeySlot,
    RepositoryDescription,
    SlotKind,
    make_slot,
)
from cloudconnect.content.description import unlock_slot
from cloudconnect.content.generations import (
    add_slot,
    find_slot,
    new_master,
    remove_slot,
    replace_slot,
)
from cloudconnect.errors import HeadMoved, UsageError, WrongPassphrase
from cloudconnect.keys import MasterKey, Password

#: How often a change is offered because other machines published meanwhile.
OFFERS_MAX: Final = 10

_new_options: Final = (
    click.option("--new-passphrase-file", type=FILE, help="File with the new passphrase."),
    click.option("--new-key-file", type=FILE, help="File that becomes a key."),
)


def _takes_new_key(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options for a new passphrase or key file."""
    for option in reversed(_new_options):
        function = option(function)
    return function


@click.group(cls=CommandGroup)
def key() -> None:
    """The repository's encryption key: the recovery kit, passphrases, and new keys."""


@key.command()
@click.option("--output", type=FILE, help="Write it there, readable by nobody else.")
@tenant_command
def kit(settings: TenantSettings, output: str | None) -> None:
    """Print the recovery kit: all that an empty machine needs to restore.

    The master key stands in it in clear: whoever has the kit and a login can read every backup.
    """
    console = settings.console
    if console.as_json and not output:
        raise UsageError("the kit is for people: with --json name a file with --output")

    async def work(line: Line, interrupt: object) -> str:
        unlocked = line.unlocked()
        heads = await line.look(unlocked.description, unlocked.keys)
        made = kit_of(line, unlocked.description, unlocked.master, heads.chain)
        return kit_page(made, time.time())

    page = on_line(settings, work)
    if output:
        save_kit(Path(output), page, console)
        console.record("summary", {"kit": str(Path(output).absolute())}, "")
    else:
        click.echo(page, nl=False)
        console.note("Whoever has this text and the login can read every backup: keep it safe")


@key.command()
@_takes_new_key
@tenant_command
def add(
    settings: TenantSettings, new_passphrase_file: str | None, new_key_file: str | None
) -> None:
    """Add a passphrase or key file that opens the same master key."""
    new, kind = new_secret(settings, new_passphrase_file, new_key_file)

    def change(unlocked: Unlocked) -> RepositoryDescription:
        slot = _slot(unlocked, unlocked.master, new, kind)
        return add_slot(unlocked.description, unlocked.keys, slot)

    described = on_line(settings, lambda line, _: _change(line, change))
    slot = described.slots[-1]
    settings.console.record(
        "summary",
        {"slot": slot.identifier, "kind": slot.kind.value},
        f"Key slot {slot.identifier} added: the new {_word(kind)} opens the repository too",
    )


@key.command("list")
@tenant_command
def list_slots(settings: TenantSettings) -> None:
    """List what opens the repository."""

    async def work(line: Line, interrupt: object) -> Unlocked:
        return line.unlocked()

    unlocked = on_line(settings, work)
    description = unlocked.description
    for slot in description.slots:
        used = slot == unlocked.slot
        fields = {"slot": slot.identifier, "kind": slot.kind.value, "used": used}
        mark = "  (opened just now)" if used else ""
        settings.console.record("slot", fields, f"{slot.identifier}  {slot.kind.value}{mark}")
    if description.previous:
        settings.console.say(f"Master keys before this one: {len(description.previous)}")


@key.command()
@click.argument("slot")
@tenant_command
def remove(settings: TenantSettings, slot: str) -> None:
    """Remove a key slot: what opened it opens the repository no more.

    Whoever has seen the master key, or has an old copy of the slots, is not kept out by this: for
    that there is key rotate --new-master. Open with another passphrase, key file or the recovery
    kit than the one that is removed: so you cannot lock yourself out.
    """

    def change(unlocked: Unlocked) -> RepositoryDescription:
        changed = remove_slot(unlocked.description, unlocked.keys, slot)
        if unlocked.slot is not None and unlocked.slot not in changed.slots:
            raise UsageError(
                f"key slot {unlocked.slot.identifier} is the one that opened the repository just "
                "now: open with one that stays (--passphrase-file, --key-file or --kit), or put "
                "another one in its place with key rotate"
            )
        return changed

    async def work(line: Line, interrupt: object) -> str:
        found = find_slot(line.description, slot).identifier
        await _change(line, change)
        return found

    removed = on_line(settings, work)
    settings.console.record(
        "summary",
        {"slot": removed},
        f"Key slot {removed} removed. The master key is the same: whoever has seen it, or kept a "
        "copy of the slot and its passphrase, is kept out only by key rotate --new-master",
    )


@key.command()
@_takes_new_key
@click.option("--new-master", "fresh", is_flag=True, help="A new master key for later data.")
@tenant_command
def rotate(
    settings: TenantSettings,
    new_passphrase_file: str | None,
    new_key_file: str | None,
    fresh: bool,
) -> None:
    """Put a new passphrase or key file in the place of the one that is used now.

    The master key stays the same unless --new-master is given. That is for the day on which
    somebody may have got hold of it, such as with a stolen laptop: what is stored from then on is
    out of their reach. What was stored before is not, and the first backup sends everything again.
    """
    if settings.kit is not None and not fresh:
        raise UsageError(
            "the recovery kit has no passphrase to be replaced: use key add, then key remove"
        )
    new, kind = new_secret(settings, new_passphrase_file, new_key_file)
    work = _renew if fresh else _rewrap
    described = on_line(settings, lambda line, _: work(line, new, kind))
    remembered = _remember(settings, described, new_passphrase_file, new_key_file)
    fields = {"new_master": fresh, "masters": len(described.previous) + 1, "profile": remembered}
    if not fresh:
        text = (
            f"The new {_word(kind)} opens the repository in the place of the old one. The master "
            "key is the same: whoever has seen it can still read everything; against them there is "
            "key rotate --new-master"
        )
    else:
        text = (
            "A new master key is in force, for later data only: what was stored before can still "
            "be read by whoever has the old key. The first backup of each machine sends everything "
            "again. Other passphrases and key files open nothing any more: add them with key add. "
            "MAKE A NEW RECOVERY KIT NOW: cloudconnect key kit --output F"
        )
    if remembered:
        text += f"\nThe profile {settings.profile_name} names the new file from now on"
    text += f"\nYour other machines need the new {_word(kind)} too"
    settings.console.record("summary", fields, text)


# --- what is done -------------------------------------------------------------------------------


async def _change(
    line: Line, change: Callable[[Unlocked], RepositoryDescription]
) -> RepositoryDescription:
    """Replace the description, in its place in the chain; again where others were faster."""
    unlocked = line.unlocked()
    if unlocked.description.mode is not EncryptionMode.TENANT:
        raise UsageError(
            f"with encryption {unlocked.description.mode.value} there is no passphrase: whoever "
            "may log in is handed the key"
        )
    heads = await line.look(unlocked.description, unlocked.keys)
    changed = change(unlocked)
    encoded = changed.encode()
    for offer in range(OFFERS_MAX):
        head = heads.chain.next_description(unlocked.keys, encoded, changed.public_key)
        try:
            await line.manager.replace_description(encoded, head)
        except HeadMoved:
            if offer == OFFERS_MAX - 1:
                raise
            heads = await line.look(unlocked.description, unlocked.keys)
        else:
            break
    heads.taken(head)
    return changed


async def _rewrap(line: Line, new: Password, kind: SlotKind) -> RepositoryDescription:
    def change(unlocked: Unlocked) -> RepositoryDescription:
        assert unlocked.slot is not None, "without a recovery kit a slot has opened"
        slot = _slot(unlocked, unlocked.master, new, kind)
        return replace_slot(unlocked.description, unlocked.keys, unlocked.slot, slot)

    return await _change(line, change)


async def _renew(line: Line, new: Password, kind: SlotKind) -> RepositoryDescription:
    def change(unlocked: Unlocked) -> RepositoryDescription:
        try:
            unlock_slot(unlocked.description, unlocked.description.mode, new)
        except WrongPassphrase:
            pass
        else:
            raise UsageError(
                "this opens the old master key too: whoever may have got hold of that one may know "
                "it. Choose another passphrase or key file"
            )
        fresh = MasterKey.generate()
        slot = _slot(unlocked, fresh, new, kind)
        return new_master(unlocked.description, unlocked.master, fresh, (slot,))

    return await _change(line, change)


def _slot(unlocked: Unlocked, master: MasterKey, new: Password, kind: SlotKind) -> KeySlot:
    return make_slot(master, unlocked.description.repository, new, kind)


def new_secret(
    settings: TenantSettings, passphrase_file: str | None, key_file: str | None
) -> tuple[Password, SlotKind]:
    """The new passphrase or key file's content, and which it is; before anything is done.

    :raises UsageError: both are named, or none, and there is no terminal to ask on
    """
    if passphrase_file and key_file:
        raise UsageError("give --new-passphrase-file or --new-key-file, not both")
    if settings.mode is not EncryptionMode.TENANT:
        raise UsageError(f"with encryption {settings.mode.value} there is no passphrase")
    if key_file:
        octets = read_bounded(Path(key_file), "new encryption key file", KEY_FILE_MAX)
        return Password(octets), SlotKind.KEY_FILE
    what = "new encryption passphrase"
    if passphrase_file:
        octets = read_bounded(Path(passphrase_file), what, SECRET_MAX)
        return as_password(octets, what), SlotKind.PASSPHRASE
    if not sys.stdin.isatty():
        raise UsageError(
            f"the {what} is needed, and there is no terminal to ask on: name a file that holds it "
            "with --new-passphrase-file, or one that becomes a key with --new-key-file"
        )
    typed = click.prompt(
        what[0].upper() + what[1:], hide_input=True, confirmation_prompt=True, err=True
    )
    return as_password(str(typed).encode(), what), SlotKind.PASSPHRASE


def _remember(
    settings: TenantSettings,
    described: RepositoryDescription,
    passphrase_file: str | None,
    key_file: str | None,
) -> str:
    """Let the profile name the new file where it named the old one; its path, or empty."""
    saved = load(os.environ, settings.profile_name)
    if saved is None or saved.repository != described.repository.hex():
        return ""
    changed = attrs.evolve(
        saved,
        passphrase_file=str(Path(passphrase_file).absolute()) if passphrase_file else "",
        key_file=str(Path(key_file).absolute()) if key_file else "",
    )
    if changed == saved:
        return ""
    return str(save(os.environ, settings.profile_name, changed))


def _word(kind: SlotKind) -> str:
    return "key file" if kind is SlotKind.KEY_FILE else "passphrase"
