"""An echo over AES-256-GCM records, over a UNIX socket: both sides in one program.

The layer is one wrapper around each endpoint; protocol and factory are any of Twisted's.
"""

import os
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from cloudconnect.keys import Secret
from cloudconnect.transports import RecordStream, wrap_client_endpoint, wrap_server_endpoint


class Asker(Protocol):
    """Sends a greeting, and closes when all of it has come back."""

    def __init__(self):
        self.received = b""
        self.done = Deferred()

    def dataReceived(self, data):
        """Collect the answer."""
        self.received += data
        if self.received == b"hello, records":
            self.transport.loseConnection()

    def connectionLost(self, reason):
        """ConnectionDone says that nothing was changed and nothing is missing."""
        self.done.callback((self.received, reason.type.__name__))


async def main(reactor, path):
    """Serve on the UNIX socket ``path``, connect to it, and print what came back."""
    stream = RecordStream(Secret(os.urandom(32)), context=b"an example")
    server = wrap_server_endpoint(stream, serverFromString(reactor, f"unix:{path}"), reactor)
    client = wrap_client_endpoint(stream, clientFromString(reactor, f"unix:{path}"), reactor)
    await server.listen(Factory.forProtocol(Echo))
    asker = await client.connect(Factory.forProtocol(Asker))
    asker.transport.write(b"hello, records")
    print(*await asker.done)


if __name__ == "__main__":
    react(lambda reactor, path: Deferred.fromCoroutine(main(reactor, path)), sys.argv[1:])
