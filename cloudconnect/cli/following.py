"""Layer 6: a tenant's command notes by itself what its provider says will hold from some day on.

The next key's pin goes into the profile beside those that it has, the next address beside the one
that is used. Both came over the authenticated control channel of a provider that was trusted; the
new address is used only where the old one is not reachable, by the same pins or authorities, and
only if the same provider answers there.
"""

from __future__ import annotations

import os
import time
from typing import Final

import attrs

from cloudconnect.cli.console import printable
from cloudconnect.cli.tenant import TenantSettings, host_label
from cloudconnect.config.profile import Profile, load, save, state_folder, write_private
from cloudconnect.errors import CloudConnectError, UsageError
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.jobmanager import JobManager

#: Pins that a profile holds at most: the newest.
PINS_MAX: Final = 8
#: From so many days before the end on, every command says so.
ALWAYS_DAYS: Final = 3
#: The file that says what was told of a certificate's end.
TOLD_FILE: Final = "certificate-told"


async def follow(settings: TenantSettings, manager: JobManager, account: Account) -> None:
    """Note what the provider has announced, and say when its certificate will end.

    Whatever goes wrong is said, and does not keep the command from its work.
    """
    _tell_end(settings, manager, account)
    notice = account.notice
    if not notice:
        return
    try:
        saved = _saved(settings, account)
        knows = _note(settings, saved, account)
    except (OSError, UsageError) as error:
        settings.console.note(printable(f"note: the profile was not changed: {error}"))
        return
    if knows and notice.pins:
        try:
            await manager.notice_taken(host_label(), notice.pins)
        except CloudConnectError as error:
            if settings.debug:
                settings.console.note(f"note: the provider did not take that: {error}")


def moved(settings: TenantSettings, account: Account) -> None:
    """The provider was found at its new address: the profile names that from now on."""
    saved = _saved(settings, account)
    if saved is not None and saved.next_provider:
        address = saved.next_provider
        changed = attrs.evolve(saved, provider=address, next_provider="")
        save(os.environ, settings.profile_name, changed)
        say(settings, "provider_moved", f"the provider has moved: it is used at {address} now")


def _saved(settings: TenantSettings, account: Account) -> Profile | None:
    """The saved profile, where it is of this provider and tenant."""
    saved = load(os.environ, settings.profile_name)
    if saved is None or saved.tenant != settings.profile.tenant:
        return None
    return saved if saved.provider_id == account.provider.hex() else None


def _note(settings: TenantSettings, saved: Profile | None, account: Account) -> bool:
    """Whether this machine knows the announced pins now, or does not need them."""
    notice, used = account.notice, settings.profile.fingerprints
    missing = [pin for pin in notice.pins if pin not in used]
    changed = saved
    if saved is not None and saved.fingerprints:
        new = [pin for pin in notice.pins if pin not in saved.fingerprints]
        if new:
            pins = (*saved.fingerprints, *new)
            changed = attrs.evolve(saved, fingerprints=pins[-PINS_MAX:])
            text = "the provider has announced its next key; its pin is in the profile now: "
            say(settings, "pin_added", text + ", ".join(new))
        missing = [pin for pin in missing if pin not in (changed or saved).fingerprints]
    if changed is not None and notice.address not in ("", changed.provider, changed.next_provider):
        changed = attrs.evolve(changed, next_provider=notice.address)
        text = f"the provider has announced that it will move to {notice.address}"
        say(settings, "move_announced", text)
    if changed is not None and changed != saved:
        save(os.environ, settings.profile_name, changed)
    if used and missing:
        text = "the provider has announced its next key: give --fingerprint too, with "
        say(settings, "pin_announced", text + ", ".join(missing))
        return False
    return True


def _tell_end(settings: TenantSettings, manager: JobManager, account: Account) -> None:
    """Say 30, 14 and 3 days before that the provider's certificate will end; then always."""
    # Not at the start of every command: it is wanted only once the line stands.
    from cloudconnect.provider.alarms.ending import due, ending_text

    try:
        ends, now = manager.certificate_ends, time.time()
        days = due(ends, now)
        if days is None:
            return
        folder = state_folder(os.environ, account.provider, b"")
        line = f"{ends:.0f} {days}\n".encode()
        path = folder / TOLD_FILE
        if days > ALWAYS_DAYS and path.exists() and path.read_bytes() == line:
            return
        text = ending_text("the provider's certificate", ends, now)
        say(settings, "certificate_expires", f"{text}; ask the provider to renew it")
        write_private(path, line)
    except (OSError, CloudConnectError) as error:
        if settings.debug:
            settings.console.note(f"note: the certificate's end is not known: {error}")


def say(settings: TenantSettings, name: str, text: str) -> None:
    """Say something beside the answer: to a person as a note, to a program as an event."""
    settings.console.note(printable(f"note: {text}"))
    if settings.console.as_json:
        settings.console.record("event", {"name": name, "text": text}, "")
