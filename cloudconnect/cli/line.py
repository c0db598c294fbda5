"""Layer 6: a command's line to its provider: logged in, with the repository's keys.

The work of a command runs inside :func:`on_line`, which closes the line however the work ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
from twisted.internet.defer import Deferred

from cloudconnect.cli.beside import import_beside
from cloudconnect.cli.following import follow, moved
from cloudconnect.cli.logging_in import dial, dial_next, log_in, log_in_there, note_end, trust_of
from cloudconnect.cli.opening import remember_slot
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.tenant import TenantSettings, host_label
from cloudconnect.commands.control import SessionKind
from cloudconnect.config.profile import state_folder
from cloudconnect.content.atrest import (
    EncryptionMode,
    KeySlot,
    RepositoryDescription,
    RepositoryKeys,
)
from cloudconnect.content.description import check_mode, unlock_slot
from cloudconnect.content.generations import keys_of
from cloudconnect.errors import (
    Busy,
    ContextMismatch,
    NoAccelerator,
    NotFound,
    NotReachable,
    WrongPassphrase,
)
from cloudconnect.events import SessionEvent
from cloudconnect.keys import MasterKey, Password
from cloudconnect.shown import Shown
from cloudconnect.tenant.accelerated import Wanted
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.early import Foreseen
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.tenant.mover import UNLIMITED, Rates
from cloudconnect.tenant.retrying import Interruption, Journey, Retrying

if TYPE_CHECKING:
    from cloudconnect.backup.heads import KnownHeads
    from cloudconnect.wire.channel import FrameChannel

_T = TypeVar("_T")

#: The file in which a machine remembers a repository's heads.
HEADS_FILE: Final = "heads"
#: A command that waits for a free task asks again after so many seconds.
BUSY_SECONDS: Final = 5.0


@attrs.frozen(repr=False)
class Unlocked(Shown):
    """A repository that was unlocked.

    :ivar keys: of all its generations
    :ivar master: the newest master key
    :ivar slot: what has opened it; None where the recovery kit has
    """

    description: RepositoryDescription
    keys: RepositoryKeys
    master: MasterKey = attrs.field(repr=False)
    slot: KeySlot | None


@attrs.frozen(repr=False)
class Line(Shown):
    """A control channel with a tenant logged in, which is made anew where it broke."""

    reactor: Any
    manager: JobManager
    account: Account
    settings: TenantSettings
    _passphrase: Password | None = attrs.field(repr=False, default=None)
    _login: Password | None = attrs.field(repr=False, default=None)
    _stopped: Callable[[], bool] = attrs.field(repr=False, default=lambda: False)
    _retrying: Retrying = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(
            lambda self: Retrying(
                self.reactor, self.settings.retry, self._interrupted, self._stopped
            ),
            takes_self=True,
        ),
    )

    @property
    def description(self) -> RepositoryDescription:
        """The tenant's repository.

        :raises NotFound: there is none yet
        """
        if not self.account.repository:
            raise NotFound(
                f"tenant {self.settings.tenant} has no repository yet: run cloudconnect connect"
            )
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
        description, mode = self.description, self.settings.mode
        kit, slot = self.settings.kit, None
        if kit is None:
            master, slot = unlock_slot(description, mode, self._passphrase, self.settings.stretch)
            remember_slot(
                state_folder(os.environ, self.account.provider, description.repository), slot
            )
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

    async def look(
        self,
        description: RepositoryDescription,
        keys: RepositoryKeys,
        job_id: bytes | None = None,
    ) -> KnownHeads:
        """One session that only compares the repository's past; what is known of it then.

        :param job_id: of the job that it belongs to; one of its own where it is None
        """
        from cloudconnect.backup.heads import look

        heads = self.heads(description, keys)

        def dialogue(channel: FrameChannel, session: bytes) -> None:
            nonlocal heads
            heads = self.heads(description, keys)
            look(channel, keys, description, heads)

        await self.session(
            SessionKind.READ, job_id or new_job_id(), host_label(), "heads", dialogue
        )
        return heads

    async def points(
        self,
        host: str = "",
        job: str = "",
        tag: str = "",
        states: tuple[str, ...] = ("published",),
    ) -> list[dict[str, Any]]:
        """As :meth:`JobManager.points`; again as ``--retry`` says where the line breaks."""
        return await self._retrying.run(
            Journey(),
            lambda: self.manager.points(host, job, tag, states),
            self._connect_again,
        )

    async def session(
        self,
        kind: SessionKind,
        job_id: bytes,
        host: str,
        job: str,
        dialogue: Callable[[FrameChannel, bytes], _T],
        summarize: Callable[[_T], dict[str, Any]] = lambda result: {},
        rates: Rates = UNLIMITED,
        journey: Journey | None = None,
        unrepeatable: Callable[[], str] = lambda: "",
        instead: Callable[[], Coroutine[Any, Any, _T | None]] | None = None,
        wan: Wanted | None = None,
    ) -> _T:
        """One job: a session, and where the line breaks another, as ``--retry`` says.

        See :meth:`JobManager.session` for most parameters. Waits for a free task as ``--wait``
        says.

        :param dialogue: is called once in each session: whatever it keeps begins anew there
        :param journey: counts over all sessions
        :param unrepeatable: why the dialogue cannot be had again, or ``""``
        :param wan: whether it goes through accelerators
        :param instead: asked before each further session, on a control channel that is up; what it
            returns is the result, unless that is None
        """
        journey = Journey() if journey is None else journey
        counted = journey.over(dialogue)
        repository = self.description.repository

        async def once() -> _T:
            if instead is not None and journey.sessions:
                result = await instead()
                if result is not None:
                    return result
            return await self._one(
                lambda: self.manager.session(
                    kind,
                    repository,
                    job_id,
                    host,
                    job,
                    counted,
                    summarize,
                    rates,
                    wan is not None and wan.used,
                    movable=lambda: self.settings.retry > 0 and not unrepeatable(),
                ),
                journey,
                unrepeatable,
                wan,
            )

        return await self._retrying.run(journey, once, self._connect_again, unrepeatable)

    async def _one(
        self,
        session: Callable[[], Coroutine[Any, Any, _T]],
        journey: Journey,
        unrepeatable: Callable[[], str],
        wan: Wanted | None,
    ) -> _T:
        """One session, as soon as there is a free task; directly, where it may and has to.

        A repository may be busy in the middle of a dialogue too, which then begins anew: but not
        where it would find less to read than before.
        """
        ends = self.reactor.seconds() + self.settings.wait
        while True:
            journey.talking = False
            try:
                return await session()
            except NoAccelerator as error:
                if wan is None or journey.talking or not wan.go_without():
                    raise
                text = f"note: going on without WAN acceleration: {error}"
                self.settings.console.note(text)
                self._tell("no_accelerator", text)
                continue
            except Busy:
                if self.reactor.seconds() + BUSY_SECONDS > ends:
                    raise
                if journey.talking and unrepeatable():
                    raise
            await self._retrying.pause(BUSY_SECONDS)

    async def _connect_again(self) -> None:
        """A control channel on which the provider answers: the old one, or a new one.

        :raises ContextMismatch: it is another provider, or shows another repository
        """
        self._tell("reconnecting", "going on in a new session, with new keys")
        if await self.manager.answers():
            return
        self._retrying.check()
        account = await self.manager.log_in(self.settings.tenant, self._login)
        described = attrs.evolve(self, account=account).description
        same = described.repository == self.description.repository
        if not same or account.provider != self.account.provider:
            raise ContextMismatch(
                "behind the interruption the provider shows another id or repository than before"
            )

    def stop(self) -> None:
        """The user wants to stop: end what is under way, and try nothing again."""
        self._retrying.interrupt()
        self.manager.cancel()

    def _interrupted(self, told: Interruption) -> None:
        why, seconds = str(told.error).rstrip("."), max(1, round(told.seconds))
        text = f"interrupted: {why}. Trying again in {seconds} s, what is durable is not sent twice"
        self.settings.console.note(text)
        fields = {
            "reason": told.error.reason,
            "failures": told.failures,
            "seconds": round(told.seconds, 1),
        }
        self._tell("session_interrupted", text, **fields)

    def _tell(self, name: str, text: str, **fields: Any) -> None:
        event = SessionEvent(time=time.time(), name=name, session="", text=text, fields=fields)
        if name == "reconnecting" or self.settings.console.as_json:  # a note was shown already
            self.settings.console.happened(event)


def on_line(
    settings: TenantSettings,
    work: Callable[[Line, Interrupt], Coroutine[Any, Any, _T]],
    *,
    passphrase: bool = True,
    login: Password | None = None,
    first: Callable[[Any, Interrupt], Coroutine[Any, Any, TenantSettings]] | None = None,
    wanted: Sequence[str] = (),
    foresee: Callable[[JobManager], Foreseen | None] = lambda manager: None,
) -> _T:
    """Log in, do ``work``, close; returns what ``work`` returns.

    :param passphrase: the work needs the repository's keys: ask for the passphrase first, while
        there is still a terminal and nothing is waiting; in encryption modes ``provider`` and
        ``none`` there is none to ask for
    :param login: the login password, where it is known already; where it is not, the settings have
        it, or a certificate
    :param first: what is to be done before; its settings say where to log in
    :param wanted: modules that ``work`` imports (:mod:`cloudconnect.cli.beside`)
    :param foresee: which session ``work`` will want first, once the line is up; None: any, or none
    """
    # What is wrong with these is said before anybody is asked for a secret.
    _ = (settings.tenant, trust_of(settings))
    identity = None if login else settings.identity()
    password = login or settings.login_password()
    sealed = settings.mode is EncryptionMode.TENANT
    opened = settings.kit is not None
    phrase = settings.passphrase() if passphrase and sealed and not opened else None
    if identity is not None:
        from cloudconnect.config.client_certificates import certificate_end

        note_end(settings, certificate_end(Path(identity.certificate_path)))

    async def lined(reactor: Any, interrupt: Interrupt) -> _T:
        found = settings if first is None else await first(reactor, interrupt)
        manager = dial(reactor, found, identity, interrupt, settings.dialled)
        logging_in = Deferred.fromCoroutine(
            log_in(reactor, found, manager, password, interrupt, lambda: foresee(manager))
        )
        imported = import_beside(reactor, wanted)
        try:
            try:
                account = await logging_in
            except NotReachable:
                if not found.profile.next_provider:
                    raise
                await manager.close()
                there, manager = dial_next(reactor, found, identity, interrupt)
                account = await log_in_there(there, manager, password)
                moved(found, account)
            await imported
            await follow(found, manager, account)
            line = Line(
                reactor,
                manager,
                account,
                found,
                phrase,
                password,  # until the end: a line that breaks is made anew
                lambda: interrupt.happened,
            )
            interrupt.call = line.stop
            return await work(line, interrupt)
        finally:
            if password is not None:
                password.forget()
            await manager.close()

    return settings.run(lined)
