"""Layer 4: what a provider's admin does to the nodes of its LAN."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.admin import ChangeNode, InviteNode, ListNodes, NoteNode
from cloudconnect.errors import Refused, UsageError
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.admin.answers import AdminAnswers
from cloudconnect.provider.service.planning import HERE
from cloudconnect.settings import PAGE_ROWS_MAX
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY, MOVER

#: The roles of nodes, as their certificates say them.
NODE_ROLES = (GATEWAY, MOVER, ACCELERATOR)
#: What can be done to a node.
NODE_ACTS = ("drain", "undrain", "remove")


def check_name(role: str, name: str) -> None:
    """Whether a node may be called so.

    :raises UsageError: no such role; or the name means the gateway in the service's own process
    """
    if role not in NODE_ROLES:
        raise UsageError(f"nodes are {', '.join(NODE_ROLES)}")
    if (role, name) == (GATEWAY, HERE):
        raise UsageError(
            f"{HERE} is the provider's own port, and no gateway can be called so: choose another "
            "name"
        )


def change_node(accounts: Accounts, role: str, name: str, act: str) -> None:
    """Write down what an admin wants of a node.

    :param act: one of :data:`NODE_ACTS`
    :raises NotFound: there is no such node
    :raises Refused: it is the provider's own port
    :raises UsageError: no such act
    """
    if act not in NODE_ACTS or role not in NODE_ROLES:
        raise UsageError(f"nodes are {', '.join(NODE_ROLES)}; acts are {', '.join(NODE_ACTS)}")
    if (role, name) == (GATEWAY, HERE):
        raise Refused(
            "the provider's own port cannot be drained: it is in the process in which every "
            "control channel ends, so that nothing is won before that one is stopped, and jobs go "
            "on by themselves when it is back. To have tenants come through other gateways only, "
            "leave gateway out of roles in provider.toml, and restart"
        )
    if act == "remove":
        accounts.revoke_node(role, name)
    else:
        accounts.change_node(role, name, act == "drain")


class NodeAnswers(AdminAnswers):
    """The acts on nodes."""

    @InviteNode.responder
    def invite_node(self, role: str, name: str, seconds: int) -> Deferred[dict[str, Any]]:
        """Make a token for a new node."""
        check_name(role, name)
        made = self._run(self._administration.accounts.invite_node, role, name, seconds)
        return made.addCallback(
            lambda token: {"identifier": token.identifier, "secret": token.secret}
        )

    @NoteNode.responder
    def note_node(self, role: str, name: str, spki: str) -> Deferred[dict[str, Any]]:
        """A node got its certificate by hand."""
        check_name(role, name)
        return self._run(self._administration.accounts.note_node, role, name, spki).addCallback(
            lambda _: {}
        )

    @ListNodes.responder
    def list_nodes(self) -> Deferred[dict[str, Any]]:
        """Every node, and what it does now."""
        return self._run(self._administration.accounts.nodes).addCallback(
            lambda rows: {
                "rows": [
                    {**row, **self._reach.node_fields(row["role"], row["name"])}
                    for row in rows[:PAGE_ROWS_MAX]
                ]
            }
        )

    @ChangeNode.responder
    def change_node(self, role: str, name: str, act: str) -> Deferred[dict[str, Any]]:
        """Drain a node, let it have sessions again, or take its certificate back."""
        done = self._run(change_node, self._administration.accounts, role, name, act)
        return done.addCallback(lambda _: {"sessions": self._reach.node_changed(role, name, act)})
