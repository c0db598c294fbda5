"""Layer 4: the socket through which an admin acts on the provider that runs.

A UNIX socket of mode 0600 in the provider's directory. Where no provider runs, the command line has
the same acts from :func:`admin_answers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols import amp
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.provider.admin.administration import Administration
from cloudconnect.provider.admin.node_acts import NodeAnswers
from cloudconnect.provider.admin.reach import Reach, RunningProvider
from cloudconnect.provider.admin.repository_answers import RepositoryAnswers
from cloudconnect.provider.admin.tenant_answers import TenantAnswers
from cloudconnect.provider.audit.auditing import act_name, is_act, without_secrets
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.watching import Watchers


def admin_answers(
    administration: Administration,
    in_accounts_thread: Callable[..., Deferred[Any]],
    reach: Reach,
) -> tuple[amp.CommandLocator, ...]:
    """Who answers an admin's commands.

    :param in_accounts_thread: runs a blocking call and fires with its result
    :param reach: what they reach beside the accounts
    """
    kinds = (TenantAnswers, RepositoryAnswers, NodeAnswers)
    return tuple(kind(administration, in_accounts_thread, reach) for kind in kinds)


class AdminProtocol(BoundedAMP):
    """One connection to the admin socket.

    :param answers: who answers
    :param watchers: are told of every act
    """

    def __init__(
        self, reactor: Any, answers: tuple[amp.CommandLocator, ...], watchers: Watchers
    ) -> None:
        super().__init__(reactor)
        self.answer_with(*answers)
        self._watchers = watchers

    def _look_on(
        self, command: type[amp.Command], arguments: dict[str, Any], answer: Deferred[Any]
    ) -> None:
        if not is_act(command):
            return
        act, fields = act_name(command.__name__), without_secrets(arguments)

        def over(result: Any) -> Any:
            outcome = "done"
            if isinstance(result, Failure):
                outcome = getattr(result.value, "reason", "failed")
            self._watchers.tell(lambda watcher: watcher.administered(act, fields, outcome))
            return result

        answer.addBoth(over)


class AdminFactory(Factory):
    """Serves the admin socket.

    :param administration: does the acts, blocking
    :param in_accounts_thread: runs a blocking call and fires with its result
    :param service: of the provider that runs
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        administration: Administration,
        in_accounts_thread: Callable[..., Deferred[Any]],
        service: CloudConnectService,
    ) -> None:
        self._reactor = reactor
        self._answers = admin_answers(administration, in_accounts_thread, RunningProvider(service))
        self._watchers = service.watchers

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol:
        """One for this connection."""
        return AdminProtocol(self._reactor, self._answers, self._watchers)
