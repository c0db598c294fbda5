"""Layer 3: the command inside the Key A tunnel (``docs/protocol.rst``, section 4)."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes, SecretArgument
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.keys import IntegrityKey, KeyB, lp
from cloudconnect.wire import canonical

#: Label at the head of the tunnel's prologue.
PROLOGUE_LABEL = b"cloudconnect/1 key-a"


class DeliverKeyB(BoundedCommand):
    """Hand Key B to a role.

    ``integrity_key`` is mandatory for a mover and forbidden for an accelerator. ``confirmation``
    proves that the role holds Key B and read the very bytes of this box
    (:func:`cloudconnect.keys.key_b_confirmation`).
    """

    commandName = b"DeliverKeyB"
    arguments = [
        (b"key_b", SecretArgument(KeyB)),
        (b"integrity_key", SecretArgument(IntegrityKey, optional=True)),
        (b"hops", CBORArgument()),
        (b"versions", CBORArgument()),
        (b"version", amp.Integer()),
    ]
    response = [(b"confirmation", FixedBytes(32))]


def prologue(
    *,
    preamble: bytes,
    session: bytes,
    tenant: str,
    role: str,
    exporter: bytes,
    agreed: bytes,
) -> bytes:
    """What both ends of a Key A tunnel must agree on before its keys come out the same.

    :param preamble: the 21 bytes that begin the connection
    :param session: the session's 16 bytes
    :param exporter: SHA-256 of the control channel's exporter for this session, 32 bytes
    :param agreed: digest of the plan and of what Start asked: :func:`agreed_digest`, 32 bytes
    """
    return b"".join(
        (
            PROLOGUE_LABEL,
            preamble,
            session,
            lp(tenant.encode()),
            lp(role.encode()),
            exporter,
            agreed,
        )
    )


def agreed_digest(plan: list[dict[str, Any]], asked: dict[str, Any]) -> bytes:
    """SHA-256 over what both ends believe was agreed, 32 bytes.

    :param plan: all entries of the plan, without keys: a role left out or added shows at each
    :param asked: what Start asked
    """
    return hashlib.sha256(canonical.encode([plan, asked])).digest()
