"""Tests of :mod:`cloudconnect.transports.strings`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import IPlugin, getPlugins
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import (
    FingerprintMismatch,
    Tampered,
    Truncated,
    UsageError,
)
from cloudconnect.transports.strings import LayerParser, PinnedTLSParser, RecordStreamParser
from cloudconnect.transports.tls import CONTROL_ALPN, PinnedTLS
from cloudconnect.transports.trust import Policy
from cloudconnect.transports.tunnel import NoiseTunnel
from tests.certificates import Authority

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIXES = {"recordstream", "noisetunnel", "pinnedtls"}
#: Names of files that mean something in a string, or to somebody in between.
ODD = [
    "with space",
    "with:colon",
    "with=equals",
    "back\\slash",
    "ends in backslash\\",
    "\\:=\\\\::",
    "%7e$HOME'\"`",
    "sch\u00f6n \u9375 \U0001f511",
    "line\nbreak",
    "bytes\udcff",
]


class Files(SynchronousTestCase):
    """Has a folder, and keys in it."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="s")  # short: there will be UNIX sockets in it
        self.addCleanup(shutil.rmtree, self.folder)

    def key(self, name: str = "key", secret: int = 0xC0) -> str:
        """The path of a key file whose 32 bytes are ``secret``, with the highest bit set."""
        path = f"{self.folder}/{name}"
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(bytes((secret | 0x80,)) * 32)
        return path


def stream(key: str, endpoint: str, context: str = "tests") -> str:
    """The string of a record stream."""
    return (
        f"recordstream:keyFile={quoteStringArgument(key)}:context={quoteStringArgument(context)}"
        f":endpoint={quoteStringArgument(endpoint)}"
    )


def tunnel(key: str, endpoint: str, prologue: str = "tests") -> str:
    """The string of a tunnel."""
    return (
        f"noisetunnel:keyFile={quoteStringArgument(key)}:prologue={quoteStringArgument(prologue)}"
        f":endpoint={quoteStringArgument(endpoint)}"
    )


