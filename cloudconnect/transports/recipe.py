"""Layer 2, transports: from a description of a layer to factories that wrap others.

A :class:`Recipe` says once how a layer is made (its keys, its names) and gives the factories for
both sides; :class:`LayerFactory` is what both are.

Source: Twisted's ``IProtocolFactory``; ``docs/howto/wrapper.rst``, item 12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import ClientFactory

from cloudconnect.transports.layer import Layer, log_prefix


class LayerFactory(ClientFactory):
    """Wraps the protocols that another factory builds, each in a layer of its own.

    :param factory: builds the protocols above the layer; when it refuses (builds None) so do we
    :param make: makes the layer around one protocol
    :param name: what the log calls the layer
    """

    noisy = False

    def __init__(
        self, factory: IProtocolFactory, make: Callable[[IProtocol], Any], name: str
    ) -> None:
        self.wrappedFactory: Any = factory
        self._make = make
        self._name = name

    def logPrefix(self) -> str:
        """The wrapped factory's prefix and the layer's name."""
        return log_prefix(self.wrappedFactory, self._name)

    def doStart(self) -> None:
        """Somebody listens or connects with us."""
        self.wrappedFactory.doStart()
        super().doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        """They have stopped."""
        self.wrappedFactory.doStop()
        super().doStop()  # type: ignore[no-untyped-call]

    def startedConnecting(self, connector: Any) -> None:
        """Forwarded to a wrapped client factory.

        :param connector: Twisted's
        """
        self._forward("startedConnecting", connector)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        """Forwarded to a wrapped client factory.

        :param connector: Twisted's
        :param reason: Twisted's
        """
        self._forward("clientConnectionFailed", connector, reason)

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        """Forwarded to a wrapped client factory.

        :param connector: Twisted's
        :param reason: Twisted's
        """
        self._forward("clientConnectionLost", connector, reason)

    def _forward(self, method: str, *arguments: Any) -> None:
        forward = getattr(self.wrappedFactory, method, None)
        if forward is not None:
            forward(*arguments)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A layer around the protocol that the wrapped factory builds, or None when it refuses.

        :param addr: the peer's address, or None
        """
        protocol = self.wrappedFactory.buildProtocol(addr)
        if protocol is None:
            return None
        layer = self._make(protocol)
        layer.factory = self
        return layer


class Recipe:
    """How to make one kind of layer: base of the public, frozen descriptions.

    A concrete recipe overrides :meth:`layer`.
    """

    #: what the log calls the layer
    name = "layer"

    def layer(self, initiator: bool, protocol: IProtocol, clock: IReactorTime) -> Layer:
        """A new layer around ``protocol``, for the side that opened the connection or the other.

        :param initiator: whether this side opened the connection
        :param clock: the reactor, or a ``Clock``: measures the layer's times
        """
        raise NotImplementedError

    def client_factory(self, factory: IProtocolFactory, reactor: IReactorTime) -> LayerFactory:
        """Wrap ``factory`` for connections that we open.

        :param reactor: the reactor, or a ``Clock``: measures the layer's times
        """
        return LayerFactory(factory, lambda p: self.layer(True, p, reactor), self.name)

    def server_factory(self, factory: IProtocolFactory, reactor: IReactorTime) -> LayerFactory:
        """Wrap ``factory`` for connections that we accept.

        :param reactor: the reactor, or a ``Clock``: measures the layer's times
        """
        return LayerFactory(factory, lambda p: self.layer(False, p, reactor), self.name)
