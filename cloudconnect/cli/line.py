"""Layer 6: a command's line to its provider: logged in, with the repository's keys.

The work of a command runs inside :func:`on_line`, which closes the line however the work ends.

The connection is begun before the modules that use it are imported: on a long line they are there
when it is. So this module imports at its top only what is needed before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater

from cloudconnect.cli.importing import import_in_turns
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.tenant import TenantSettings, host_label
from cloudconnect.config.profile import state_folder
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.errors import Busy, ContextMismatch, NotFound, WrongPassphrase
from cloudconnect.keys import MasterKey, Password
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tenant.ahead import ConnectedAhead

if TYPE_CHECKING:
    from cloudconnect.backup.heads import KnownHeads
    from cloudconnect.commands.control import SessionKind
    from cloudconnect.content.description import RepositoryDescription
    from cloudconnect.content.slots import KeySlot
    from cloudconnect.tenant.jobmanager import Account, JobManager
    from cloudconnect.tenant.mover import Rates
    from cloudconnect.wire.channel import FrameChannel

_T = TypeVar("_T")

#: What a line needs once it is connected, in steps of some 20 ms.
_WHEN_CONNECTED: Final = (
    "twisted.protocols.amp",
    "cloudconnect.commands.control",
    "cloudconnect.wire.scram",
    "cloudconnect.tenant.mover",
    "cloudconnect.tenant.run",
    "cloudconnect.tenant.jobmanager",
)
#: What is needed once the tenant is logged in.
_WHEN_LOGGED_IN: Final = (
    "cloudconnect.content.description",
    "cloudconnect.content.generations",
    "cloudconnect.backup.heads",
)

#: The file in which a machine remembers a repository's heads.
HEADS_FILE: Final = "heads"
#: A command that waits for a free task asks again after so many seconds.
BUSY_SECONDS: Final = 5.0


@attrs.frozen
class Unlocked:
    """A repository that was unlocked.

    :ivar keys: of all its generations
    :ivar master: the newest master key
    :ivar slot: what has opened it; None where the recovery kit has
    """

    description: RepositoryDescription
    keys: RepositoryKeys
    master: MasterKey = attrs.field(repr=False)
    slot: KeySlot | None


@attrs.frozen
class Line:
    """A control channel with a tenant logged in."""

    reactor: Any
    manager: JobManager
    account: Account
    settings: TenantSettings
    _passphrase: Password | None = attrs.field(repr=False, default=None)

    @property
    def description(self) -> RepositoryDescription:
        """The tenant's repository.

        :raises NotFound: there is none yet
        """
        if not self.account.repository:
            raise NotFound(
                f"tenant {self.settings.tenant} has no repository yet: run cloudconnect connect"
            )
        from cloudconnect.content.description import RepositoryDescription

        described = RepositoryDescription.decode(self.account.repository)
        known = self.settings.profile.repository
        if known and known != described.repository.hex():
            raise ContextMismatch(
                "the provider shows another repository than the one that this profile was made "
                "for; if that is meant, connect again under another profile"
            )
        return described

    def keys(self) -> tuple[RepositoryDescription, RepositoryKeys]:
        """The repository and its keys; a wrong passphrase is told before anything moves.

        :raises WrongPassphrase: the passphrase, key file or recovery kit is another one
        :raises ContextMismatch: the repository has another encryption mode than was chosen
        """
        unlocked = self.unlocked()
        return unlocked.description, unlocked.keys

    def unlocked(self) -> Unlocked:
        """As :meth:`keys`, with the master key itself and what has opened it."""
        from cloudconnect.content.description import check_mode, unlock_slot
        from cloudconnect.content.generations import keys_of

        description, mode = self.description, self.settings.mode
        kit, slot = self.settings.kit, None
        if kit is None:
            master, slot = unlock_slot(description, mode, self._passphrase)
        else:
            check_mode(description, mode)
            master = kit.master
            made = RepositoryKeys(master, description.repository, mode)
            if made.public_key in description.public_keys[:-1]:
                raise WrongPassphrase(
                    "this recovery kit was made before the repository got its newest master key: "
                    "use a newer kit, or the encryption passphrase"
                )
        return Unlocked(description, keys_of(description, master), master, slot)

    def heads(self, description: RepositoryDescription, keys: RepositoryKeys) -> KnownHeads:
        """What this machine has seen of the repository, for a dialogue to be held against it."""
        from cloudconnect.backup.heads import Anchor, KnownHeads

        console, kit = self.settings.console, self.settings.kit

        def note(text: str) -> None:
            console.note(f"note: {text}")
            if console.as_json:
                console.record("event", {"name": "heads", "text": text}, "")

        folder = state_folder(os.environ, self.account.provider, description.repository)
        anchor = None if kit is None else Anchor(kit.head_number, kit.head_value)
        return KnownHeads(folder / HEADS_FILE, keys, description, note, anchor)

    async def look(self, description: RepositoryDescription, keys: RepositoryKeys) -> KnownHeads:
        """One session that only compares the repository's past; what is known of it then."""
        from cloudconnect.backup.heads import look
        from cloudconnect.commands.control import SessionKind
        from cloudconnect.tenant.jobmanager import new_job_id

        heads = self.heads(description, keys)

        def dialogue(channel: FrameChannel, session: bytes) -> None:
            look(channel, keys, description, heads)

        await self.session(SessionKind.READ, new_job_id(), host_label(), "heads", dialogue)
        return heads

    async def session(
        self,
        kind: SessionKind,
        job_id: bytes,
        host: str,
        job: str,
        dialogue: Callable[[FrameChannel, bytes], _T],
        summarize: Callable[[_T], dict[str, Any]] = lambda result: {},
        rates: Rates | None = None,
        wan: bool = False,
    ) -> _T:
        """One session; see :meth:`JobManager.session`. Waits for a free task as ``--wait`` says."""
        from cloudconnect.tenant.mover import UNLIMITED

        repository = self.description.repository
        ends = self.reactor.seconds() + self.settings.wait
        while True:
            try:
                return await self.manager.session(
                    kind,
                    repository,
                    job_id,
                    host,
                    job,
                    dialogue,
                    summarize,
                    rates or UNLIMITED,
                    wan,
                )
            except Busy:
                if self.reactor.seconds() + BUSY_SECONDS > ends:
                    raise
            await deferLater(self.reactor, BUSY_SECONDS)


