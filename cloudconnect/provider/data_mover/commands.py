"""Layer 4: what the Cloud Connect service has a data mover do to its repositories, beside sessions.

Each command is one act, done in a thread; what they come to is in
:class:`~cloudconnect.provider.data_mover.acts.RepositoryActs`. Sessions are the subject of
:mod:`cloudconnect.provider.data_mover.mover`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from cloudconnect.commands.keeping import (
    AskOwner,
    CollectGarbage,
    DeleteRepositoryPoints,
    GetRepositoryRetention,
    LockRepositoryPoints,
    PreviewRepositoryRetention,
    ScrubRepository,
    SetRepositoryRetention,
    SetRules,
    UndeleteRepositoryPoints,
)
from cloudconnect.commands.lan import ReportEvent, ReportWarning
from cloudconnect.commands.repositories import (
    DescribeRepository,
    HasRepository,
    ListRepositoryPoints,
    MakeRepository,
    MeasureRepository,
    RemoveRepository,
    ReplaceRepositoryDescription,
    SeedCache,
    WithdrawSession,
)
from cloudconnect.content.atrest import EncryptionMode, RepositoryDescription
from cloudconnect.content.heads import SignedHead
from cloudconnect.errors import Busy, NoSpace, Refused
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.data_mover.acts import RepositoryActs
from cloudconnect.provider.data_mover.key_folder import KeyFolder
from cloudconnect.provider.data_mover.maintenance import Intervals, Maintenance, Owner
from cloudconnect.provider.data_mover.reserve import Reserve, is_no_room
from cloudconnect.provider.data_mover.seeding import FillCache, seed_cache
from cloudconnect.repository.store import Repository
from cloudconnect.sessions.role import TargetRole

#: Acts on repositories at the same time. Their threads are others than the sessions', or as many
#: slow sessions as there are threads would keep everybody from logging in.
ACTS_MAX = 32


class RepositoryCommands(TargetRole):
    """The commands about repositories below one directory, and what is done to those by itself.

    :param reactor: clock and threads
    :param directory: where repositories lie, each in a folder named by its id in hexadecimal
    :param keys: where the provider's own keys of repositories lie; ``keys`` beside ``directory`` by
        default
    :param reserve: what is let go of where the disk is full
    :param intervals: how often what is done by itself
    :ivar acts: what is done to repositories beside sessions
    :ivar maintenance: does some of that by itself
    :ivar fill: has the WAN accelerator of this process fill a cache; None where it has none
    """

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        keys: Path | None = None,
        reserve: Reserve | None = None,
        intervals: Intervals | None = None,
    ) -> None:
        super().__init__(reactor)
        self._directory = directory
        self.acts = RepositoryActs(directory, reserve)
        self.maintenance = Maintenance(reactor, self.acts, self._owner, self._keep, intervals)
        self._keys = KeyFolder(directory.parent / "keys" if keys is None else keys)
        self._pool = ThreadPool(0, ACTS_MAX, "mover")
        self.fill: FillCache | None = None

    def _in_thread(self, call: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self.reactor, self._pool, call, *arguments)

    @HasRepository.responder
    def has_repository(self, repository: bytes) -> dict[str, Any]:
        """Whether it is here."""
        return {"there": self.acts.folder(repository).is_dir()}

    @WithdrawSession.responder
    def withdraw_session(self, repository: bytes, session: bytes) -> Deferred[dict[str, Any]]:
        """Withdraw what another mover's session has published."""
        done = self._in_thread(self.acts.withdraw_session, repository, session)
        return done.addCallback(lambda count: {"count": count})

    @MakeRepository.responder
    def make_repository(self, description: bytes) -> Deferred[dict[str, Any]]:
        """Make a repository."""
        wanted = RepositoryDescription.decode(description)
        made = self._in_thread(self._make, wanted)
        return made.addCallback(lambda _: {})

    def _make(self, description: RepositoryDescription) -> None:
        provided = description.mode is EncryptionMode.PROVIDER
        if provided:  # before anything could be stored that it must seal
            try:
                self._keys.make(description.repository)
            except OSError as error:
                if is_no_room(error):
                    raise NoSpace("the provider's disk is full") from error
                raise
        with Repository.create(self.acts.folder(description.repository), description) as made:
            if provided:
                self._keys.note(made)

    @RemoveRepository.responder
    def remove_repository(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """Delete a repository, then the provider's own key of it."""
        done = self._in_thread(self._remove, repository)
        return done.addCallback(lambda _: {})

    def _remove(self, repository: bytes) -> None:
        if any(live.package.repository == repository for live in self._by_session.values()):
            raise Busy("a session uses the repository")
        self.acts.remove(repository)
        self._keys.remove(repository)

    @DescribeRepository.responder
    def describe_repository(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """What the tenant stored at ``connect``."""
        described = self._in_thread(self._describe, repository)
        return described.addCallback(lambda encoded: {"description": encoded})

    def _describe(self, repository: bytes) -> bytes:
        opened = self.acts.open(repository)
        try:
            return opened.description.encode()
        finally:
            opened.close()

    @ReplaceRepositoryDescription.responder
    def replace_description(
        self, repository: bytes, description: bytes, head: bytes, head_signature: bytes
    ) -> Deferred[dict[str, Any]]:
        """Take a new description, signed for by the key before it."""
        signed = SignedHead(head, head_signature)
        done = self._in_thread(self._replace_description, repository, description, signed)
        return done.addCallback(lambda _: {})

    def _replace_description(self, repository: bytes, encoded: bytes, head: SignedHead) -> None:
        with self.acts.open(repository) as opened:
            opened.replace_description(encoded, head)

    @ListRepositoryPoints.responder
    def list_points(self, repository: bytes, **query: Any) -> Deferred[dict[str, Any]]:
        """One page of a repository's points."""
        listed = self._in_thread(self.acts.points, repository, query)
        return listed.addCallback(lambda found: {"points": found[0], "more": found[1]})

    # --- how points are kept; from the service too ----------------------------------------------

    @SetRules.responder
    def set_rules(self, repository: bytes, rules: Any, frozen: bool) -> Deferred[dict[str, Any]]:
        """What the provider demands and allows, from now on."""
        done = self._in_thread(self.acts.set_rules, repository, rules, frozen)
        return done.addCallback(lambda kept: {"kept": kept})

    @DeleteRepositoryPoints.responder
    def delete_points(self, repository: bytes, points: Any, by: str) -> Deferred[dict[str, Any]]:
        """Put points into the bin."""
        done = self._in_thread(self.acts.delete, repository, points, by)
        return done.addCallback(lambda rows: {"points": rows})

    @UndeleteRepositoryPoints.responder
    def undelete_points(self, repository: bytes, points: Any) -> Deferred[dict[str, Any]]:
        """Take points out of the bin."""
        done = self._in_thread(self.acts.undelete, repository, points)
        return done.addCallback(lambda rows: {"points": rows})

    @LockRepositoryPoints.responder
    def lock_points(self, repository: bytes, points: Any, until: int) -> Deferred[dict[str, Any]]:
        """Lock points."""
        done = self._in_thread(self.acts.lock, repository, points, until)
        return done.addCallback(lambda rows: {"points": rows})

    @GetRepositoryRetention.responder
    def get_retention(self, repository: bytes, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of the retention policies."""
        found = self._in_thread(self.acts.retention, repository, after, limit)
        return found.addCallback(lambda f: {"policies": f[0], "rules": f[1], "more": f[2]})

    @SetRepositoryRetention.responder
    def set_retention(
        self, repository: bytes, host: str, job: str, policy: Any
    ) -> Deferred[dict[str, Any]]:
        """Set a retention policy."""
        done = self._in_thread(self.acts.set_retention, repository, host, job, policy)
        return done.addCallback(lambda row: {"policy": row})

    @PreviewRepositoryRetention.responder
    def preview_retention(
        self,
        repository: bytes,
        proposed: bool,
        host: str,
        job: str,
        policy: Any,
        after: int,
        limit: int,
    ) -> Deferred[dict[str, Any]]:
        """One page of what retention would do."""
        as_if = (host, job, policy) if proposed else None
        found = self._in_thread(self.acts.preview_retention, repository, as_if, after, limit)
        return found.addCallback(lambda f: {"decisions": f[0], "more": f[1]})

    @MeasureRepository.responder
    def measure(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """What a repository holds, and when it was tended."""
        done = self._in_thread(self.acts.report, repository)
        return done.addCallback(lambda numbers: {"measured": numbers})

    @CollectGarbage.responder
    def collect(self, repository: bytes, tenant: str) -> Deferred[dict[str, Any]]:
        """Collect garbage now; answered when done."""
        done = self.maintenance.collect(repository, tenant)
        return done.addCallback(lambda result: {"result": result})

    @ScrubRepository.responder
    def scrub(self, repository: bytes, tenant: str, limit: int) -> Deferred[dict[str, Any]]:
        """Scrub now; answered when done."""
        done = self.maintenance.scrub(repository, tenant, limit)
        return done.addCallback(lambda result: {"result": result})

    @SeedCache.responder
    def seed(
        self, repository: bytes, tenant: str, host: str, job: str, limit: int
    ) -> Deferred[dict[str, Any]]:
        """Seed the cache of the accelerator in this process; answered when done."""
        if self.fill is None:
            raise Refused(
                "there is no WAN accelerator in this provider's process (wan_cache_gb in "
                "provider.toml): only the cache of such a one can be seeded"
            )
        seeding = seed_cache(self.fill, self.acts, self._keys, repository, tenant, host, job, limit)
        return seeding.addCallback(self._seeded, repository, tenant)

    def _seeded(self, result: dict[str, Any], repository: bytes, tenant: str) -> dict[str, Any]:
        event = SessionEvent(
            time=time.time(),
            name="cache_seeded",
            session="",
            text=f"WAN cache of tenant {tenant} seeded: {result['points']} restore point(s), "
            f"{result['bytes_added']} bytes",
            fields={**result, "tenant": tenant, "repository": repository.hex()},
        )
        self._keep(event)
        return {"result": result}

    async def _ask_owner(self, repository: bytes) -> Owner | None:
        if self.link is None:
            return None
        answer = await self.link.call(AskOwner, repository=repository)
        found = Owner(answer["tenant"], answer["rules"], answer["frozen"])
        return found if found.tenant else None

    def _owner(self, repository: bytes) -> Deferred[Owner | None]:
        return Deferred.fromCoroutine(self._ask_owner(repository))

    def _keep(self, told: SessionEvent | SecurityWarning) -> Deferred[Any]:
        """Have the service keep something that belongs to no session."""
        if isinstance(told, SecurityWarning):
            return self.tell(ReportWarning, warning=told.as_dict())
        return self.tell(ReportEvent, event=attrs.asdict(told))
