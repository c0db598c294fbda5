"""Layer 2: composable wrappers over any stream transport.

:class:`RecordStream`, :class:`NoiseTunnel` and :class:`PinnedTLS` describe layers; each has
``client_factory`` and ``server_factory``, and :func:`wrap_client_endpoint` and
:func:`wrap_server_endpoint` put one under an endpoint. The names are loaded when they are used, so
importing one transport does not import the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudconnect.transports.blocking import BlockingPipe
    from cloudconnect.transports.bundle import Bundle
    from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
    from cloudconnect.transports.identity import ServerIdentity
    from cloudconnect.transports.layer import EndingLayer, Layer
    from cloudconnect.transports.recipe import LayerFactory, Recipe
    from cloudconnect.transports.stream import RecordStream
    from cloudconnect.transports.tls import MutualTLS, PinnedTLS
    from cloudconnect.transports.trust import TrustPolicy
    from cloudconnect.transports.tunnel import NoiseTunnel

__all__ = [
    "BlockingPipe",
    "Bundle",
    "EndingLayer",
    "Layer",
    "LayerFactory",
    "MutualTLS",
    "NoiseTunnel",
    "PinnedTLS",
    "Recipe",
    "RecordStream",
    "ServerIdentity",
    "TrustPolicy",
    "wrap_client_endpoint",
    "wrap_server_endpoint",
]

_HOMES = {
    "BlockingPipe": "blocking",
    "Bundle": "bundle",
    "EndingLayer": "layer",
    "Layer": "layer",
    "LayerFactory": "recipe",
    "MutualTLS": "tls",
    "NoiseTunnel": "tunnel",
    "PinnedTLS": "tls",
    "Recipe": "recipe",
    "RecordStream": "stream",
    "ServerIdentity": "identity",
    "TrustPolicy": "trust",
    "wrap_client_endpoint": "endpoints",
    "wrap_server_endpoint": "endpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
