r"""Layer 2, transports: endpoint strings, for ``clientFromString`` and ``serverFromString``.

One grammar for all three layers and both sides: the name of the layer, its parts as ``NAME=VALUE``,
and in ``endpoint`` the string of any endpoint inside, in which each ``\`` and ``:`` has a ``\``
before it (:func:`twisted.internet.endpoints.quoteStringArgument` puts them there)::

    recordstream:keyFile=/etc/chat.key:context=chat:endpoint=tcp\:example.com\:6180

So layers nest, and each part belongs to one layer, whatever the others' are called. Secrets are
named by the paths of their files. ``docs/howto/endpoint-strings.rst`` is the page about it.

Twisted loads this module to look for plugins, also in programs that have no use for them: the rest
of the package, and with it any cryptography, is imported when a string is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.interfaces import (
    IReactorCore,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from cloudconnect.errors import UsageError

if TYPE_CHECKING:
    from cloudconnect.transports.recipe import Recipe

#: An unknown name that is longer is not repeated in a message: it may be a misplaced secret.
NAME_MAX = 20


@implementer(
    IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
)
class LayerParser:
    """Parses the strings of one layer; base of the parsers that are plugins.

    :cvar prefix: the layer's name in a string
    :cvar client: the names of a client's parts, each with whether it must be there
    :cvar server: those of a server's
    """

    prefix: ClassVar[str] = ""
    client: ClassVar[Mapping[str, bool]] = {}
    server: ClassVar[Mapping[str, bool]] = {}

    def parseStreamClient(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> IStreamClientEndpoint:
        """The endpoint that a client's string describes. Key files are read now.

        :raises UsageError: a part is missing, unknown, or cannot be used
        :raises ValueError, TypeError: from Twisted: the string inside is not an endpoint's
        """
        from twisted.internet.endpoints import clientFromString

        from cloudconnect.transports.endpoints import wrap_client_endpoint

        parts = self._parts("client", self.client, args, kwargs)
        inner = clientFromString(reactor, parts.pop("endpoint"))
        clock: Any = reactor
        return wrap_client_endpoint(self.client_recipe(parts), inner, clock)

    def parseStreamServer(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> IStreamServerEndpoint:
        """The endpoint that a server's string describes. Key files are read now.

        :raises UsageError: a part is missing, unknown, or cannot be used
        :raises ValueError, TypeError: from Twisted: the string inside is not an endpoint's
        """
        from twisted.internet.endpoints import serverFromString

        from cloudconnect.transports.endpoints import wrap_server_endpoint

        parts = self._parts("server", self.server, args, kwargs)
        inner = serverFromString(reactor, parts.pop("endpoint"))
        clock: Any = reactor
        return wrap_server_endpoint(self.server_recipe(parts), inner, clock)

    def client_recipe(self, parts: Mapping[str, str]) -> Recipe:
        """The layer of a client.

        :param parts: as :attr:`client` names them, without ``endpoint``
        :raises UsageError: a part cannot be used
        """
        raise NotImplementedError

    def server_recipe(self, parts: Mapping[str, str]) -> Recipe:
        """The layer of a server.

        :param parts: as :attr:`server` names them, without ``endpoint``
        :raises UsageError: a part cannot be used
        """
        raise NotImplementedError

    def _parts(
        self,
        side: str,
        names: Mapping[str, bool],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> dict[str, str]:
        known = {**names, "endpoint": True}
        takes = f"{self.prefix}, as a {side}, takes {', '.join(known)}"
        if args:
            raise UsageError(
                f"{takes}, each as NAME=VALUE. Something stands alone: in a value, and so in all of"
                " endpoint, each colon and backslash needs a backslash before it"
            )
        for name in kwargs.keys() - known.keys():
            word = f"not {name}" if name.isalpha() and len(name) <= NAME_MAX else "nothing else"
            raise UsageError(f"{takes}, and {word}")
        for name, needed in known.items():
            if needed and name not in kwargs:
                raise UsageError(f"{takes}; {name} is missing")
        return {name: _as_text(value) for name, value in kwargs.items()}


def _as_text(value: object) -> str:
    """``value``, which is bytes where the whole string was given in bytes."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class RecordStreamParser(LayerParser):
    """``recordstream``: a :class:`~cloudconnect.transports.stream.RecordStream`.

    Parts: ``keyFile``, the path of the secret; ``context``, any text, the same on both sides.
    """

    prefix = "recordstream"
    client: ClassVar[Mapping[str, bool]] = {"keyFile": True, "context": True}
    server = client

    def client_recipe(self, parts: Mapping[str, str]) -> Recipe:
        """Reads the secret.

        :raises UsageError: its file cannot be used
        """
        from cloudconnect.transports.keyfiles import read_key
        from cloudconnect.transports.stream import RecordStream

        return RecordStream(read_key(parts["keyFile"]), _octets(parts["context"]))

    server_recipe = client_recipe