class GrammarTests(Files):
    """Strings, as Twisted's two functions take them."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()

    def client(self, string: Any) -> Any:
        return clientFromString(self.reactor, string)

    def server(self, string: Any) -> Any:
        return serverFromString(self.reactor, string)

    def test_plugins(self) -> None:
        """Twisted finds a parser for each layer, for clients and for servers."""
        for interface in (
            IStreamClientEndpointStringParserWithReactor,
            IStreamServerEndpointStringParser,
        ):
            ours = [found for found in getPlugins(interface) if found.prefix in PREFIXES]
            self.assertEqual(PREFIXES, {found.prefix for found in ours})
            for found in ours:
                verifyObject(interface, found)
                verifyObject(IPlugin, found)

    def test_written_out(self) -> None:
        """The grammar as it is documented, letter by letter."""
        self.key()
        client = self.client(
            f"recordstream:keyFile={self.folder}/key:context=chat:"
            r"endpoint=tcp\:host=example.com\:port=6180\:timeout=7"
        )
        self.assertEqual(b"\xc0" * 32, client._layer.secret.reveal())
        self.assertEqual(b"chat", client._layer.context)
        self.assertEqual(("example.com", 6180), (client._endpoint._host, client._endpoint._port))
        self.assertEqual(7, client._endpoint._timeout)
        server = self.server(
            f"recordstream:context=chat:endpoint=noisetunnel\\:keyFile={self.folder}/key\\:"
            rf"prologue=\:endpoint=tcp\\\:6180\\\:interface=127.0.0.1:keyFile={self.folder}/key"
        )
        self.assertEqual(b"chat", server._layer.context)
        self.assertIsInstance(server._endpoint._layer, NoiseTunnel)
        self.assertEqual(b"", server._endpoint._layer.prologue)
        inner = server._endpoint._endpoint
        self.assertEqual((6180, "127.0.0.1"), (inner._port, inner._interface))

    def test_odd_paths(self) -> None:
        """A path may hold anything, at every depth, on both sides."""
        for depth, name in enumerate(ODD):
            path = self.key(name, depth + 1)
            string = "tcp:1"
            for number in range(depth % 4 + 1):
                make = (stream, tunnel)[number % 2]
                string = make(path, string, name)
            for endpoint in (self.server(string), self.client(string.replace("tcp", "unix"))):
                for number in range(depth % 4, -1, -1):
                    layer = endpoint._layer
                    secret = layer.psk if number % 2 else layer.secret
                    bound = layer.prologue if number % 2 else layer.context
                    self.assertEqual(bytes((depth + 0x81,)) * 32, secret.reveal())
                    self.assertEqual(name.encode("utf-8", "surrogateescape"), bound)
                    endpoint = endpoint._endpoint

    def test_bytes(self) -> None:
        """A string that is given in bytes is UTF-8, as Twisted has it for clients."""
        path = self.key("sch\u00f6n")
        client = self.client(stream(path, "tcp:h:1", "caf\u00e9").encode())
        self.assertEqual("caf\u00e9".encode(), client._layer.context)
        self.assertEqual("h", client._endpoint._host)

    def test_inside_another(self) -> None:
        """Other wrappers' strings may hold ours."""
        server = self.server(f"haproxy:{stream(self.key('a:b'), 'tcp:99')}")
        layers = server._wrappedEndpoint
        self.assertEqual(b"\xc0" * 32, layers._layer.secret.reveal())
        self.assertEqual(99, layers._endpoint._port)

    def test_around_another(self) -> None:
        """Ours may hold other wrappers'."""
        server = self.server(stream(self.key(), "haproxy:tcp:99:interface=127.0.0.1"))
        inner = server._endpoint._wrappedEndpoint
        self.assertEqual((99, "127.0.0.1"), (inner._port, inner._interface))

    def refusal(self, string: str) -> str:
        """The message with which a client's string is refused."""
        return str(self.assertRaises(UsageError, self.client, string))

    def test_missing(self) -> None:
        """A part that is missing is named, and so are all that there are."""
        key = self.key()
        takes = "recordstream, as a client, takes keyFile, context, endpoint; "
        self.assertEqual(
            takes + "endpoint is missing", self.refusal(f"recordstream:keyFile={key}:context=")
        )
        self.assertEqual(
            takes + "context is missing", self.refusal(f"recordstream:keyFile={key}:endpoint=tcp")
        )
        self.assertEqual(
            takes + "keyFile is missing", self.refusal("recordstream:context=a:endpoint=x")
        )
        self.assertIn(
            "prologue is missing", self.refusal(f"noisetunnel:keyFile={key}:endpoint=tcp")
        )
        self.assertIn("host is missing", self.refusal("pinnedtls:endpoint=tcp"))

    def test_not_escaped(self) -> None:
        """A colon inside that was not escaped is found, and what to do about it is said."""
        message = self.refusal(f"recordstream:keyFile={self.key()}:context=c:endpoint=tcp:h:1")
        self.assertIn("each colon and backslash needs a backslash before it", message)

    def test_unknown(self) -> None:
        """A name that is unknown is named."""
        message = self.refusal(f"recordstream:keyfile={self.key()}:context=c:endpoint=tcp")
        self.assertEqual(
            "recordstream, as a client, takes keyFile, context, endpoint, and not keyfile", message
        )
        string = (
            f"pinnedtls:host=h:certificateFile=c:keyFile=k:endpoint={quoteStringArgument('tcp:1')}"
        )
        message = str(self.assertRaises(UsageError, self.server, string))
        self.assertIn(
            "as a server, takes certificateFile, keyFile, alpn, endpoint, and not host", message
        )

    def test_secret_in_the_string(self) -> None:
        """What stands in the place of a name or a value is in no message: it may be a secret."""
        secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I"
        for string in (
            f"recordstream:{secret}:endpoint=tcp",
            f"recordstream:{secret}=:endpoint=tcp",
            f"recordstream:key={secret}=:context=c:endpoint=tcp",
            f"recordstream:context={secret}:endpoint=tcp",
        ):
            self.assertNotIn(secret, self.refusal(string))

    def test_key_file(self) -> None:
        """A key file that cannot be used is an error of the string, at once."""
        self.assertIn("cannot be read", self.refusal(stream(f"{self.folder}/none", "tcp:h:1")))
        path = self.key()
        os.chmod(path, 0o644)
        self.assertIn("chmod 600", self.refusal(tunnel(path, "tcp:h:1")))

    def test_nonsense_inside(self) -> None:
        """The string inside is Twisted's to refuse."""
        string = stream(self.key(), "nonsense:1")
        self.assertRaises(ValueError, self.client, string)
        self.assertRaises(ValueError, self.server, string)

    def test_no_parser_of_its_own(self) -> None:
        """The base class says that a layer's own parser has to make the recipe."""
        for make in (LayerParser().client_recipe, LayerParser().server_recipe):
            self.assertRaises(NotImplementedError, make, {})

    def test_secret_is_not_shown(self) -> None:
        """Neither a parser nor an endpoint shows a key."""
        client = self.client(stream(self.key(), "tcp:h:1"))
        for thing in (client, client._layer, RecordStreamParser()):
            self.assertNotIn("c0c0", repr(thing).lower().replace("\\x", ""))


