"""Layer 2, transports: what OpenSSL's errors mean to us.

OpenSSL tells an error by words. An alert of the peer's has the word "alert" among them; everything
else was found on this side. Who is told what: to a client, a handshake that fails means that this
is not the provider (or that somebody is in between); to a server, that some stranger cannot speak.

Source: RFC 8446, section 6; err(3) of OpenSSL.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from cloudconnect.errors import (
    Aborted,
    CertificateUntrusted,
    CloudConnectError,
    ControlTampered,
    ProtocolViolation,
    ProviderNotTrusted,
    Refused,
)

#: A peer that speaks another version of TLS, or something that is not TLS.
_NOT_TLS13: Final = frozenset(
    {
        "http request",
        "https proxy request",
        "tlsv1 alert protocol version",
        "unknown protocol",
        "unsupported protocol",
        "wrong ssl version",
        "wrong version number",
    }
)
#: A peer that shows no certificate, or one that OpenSSL itself could not look at.
_NO_CERTIFICATE: Final = ("certificate verify failed", "peer did not return a certificate")
#: Alerts that say that the peer, too, got something else than was sent.
_PEER_SAW_CHANGE: Final = ("bad record mac", "decode error", "decrypt error", "unexpected message")
#: Alerts about the certificate that this side has shown.
_OURS_REFUSED: Final = ("certificate", "unknown ca", "access denied")
#: Alerts with which a peer gives up for reasons of its own.
_GAVE_UP: Final = ("internal error", "user canceled", "user cancelled", "close notify")


def reason_of(error: SSL.Error) -> str:
    """OpenSSL's words for ``error``, in lower case; the first, which is the exact one."""
    if isinstance(error, SSL.ZeroReturnError):
        return "alert close notify"
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1]).lower()
    queue = error.args[0] if error.args else ()
    return str(queue[0][-1]).lower() if queue else "unexpected eof"


def in_handshake(error: SSL.Error, is_client: bool) -> CloudConnectError:
    """What ``error`` means when the handshake raises it.

    :param is_client: whether this side opened the connection
    """
    reason = reason_of(error)
    if reason in _NO_CERTIFICATE:
        return CertificateUntrusted(f"there is no certificate that can be verified ({reason})")
    if "alert" in reason and reason.endswith("no application protocol"):
        return ProtocolViolation("the peer has no application protocol in common with us (ALPN)")
    if not is_client:
        if "alert" in reason:
            return Aborted(f"the peer ended the TLS handshake ({reason})")
        return ProtocolViolation(f"the peer cannot do this TLS handshake ({reason})")
    if reason in _NOT_TLS13:
        return CertificateUntrusted(
            f"the peer does not speak TLS 1.3 ({reason}), so it proves nothing"
        )
    if "alert" not in reason or reason.endswith(_PEER_SAW_CHANGE):
        return ControlTampered(f"the TLS handshake was changed on the way ({reason})")
    if reason.endswith(_GAVE_UP):
        return Aborted(f"the peer ended the TLS handshake ({reason})")
    return ProviderNotTrusted(f"the peer refuses a TLS handshake that is safe ({reason})")


def after_handshake(error: SSL.Error) -> CloudConnectError:
    """What ``error`` means when it comes after the handshake."""
    reason = reason_of(error)
    if "alert" not in reason or reason.endswith(_PEER_SAW_CHANGE):
        return ControlTampered(f"a TLS record was changed on the way ({reason})")
    if any(words in reason for words in _OURS_REFUSED):
        return Refused(f"the peer does not accept our certificate ({reason})")
    return Aborted(f"the peer ended the TLS connection ({reason})")
