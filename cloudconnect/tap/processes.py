"""Layer 6: what every long-running process of ours does at its start and at a fatal error."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.errors import CloudConnectError, UsageError
from cloudconnect.settings import BACKLOG
from cloudconnect.tap.allocator import few_arenas


def harden() -> None:
    """No core dumps, since they would hold keys; as many descriptors as we may have; one heap."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    few_arenas()


def stop_with(reactor: Any, log: Logger, failure: Failure) -> None:
    """The process cannot do its work: say why in a line, and stop it with exit status 1."""
    if failure.check(CloudConnectError, CannotListenError, OSError):
        log.critical("cannot start: {reason}", reason=failure.getErrorMessage())
    else:
        log.failure("cannot start", failure)
    reactor.addSystemEventTrigger("after", "shutdown", _exit)
    try:
        reactor.stop()
    except ReactorNotRunning:
        reactor.callWhenRunning(reactor.stop)


def _exit() -> None:
    """``twist`` ends with status 0 whatever happened: a supervisor would not notice."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def endpoint_from(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint that a string describes.

    :raises UsageError: it describes none
    """
    from twisted.internet.endpoints import serverFromString  # a tenant's command listens nowhere

    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{description!r} is not an endpoint to listen on: {error}") from None
    return endpoint


def listening_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint of a public port, with an accept queue that outlasts a burst of connections.

    :raises UsageError: the string describes none
    """
    if description.startswith("tcp") and ":backlog=" not in description:
        endpoint_from(reactor, description)  # an error names what the admin wrote
        description = f"{description}:backlog={BACKLOG}"
    return endpoint_from(reactor, description)
