"""Layer 2, transports: which key exchanges TLS may come out with.

The hybrid one first, then the curves that Mozilla's modern configuration has
(https://wiki.mozilla.org/Security/Server_Side_TLS). pyOpenSSL has no public name for the list, so
where its private one is missing OpenSSL's own list stands; what came out is looked at in any case,
before anything is sent. Source: ``docs/protocol.rst``, section 2.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

#: The hybrid key exchange that a quantum computer does not open, of OpenSSL 3.5 and later.
HYBRID: Final = "X25519MLKEM768"
#: The others, the best first.
_CURVES: Final = ("X25519", "secp256r1", "secp384r1")
_ALLOWED: Final = frozenset(name.lower() for name in (HYBRID, *_CURVES))
#: What OpenSSL also calls two of them.
_OTHER_NAMES: Final = {"prime256v1": "secp256r1", "p-256": "secp256r1", "p-384": "secp384r1"}


def offer_groups(context: SSL.Context) -> bool:
    """Offer, and accept, only these key exchanges; whether that could be said.

    :param context: a client's or a server's
    """
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    say: Any = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if say is None:
        return False
    for names in ((HYBRID, *_CURVES), _CURVES):
        if say(context._context, ":".join(names).encode("ascii")) == 1:
            return True
        lib.ERR_clear_error()  # an older OpenSSL does not know the hybrid one
    return False


def is_allowed(group: str) -> bool:
    """Whether a handshake may have come out with this key exchange.

    :param group: its name as OpenSSL tells it; empty where it does not
    """
    name = group.lower()
    return not name or _OTHER_NAMES.get(name, name) in _ALLOWED