class NoiseTunnelParser(LayerParser):
    """``noisetunnel``: a :class:`~cloudconnect.transports.tunnel.NoiseTunnel`.

    Parts: ``keyFile``, the path of the pre-shared key; ``prologue``, any text, the same on both
    sides.
    """

    prefix = "noisetunnel"
    client: ClassVar[Mapping[str, bool]] = {"keyFile": True, "prologue": True}
    server = client

    def client_recipe(self, parts: Mapping[str, str]) -> Recipe:
        """Reads the key.

        :raises UsageError: its file cannot be used
        """
        from cloudconnect.transports.keyfiles import read_key
        from cloudconnect.transports.tunnel import NoiseTunnel

        return NoiseTunnel(read_key(parts["keyFile"]), _octets(parts["prologue"]))

    server_recipe = client_recipe


class PinnedTLSParser(LayerParser):
    """``pinnedtls``: a :class:`~cloudconnect.transports.tls.PinnedTLS`.

    A client's parts: ``host``, which the certificate must be for; ``fingerprint``, one or several
    with commas between them; ``caFile``, PEM; ``policy``: ``ca``, ``pin`` or ``ca+pin``. A
    server's: ``certificateFile`` and ``keyFile``, both PEM. Both sides': ``alpn``.
    """

    prefix = "pinnedtls"
    client: ClassVar[Mapping[str, bool]] = {
        "host": True,
        "fingerprint": False,
        "caFile": False,
        "policy": False,
        "alpn": False,
    }
    server: ClassVar[Mapping[str, bool]] = {
        "certificateFile": True,
        "keyFile": True,
        "alpn": False,
    }

    def client_recipe(self, parts: Mapping[str, str]) -> Recipe:
        """Puts the policy together; the file of authorities is read at each ``connect``.

        :raises UsageError: the parts do not fit together
        """
        from cloudconnect.transports.tls import CONTROL_ALPN, PinnedTLS
        from cloudconnect.transports.trust import Policy, TrustPolicy

        given: dict[str, Any] = {"ca_file": parts.get("caFile")}
        if "fingerprint" in parts:
            given["fingerprints"] = tuple(parts["fingerprint"].split(","))
        if "policy" in parts:
            if parts["policy"] not in {policy.value for policy in Policy}:
                raise UsageError(f"{self.prefix}: policy is ca, pin or ca+pin")
            given["policy"] = parts["policy"]
        trust = TrustPolicy(parts["host"], **given)
        return PinnedTLS(trust=trust, alpn=parts.get("alpn", CONTROL_ALPN))

    def server_recipe(self, parts: Mapping[str, str]) -> Recipe:
        """Names the files, which are read at ``listen``."""
        from cloudconnect.transports.identity import ServerIdentity
        from cloudconnect.transports.tls import CONTROL_ALPN, PinnedTLS

        identity = ServerIdentity(parts["certificateFile"], parts["keyFile"])
        return PinnedTLS(identity=identity, alpn=parts.get("alpn", CONTROL_ALPN))
