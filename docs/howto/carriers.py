"""One echo over a UNIX socket, over TLS, and over a stack of layers.

Each case is a list of layers, from the bottom to the top, and the endpoints below them.
"""

import os
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from cloudconnect.config.certificates import make_server_certificate
from cloudconnect.keys import Secret
from cloudconnect.transports import (
    NoiseTunnel,
    PinnedTLS,
    RecordStream,
    TrustPolicy,
    wrap_client_endpoint,
    wrap_server_endpoint,
)


class Asker(Protocol):
    """Sends a greeting, and closes when all of it has come back."""

    def __init__(self):
        self.received = b""
        self.done = Deferred()

    def dataReceived(self, data):
        """Collect the answer."""
        self.received += data
        if self.received == b"hello":
            self.transport.loseConnection()

    def connectionLost(self, reason):
        """Whoever waits is told what came, and why no more does."""
        self.done.callback((self.received, reason.type.__name__))


async def ask(reactor, name, layers, server, client_string):
    """Serve at ``server`` under ``layers``, connect to it, and print what came back."""
    for layer in layers:
        server = wrap_server_endpoint(layer, server, reactor)
    port = await server.listen(Factory.forProtocol(Echo))
    client = clientFromString(reactor, client_string(port.getHost()))
    for layer in layers:
        client = wrap_client_endpoint(layer, client, reactor)
    asker = await client.connect(Factory.forProtocol(Asker))
    asker.transport.write(b"hello")
    print(name, *await asker.done)


async def main(reactor, folder):
    """All three, one after the other."""
    stream = RecordStream(Secret(os.urandom(32)), context=b"an example")
    tunnel = NoiseTunnel(Secret(os.urandom(32)), prologue=b"an example")
    identity = make_server_certificate(["localhost"], folder)
    spki, _ = identity.fingerprints()
    tls = PinnedTLS(trust=TrustPolicy("localhost", fingerprints=[spki]), identity=identity)

    def unix(name):
        return serverFromString(reactor, f"unix:{folder}/{name}")

    def at_path(address):
        return f"unix:{address.name.decode()}"

    def at_port(address):
        return f"tcp:127.0.0.1:{address.port}"

    tcp = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    await ask(reactor, "unix ", [stream], unix("a"), at_path)
    await ask(reactor, "tls  ", [tls], tcp, at_port)
    await ask(reactor, "stack", [tls, tunnel, stream], unix("b"), at_path)


if __name__ == "__main__":
    react(lambda reactor, folder: Deferred.fromCoroutine(main(reactor, folder)), sys.argv[1:])
