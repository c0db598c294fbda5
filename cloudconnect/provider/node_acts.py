"""Layer 4: what a provider's admin does to the nodes of its LAN, at the running provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.admin import ChangeNode, InviteNode, ListNodes, NoteNode
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.paging import fit_page
from cloudconnect.errors import UsageError
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER

if TYPE_CHECKING:
    from cloudconnect.provider.accounts import Accounts
    from cloudconnect.provider.service import CloudConnectService

#: The roles of nodes, as their certificates say them.
NODE_ROLES = (GATEWAY, MOVER, ACCELERATOR)
#: What can be done to a node.
NODE_ACTS = ("drain", "undrain", "remove")


def change_node(accounts: Accounts, role: str, name: str, act: str) -> None:
    """Write down what an admin wants of a node.

    :param act: one of :data:`NODE_ACTS`
    :raises NotFound: there is no such node
    :raises UsageError: no such act
    """
    if act not in NODE_ACTS or role not in NODE_ROLES:
        raise UsageError(f"nodes are {', '.join(NODE_ROLES)}; acts are {', '.join(NODE_ACTS)}")
    if act == "remove":
        accounts.revoke_node(role, name)
    else:
        accounts.change_node(role, name, act == "drain")


class NodeAdministration(BoundedAMP):
    """The part of the admin socket that is about nodes."""

    _run: Callable[..., Deferred[Any]]

    @property
    def _accounts(self) -> Accounts:
        raise NotImplementedError

    @property
    def _cloud(self) -> CloudConnectService:
        raise NotImplementedError

    @InviteNode.responder
    def invite_node(self, role: str, name: str, seconds: int) -> Deferred[dict[str, Any]]:
        """Make a token for a new node."""
        if role not in NODE_ROLES:
            raise UsageError(f"nodes are {', '.join(NODE_ROLES)}")
        made = self._run(self._accounts.invite_node, role, name, seconds)
        return made.addCallback(
            lambda token: {"identifier": token.identifier, "secret": token.secret}
        )

    @NoteNode.responder
    def note_node(self, role: str, name: str, spki: str) -> Deferred[dict[str, Any]]:
        """A node got its certificate by hand."""
        return self._run(self._accounts.note_node, role, name, spki).addCallback(lambda _: {})

    @ListNodes.responder
    def list_nodes(self) -> Deferred[dict[str, Any]]:
        """Every node, and what it does now."""
        return self._run(self._accounts.nodes).addCallback(
            lambda rows: {"rows": [self._live(row) for row in rows[:PAGE_ROWS_MAX]]}
        )

    def _live(self, row: dict[str, Any]) -> dict[str, Any]:
        nodes = self._cloud.nodes
        links = [link for link in nodes.named(row["role"], row["name"]) if nodes.is_there(link)]
        sessions = sum(self._cloud.sessions_at(link) for link in links)
        live = {**row, "connected": bool(links), "sessions": sessions}
        if links and row["role"] == GATEWAY:
            live |= nodes.gateway_fields(links[0])
        return live

    @ChangeNode.responder
    def change_node(self, role: str, name: str, act: str) -> Deferred[dict[str, Any]]:
        """Drain a node, let it have sessions again, or take its certificate back."""
        done = self._run(change_node, self._accounts, role, name, act)
        return done.addCallback(lambda _: {"sessions": self._acted(role, name, act)})

    def _acted(self, role: str, name: str, act: str) -> int:
        sessions = self._cloud.leave(role, name, act != "undrain")
        if act == "remove":
            self._cloud.expel(role, name)
        return sessions


async def points_at_mover(
    service: CloudConnectService, filters: dict[str, str], after: int, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """One page of a tenant's restore points, from the mover that has its repository.

    :param filters: ``tenant``, ``host``, ``job``, ``tag``, ``state``
    :return: the rows, each with its ``cursor``, and whether there is more
    :raises NotFound: there is no such tenant, or it has no repository
    """
    name = filters.get("tenant", "")
    query: dict[str, Any] = {key: filters.get(key, "") for key in ("host", "job", "tag")}
    states = [filters["state"]] if filters.get("state") else None
    answer = await service.points(name, **query, after=after, limit=limit, states=states)
    rows = [{"tenant": name, **row, "cursor": row["arrival"]} for row in answer["points"]]
    page, left = fit_page(rows, limit)
    return page, left or answer["more"]
