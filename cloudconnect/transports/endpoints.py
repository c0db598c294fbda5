"""Layer 2, transports: endpoints whose connections carry a layer of ours.

In the way of :func:`twisted.internet.endpoints.wrapClientTLS`, for any recipe of this package
(:class:`~cloudconnect.transports.stream.RecordStream` and the others), over any endpoint, one
layer upon another as well. Unlike there, a client's ``connect()`` is done when the layer's
handshake is: until then nothing is known of the peer.

Source: Twisted's ``IStreamClientEndpoint`` and ``IStreamServerEndpoint``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from zope.interface import implementer

from cloudconnect.transports.layer import Layer
from cloudconnect.transports.recipe import Recipe


@implementer(IStreamClientEndpoint)
class LayerClientEndpoint:
    """Connects through ``endpoint``, with a layer between its transport and the protocol.

    :param layer: how the layer is made
    :param endpoint: what connects below it
    :param reactor: the reactor, or a ``Clock``: measures the layer's times
    """

    def __init__(
        self, layer: Recipe, endpoint: IStreamClientEndpoint, reactor: IReactorTime
    ) -> None:
        self._layer = layer
        self._endpoint = endpoint
        self._reactor = reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect, and go through the handshake.

        :param protocolFactory: builds the protocol above the layer
        :return: fires with that protocol once the layer's handshake is over; its failure is the
            endpoint's or the layer's reason. Cancelling it closes the connection.
        """
        connecting: Deferred[Any] = maybeDeferred(
            lambda: self._endpoint.connect(
                self._layer.client_factory(protocolFactory, self._reactor)
            )
        )
        return connecting.addCallback(_handshake_done)


def _handshake_done(layer: Layer) -> Deferred[Any]:
    """``layer``'s protocol once it is ready, as a Deferred whose cancelling closes the layer."""
    done: Deferred[Any] = Deferred(lambda _: layer.abortConnection())

    def settle(result: Any) -> None:
        if not done.called:  # or else it was cancelled
            done.callback(result)

    layer.when_ready().addBoth(settle)
    return done


@implementer(IStreamServerEndpoint)
class LayerServerEndpoint:
    """Listens on ``endpoint``, with a layer between each accepted transport and its protocol.

    :param layer: how the layer is made
    :param endpoint: what listens below it
    :param reactor: the reactor, or a ``Clock``: measures the layer's times
    """

    def __init__(
        self, layer: Recipe, endpoint: IStreamServerEndpoint, reactor: IReactorTime
    ) -> None:
        self._layer = layer
        self._endpoint = endpoint
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Listen.

        :param protocolFactory: builds a protocol for each connection; it is told that the handshake
            is over by ``handshakeCompleted``, if it is an ``IHandshakeListener``
        :return: fires with the listening port
        """
        return maybeDeferred(
            lambda: self._endpoint.listen(
                self._layer.server_factory(protocolFactory, self._reactor)
            )
        )


def wrap_client_endpoint(
    layer: Recipe, endpoint: IStreamClientEndpoint, reactor: IReactorTime
) -> LayerClientEndpoint:
    """An endpoint that connects as ``endpoint`` does and puts ``layer`` on the connection.

    :param layer: for instance ``RecordStream(secret, context)``
    :param endpoint: any client endpoint
    :param reactor: the clock of the layer's timers
    """
    return LayerClientEndpoint(layer, endpoint, reactor)


def wrap_server_endpoint(
    layer: Recipe, endpoint: IStreamServerEndpoint, reactor: IReactorTime
) -> LayerServerEndpoint:
    """An endpoint that listens as ``endpoint`` does and puts ``layer`` on each connection.

    :param layer: for instance ``RecordStream(secret, context)``
    :param endpoint: any server endpoint
    :param reactor: the clock of the layers' timers
    """
    return LayerServerEndpoint(layer, endpoint, reactor)


class _One(Factory):
    """Builds a protocol that is there already."""

    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """That one."""
        return self._protocol


def connect_protocol(endpoint: IStreamClientEndpoint, protocol: IProtocol) -> Deferred[Any]:
    """Connect one protocol that is there already.

    As Twisted's ``connectProtocol``, whose module imports every kind of endpoint that there is.

    :param endpoint: where to
    :param protocol: takes the connection
    :return: fires with ``protocol``
    """
    return endpoint.connect(_One(protocol))
