"""Layer 2, transports: one TLS 1.3 connection, on OpenSSL's memory buffers.

A :class:`TLSLayer` is Twisted's memory-BIO way of TLS on our own layer base: what Twisted's
``TLSMemoryBIOProtocol`` leaves open there is closed in the base (nothing is delivered to a paused
protocol; ``startTLS`` and half-closing do not slip past; an abort never looks like an end). What
the application writes waits in the base until the handshake is over *and* the peer is trusted: a
refusal drops it. OpenSSL's errors leave here as ours:

* during the handshake: the refusal of the policy, ``CertificateUntrusted`` where the peer does not
  speak TLS 1.3, ``ControlTampered`` for a changed byte, ``Aborted`` for the peer's alert;
* afterwards ``ControlTampered`` for a bad record, ``Truncated`` for an end without close_notify,
  ``ConnectionDone`` for one with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IProtocol, IReactorTime

from cloudconnect.errors import (
    CertificateUntrusted,
    CloudConnectError,
    KeyForgotten,
    ProtocolViolation,
)
from cloudconnect.settings import HANDSHAKE_BYTES_MAX
from cloudconnect.shown import Shown
from cloudconnect.transports.layer import EndingLayer
from cloudconnect.transports.tls_errors import after_handshake, in_handshake
from cloudconnect.transports.tls_groups import is_allowed
from cloudconnect.transports.verification import Verification

#: The one cipher suite: AES-256 is what the product promises.
CIPHER_SUITE: Final = "TLS_AES_256_GCM_SHA384"
VERSION: Final = "TLSv1.3"

#: Largest piece that is taken from, or given to, OpenSSL at once, in bytes: one TLS record's.
_RECORD: Final = 1 << 14
_OUTPUT: Final = 1 << 17


@attrs.frozen(repr=False)
class TLSFacts(Shown):
    """What a TLS handshake came to.

    :ivar version: ``TLSv1.3``
    :ivar cipher: the cipher suite
    :ivar group: the key exchange, such as ``X25519MLKEM768``; ``""`` where OpenSSL does not tell
    :ivar alpn: the application protocol
    :ivar peer_spki: ``SPKI-SHA256:`` fingerprint of the peer's certificate, ``""`` without one
    :ivar checked_by: what the peer was trusted by, ``ca``, ``pin`` or ``ca+pin``; ``""`` where the
        peer shows no certificate
    :ivar peer_role: the role of the node that the peer is, on a LAN link
    :ivar peer_name: the name of that node
    :ivar peer_ends: when the peer's certificate ends, in seconds since 1970; 0 without one
    """

    version: str
    cipher: str
    group: str
    alpn: str
    peer_spki: str
    checked_by: str
    peer_role: str = ""
    peer_name: str = ""
    peer_ends: float = 0.0


def was_resumed(connection: SSL.Connection) -> bool:
    """Whether the handshake resumed a session; pyOpenSSL has no public name for asking.

    :param connection: one whose handshake is over
    """
    return bool(SSL._lib.SSL_session_reused(connection._ssl))  # type: ignore[attr-defined]


class NoCommonProtocol(Exception):
    """Raised in the ALPN callback, so that OpenSSL sends the alert for it."""


class TLSLayer(EndingLayer):
    """One connection; :mod:`cloudconnect.transports.tls` has the recipes that make it.

    :param protocol: the protocol above
    :param clock: the reactor, or a ``Clock``
    :param connection: OpenSSL's, without a socket
    :param is_client: which end of it this is
    :param verification: the decision about the peer; None where the peer shows no certificate
    :param alpn: the application protocol that must come out
    :ivar facts: what the handshake came to, or None before

    Has what Twisted's ``INegotiated`` adds to a transport, but does not claim that interface: it
    would promise TCP as well.
    """

    name: ClassVar[str] = "TLS"

    def __init__(
        self,
        protocol: IProtocol,
        clock: IReactorTime,
        connection: SSL.Connection,
        is_client: bool,
        verification: Verification | None,
        alpn: str,
    ) -> None:
        super().__init__(protocol, clock)
        if is_client:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        self._tls: SSL.Connection | None = connection
        self._is_client = is_client
        self._verification = verification
        self._alpn = alpn
        self._peer_ended = False
        self._handshake_bytes = 0
        self.facts: TLSFacts | None = None

    # --- for the protocol above -----------------------------------------------------------------

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The application protocol, once the handshake is over."""
        return self.facts.alpn.encode() if self.facts else None

    def getPeerCertificate(self) -> X509 | None:
        """The certificate that the peer has shown; None without one, and after the end."""
        return self._tls.get_peer_certificate() if self._tls else None

    def exporter(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material that only the two ends of this connection have (RFC 8446, section 7.5).

        For channel binding (RFC 9266): label ``EXPORTER-Channel-Binding``, no context, 32 bytes.

        :param label: what it is for, ASCII
        :param context: what else it is bound to; None is not the same as empty
        :param length: in bytes
        :raises KeyForgotten: before the handshake is over, or after the end
        """
        if self._tls is None or self.facts is None:
            raise KeyForgotten("there is no TLS connection whose keys could be exported")
        return self._tls.export_keying_material(label, length, context)

    # --- hooks of the base ----------------------------------------------------------------------

    def _opened(self) -> None:
        self._shake_hands()

    def _received(self, data: bytes) -> Iterator[bytes]:
        if self._tls is None or self._peer_ended or not data:
            return
        if not self._is_ready:
            data = self._in_pieces(data)
        if data and self._tls is not None:
            self._tls.bio_write(data)
        while self._is_ready and self._tls is not None:
            try:
                piece = self._tls.recv(_RECORD)
            except SSL.WantReadError:
                self._answer(self._output())
                return
            except SSL.ZeroReturnError:
                self._peer_ended = True
                self._end_came()
                return
            except SSL.Error as error:
                self._fail(after_handshake(error), self._output())
                return
            yield piece

    def _seal(self, data: bytes) -> bytes:
        assert self._tls is not None
        left = memoryview(data)
        while left:
            left = left[self._tls.send(left[:_RECORD]) :]
        return self._output()

    def _seal_end(self) -> bytes:
        assert self._tls is not None
        self._tls.shutdown()
        return self._output()

    def _forget_keys(self) -> None:
        self._tls = None

    # --- the handshake --------------------------------------------------------------------------

    def _in_pieces(self, data: bytes) -> bytes:
        """Take what belongs to the handshake, within its bound; what is left behind its end."""
        while data and self._tls is not None and not self._is_ready:
            piece, data = data[:_RECORD], data[_RECORD:]
            self._handshake_bytes += len(piece)
            self._tls.bio_write(piece)
            self._shake_hands()
            long = self._handshake_bytes > HANDSHAKE_BYTES_MAX
            if long and not self._is_ready and self._tls is not None:
                more = f"the TLS handshake has more than {HANDSHAKE_BYTES_MAX} bytes"
                self._fail(ProtocolViolation(more), b"")
                return b""
        return data

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._write_below(self._output())
        except (SSL.Error, NoCommonProtocol) as error:
            self._fail(self._in_handshake(error), self._output())
        else:
            self.facts = self._established(self._tls)
            self._write_below(self._output())
            self._ready()

    def _established(self, tls: SSL.Connection) -> TLSFacts:
        """Look at what was negotiated, before anything more is sent.

        :raises CloudConnectError: something that must not be
        """
        verification = self._verification
        if verification is not None and not verification.trusted:
            raise verification.refusal or CertificateUntrusted("nobody has looked at the peer")
        alpn = tls.get_alpn_proto_negotiated().decode("ascii", "replace")
        if alpn != self._alpn:
            raise ProtocolViolation(f"the peer does not speak {self._alpn} (ALPN)")
        version, cipher = tls.get_protocol_version_name(), tls.get_cipher_name()
        if version != VERSION or cipher != CIPHER_SUITE:
            raise ProtocolViolation(f"TLS came out as {version} with {cipher}")
        group = tls.get_group_name() or ""
        if not is_allowed(group):
            raise ProtocolViolation(f"the TLS key exchange came out as {group}")
        if was_resumed(tls):
            raise ProtocolViolation("a TLS session was resumed")
        verdict = verification.verdict if verification else None
        return TLSFacts(
            version=version,
            cipher=cipher,
            group=group,
            alpn=alpn,
            peer_spki=verification.peer_spki if verification else "",
            checked_by=verdict.checked_by if verdict else "",
            peer_role=verdict.role if verdict else "",
            peer_name=verdict.name if verdict else "",
            peer_ends=verification.peer_ends if verification else 0.0,
        )

    def _in_handshake(self, error: Exception) -> CloudConnectError:
        """What ``error``, raised by the handshake, means: what we refused counts first."""
        if self._verification is not None and self._verification.refusal is not None:
            return self._verification.refusal
        if isinstance(error, SSL.Error):
            return in_handshake(error, self._is_client)
        return ProtocolViolation(f"the peer does not offer {self._alpn} (ALPN)")

    def _output(self) -> bytes:
        """What OpenSSL has to send."""
        parts = []
        while self._tls is not None:
            try:
                parts.append(self._tls.bio_read(_OUTPUT))
            except SSL.WantReadError:
                break
        return b"".join(parts)