def on_line(
    settings: TenantSettings,
    work: Callable[[Line, Interrupt], Coroutine[Any, Any, _T]],
    *,
    passphrase: bool = True,
    login: Password | None = None,
    modules: Sequence[str] = (),
) -> _T:
    """Log in, do ``work``, close; returns what ``work`` returns.

    :param passphrase: the work needs the repository's keys: ask for the passphrase first, while
        there is still a terminal and nothing is waiting; in encryption modes ``provider`` and
        ``none`` there is none to ask for
    :param login: the login password, where it is known already
    :param modules: what the work imports when it begins, to be there by then
    """
    from cloudconnect.transports.trust import TrustPolicy

    host, port = settings.address
    tenant = settings.tenant
    profile = settings.profile
    trust = TrustPolicy(host, ca_file=profile.ca or None, fingerprints=profile.fingerprints)
    password = login or settings.login_password()
    sealed = settings.mode is EncryptionMode.TENANT
    opened = settings.kit is not None
    phrase = settings.passphrase() if passphrase and sealed and not opened else None
    console = settings.console

    async def lined(reactor: Any, interrupt: Interrupt) -> _T:
        ahead = ConnectedAhead(HostnameEndpoint(reactor, host, port, timeout=CONNECT_SECONDS))
        try:
            await import_in_turns(reactor, _WHEN_CONNECTED)
            from cloudconnect.tenant.jobmanager import JobManager

            manager = JobManager(
                reactor, host, port, trust, happened=console.happened, warned=console.warned
            )
            interrupt.call = manager.cancel
            try:
                needed = (*_WHEN_LOGGED_IN, *modules)
                importing = Deferred.fromCoroutine(import_in_turns(reactor, needed))
                account = await manager.log_in(tenant, password, ahead)
                password.forget()
                await importing
                return await work(Line(reactor, manager, account, settings, phrase), interrupt)
            finally:
                await manager.close()
        finally:
            ahead.close()

    return settings.run(lined)