class PinnedTLSTests(Files):
    """The parts of ``pinnedtls``."""

    one, two = "SHA256:" + "ab" * 32, "SPKI-SHA256:" + "cd" * 32

    def client(self, **parts: str) -> PinnedTLS:
        recipe = PinnedTLSParser().client_recipe(parts)
        assert isinstance(recipe, PinnedTLS)
        return recipe

    def test_host_only(self) -> None:
        """Without more, the system's authorities decide."""
        recipe = self.client(host="example.com")
        assert recipe.trust is not None
        self.assertEqual(("example.com", Policy.CA), (recipe.trust.host, recipe.trust.policy))
        self.assertEqual(CONTROL_ALPN, recipe.alpn)

    def test_fingerprints(self) -> None:
        """One fingerprint, or several."""
        for text, expected in (
            (self.one, (self.one,)),
            (f"{self.two}, {self.one}", (self.two, self.one)),
        ):
            recipe = self.client(host="example.com", fingerprint=text)
            assert recipe.trust is not None
            self.assertEqual(expected, recipe.trust.fingerprints)
            self.assertEqual(Policy.PIN, recipe.trust.policy)

    def test_everything(self) -> None:
        """Authorities, a policy and an application protocol of one's own."""
        recipe = self.client(
            host="h.example", fingerprint=self.one, caFile="/a/b", policy="ca+pin", alpn="echo"
        )
        assert recipe.trust is not None
        self.assertEqual(("/a/b", Policy.CA_AND_PIN), (recipe.trust.ca_file, recipe.trust.policy))
        self.assertEqual("echo", recipe.alpn)

    def test_refused(self) -> None:
        """Parts that do not fit together, or mean nothing."""
        for parts, text in (
            ({"policy": "none"}, "policy is ca, pin or ca+pin"),
            ({"policy": "pin"}, "needs a fingerprint"),
            ({"fingerprint": "ab"}, "not a fingerprint"),
            ({"fingerprint": ""}, "not a fingerprint"),
            ({"fingerprint": self.one, "caFile": "x", "policy": "pin"}, "asks no authority"),
        ):
            error = self.assertRaises(UsageError, self.client, host="h.example", **parts)
            self.assertIn(text, str(error))

    def test_string(self) -> None:
        """In a string, the colon of a fingerprint is escaped like any other."""
        string = rf"pinnedtls:host=h.example:fingerprint=SHA256\:{'ab' * 32}:endpoint=tcp\:h\:1"
        client: Any = clientFromString(MemoryReactorClock(), string)
        self.assertEqual((self.one,), client._layer.trust.fingerprints)

    def test_server(self) -> None:
        """The certificate and its key are named by their paths."""
        string = r"pinnedtls:certificateFile=/a\:b/c.pem:keyFile=/k.pem:alpn=echo:endpoint=tcp\:1"
        server: Any = serverFromString(MemoryReactorClock(), string)
        identity = server._layer.identity
        self.assertEqual(("/a:b/c.pem", "/k.pem"), (identity.certificate_path, identity.key_path))
        self.assertEqual("echo", server._layer.alpn)


class Asker(Protocol):
    """Sends a line, and closes when it has come back."""

    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"from strings")

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self.data == b"from strings":
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback((self.data, reason.type.__name__))


