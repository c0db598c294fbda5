"""Layer 4: answers an admin's commands on what is stored: listings, collections, scrubs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.admin import Collect, List, Reload, Scrub, Seed, ShowStatus
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.provider.admin.answers import AdminAnswers


class RepositoryAnswers(AdminAnswers):
    """The acts on what is stored."""

    @List.responder
    def page(self, what: str, filters: Any, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of a listing."""
        if not isinstance(filters, dict):
            raise UsageError("filters is a map")
        return Deferred.fromCoroutine(self._page(what, filters, after, limit))

    async def _page(
        self, what: str, filters: dict[str, str], after: int, limit: int
    ) -> dict[str, Any]:
        listings = self._administration.listings
        try:
            rows, more = await self._run(listings.page, what, filters, after, limit)
        except NotFound:
            if what != "point":
                raise
            # The repository does not lie in this process's directory.
            elsewhere = await self._reach.points(filters, after, limit)
            if elsewhere is None:
                raise
            rows, more = elsewhere
        return {"rows": rows, "more": more}

    @Collect.responder
    def collect(self, name: str) -> Deferred[dict[str, Any]]:
        """Collect garbage."""
        done = Deferred.fromCoroutine(self._reach.collect(name))
        return done.addCallback(lambda result: {"result": result})

    @Scrub.responder
    def scrub(self, name: str, limit: int) -> Deferred[dict[str, Any]]:
        """Compare stored bytes with their digests."""
        done = Deferred.fromCoroutine(self._reach.scrub(name, limit))
        return done.addCallback(lambda result: {"result": result})

    @Seed.responder
    def seed(self, name: str, host: str, job: str, limit: int) -> Deferred[dict[str, Any]]:
        """Seed the WAN cache from a repository."""
        done = Deferred.fromCoroutine(self._reach.seed(name, host, job, max(0, limit)))
        return done.addCallback(lambda result: {"result": result})

    @ShowStatus.responder
    def show_status(self, seconds: int) -> Deferred[dict[str, Any]]:
        """How the provider is."""
        done = Deferred.fromCoroutine(self._reach.status(seconds))
        return done.addCallback(lambda status: {"status": status})

    @Reload.responder
    def reload(self) -> dict[str, Any]:
        """Read certificates and settings again."""
        return {"done": self._reach.reload()}
