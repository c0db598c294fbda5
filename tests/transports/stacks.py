"""New pairs of recipes, for the client and the server, of each kind of layer."""

from __future__ import annotations

import os
from typing import Any

from cloudconnect.keys import KeyA, KeyB
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.transports.tunnel import NoiseTunnel
from tests.certificates import HOST, self_signed
from tests.transports.layer_parts import FramedRecipe, PlainRecipe


def stream(own_socket: bool = True) -> Any:
    """A record stream; over a socket, on its fast path."""
    recipe = RecordStream(KeyB.generate(), b"contract", own_socket=own_socket)
    return recipe, recipe


def plain_stream() -> Any:
    """A record stream that never owns its socket."""
    return stream(own_socket=False)


def tunnel() -> Any:
    """A Noise tunnel."""
    recipe = NoiseTunnel(KeyA.generate(), b"prologue", payload=b"versions")
    return recipe, recipe


def tls() -> Any:
    """TLS whose client knows the server by its fingerprint; writes files where the test runs."""
    issued = self_signed()
    identity = issued.write(f"certificate-{os.urandom(4).hex()}")
    client = PinnedTLS(TrustPolicy(HOST, fingerprints=[issued.spki]))
    return client, PinnedTLS(identity=identity)


def plain() -> Any:
    """No handshake, no cipher, no end."""
    return PlainRecipe(), PlainRecipe()


def framed() -> Any:
    """A handshake and an end, and no cipher."""
    return FramedRecipe(), FramedRecipe()