class SocketTests(Files, TestCase):
    """Strings on both sides, over real sockets."""

    async def listen(self, string: str) -> Any:
        from twisted.internet import reactor

        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        port = await serverFromString(reactor, string).listen(factory)
        self.addCleanup(port.stopListening)
        return port

    async def ask(self, string: str) -> tuple[bytes, str]:
        from twisted.internet import reactor

        factory = Factory.forProtocol(Asker)
        factory.noisy = False
        asker = await clientFromString(reactor, string).connect(factory)
        return await asker.done

    def run_async(self, coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    def test_unix(self) -> Deferred[Any]:
        """Over UNIX sockets of odd names, with keys of odd names."""

        async def both() -> None:
            for number, name in enumerate(ODD[:8]):
                key = self.key(f"key {name}", number)
                place = quoteStringArgument(f"{self.folder}/{name}")
                await self.listen(stream(key, f"unix:address={place}", name))
                got = await self.ask(stream(key, f"unix:path={place}", name))
                self.assertEqual((b"from strings", "ConnectionDone"), got, name)

        return self.run_async(both())

    def test_three_layers(self) -> Deferred[Any]:
        """A record stream in a tunnel in TLS over TCP."""
        issued = Authority().issue(["localhost"])
        identity = issued.write(f"{self.folder}/a tls:folder")
        one, two = self.key("one", 1), self.key("two", 2)

        async def both() -> None:
            server = (
                f"pinnedtls:certificateFile={quoteStringArgument(identity.certificate_path)}:"
                f"keyFile={quoteStringArgument(identity.key_path)}:"
                r"endpoint=tcp\:0\:interface=127.0.0.1"
            )
            port = await self.listen(stream(one, tunnel(two, server)))
            client = (
                f"pinnedtls:host=localhost:fingerprint={quoteStringArgument(issued.spki)}:"
                rf"endpoint=tcp\:127.0.0.1\:{port.getHost().port}"
            )
            got = await self.ask(stream(one, tunnel(two, client)))
            self.assertEqual((b"from strings", "ConnectionDone"), got)
            # each layer is really there, and looks at what is its own
            other = client.replace(issued.spki[-8:], "00000000")
            for string, error in (
                (stream(two, tunnel(two, client)), Tampered),
                (stream(one, tunnel(two, client), "else"), Tampered),
                (stream(one, tunnel(one, client)), Truncated),
                (stream(one, tunnel(two, client, "else")), Truncated),
                (stream(one, tunnel(two, other)), FingerprintMismatch),
            ):
                try:
                    got = await self.ask(string)
                except error:
                    continue
                self.fail(f"{string} came through: {got}")

        return self.run_async(both())


#: The same over asyncio, in a process of its own; argv has the strings of server and client.
ASYNCIO = """
import asyncio, sys
from twisted.internet import asyncioreactor
asyncioreactor.install(asyncio.new_event_loop())
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.wire import Echo
from tests.transports.test_strings import Asker

async def main(reactor, server, client):
    await serverFromString(reactor, server).listen(Factory.forProtocol(Echo))
    asker = await clientFromString(reactor, client).connect(Factory.forProtocol(Asker))
    stream = asker.transport
    print(type(reactor).__name__, *await asker.done, stream.owns_socket)

react(lambda *arguments: Deferred.fromCoroutine(main(*arguments)), sys.argv[1:])
"""

#: Looks for the plugins as any program of Twisted's does, and says what was imported for it.
LIGHT = """
import sys
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins
found = sorted(parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser))
print(*(prefix for prefix in found if prefix in %r))
print(*sorted(name for name in sys.modules if name.startswith("cloudconnect")))
print("twisted.internet.reactor" in sys.modules)
"""


class ProcessTests(Files):
    """In processes of their own."""

    def run_python(self, source: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", source, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return done.stdout

    def test_asyncio(self) -> None:
        """Two layers over a UNIX socket under the asyncio reactor."""
        key, place = self.key("a key"), quoteStringArgument(f"{self.folder}/so:cket")
        printed = self.run_python(
            ASYNCIO,
            stream(key, tunnel(key, f"unix:address={place}")),
            stream(key, tunnel(key, f"unix:path={place}")),
        )
        self.assertEqual("AsyncioSelectorReactor b'from strings' ConnectionDone False\n", printed)

    def test_asyncio_own_socket(self) -> None:
        """A record stream that takes over its socket under the asyncio reactor."""
        key, place = self.key("a key"), quoteStringArgument(f"{self.folder}/s")
        printed = self.run_python(
            ASYNCIO, stream(key, f"unix:address={place}"), stream(key, f"unix:path={place}")
        )
        self.assertEqual("AsyncioSelectorReactor b'from strings' ConnectionDone True\n", printed)

    def test_light(self) -> None:
        """Looking for plugins imports our parsers, and of ours nothing but what they need."""
        prefixes, modules, reactor = self.run_python(LIGHT % sorted(PREFIXES)).splitlines()
        self.assertEqual("noisetunnel pinnedtls recordstream", prefixes)
        needed = ["", ".errors", ".transports", ".transports.strings"]
        self.assertEqual([f"cloudconnect{name}" for name in needed], modules.split())
        self.assertEqual("False", reactor)
