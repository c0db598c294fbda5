"""Layer 2, transports: the decision about a TLS peer, made inside OpenSSL's verify callback.

Only there is a refusal early enough: it has sent a ClientHello and an alert and nothing else, no
credential and no certificate of ours (``docs/protocol.rst``, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cryptography import x509
from OpenSSL.crypto import X509

from cloudconnect.errors import CertificateUntrusted, ProviderNotTrusted
from cloudconnect.transports.trust import Problem, Verdict, spki_fingerprint


class Judge(Protocol):
    """What a policy does."""

    def judge(self, certificate: x509.Certificate, problems: Sequence[Problem]) -> Verdict:
        """Trust ``certificate``, and say why.

        :param problems: all that OpenSSL found wrong with it and its chain
        :raises ProviderNotTrusted: one of its subclasses
        """
        ...


class Verification:
    """The decision about one connection's peer.

    OpenSSL reports what is wrong step by step, from the far end of the chain to the peer's own
    certificate, and last of all that it has seen that one. Problems are collected and the judge is
    asked there. Trust needs an explicit decision: :attr:`verdict` is None until there is one.

    :param judge: decides
    :param demanded: whether the peer has to show a certificate
    :ivar verdict: why the peer is trusted, or None
    :ivar refusal: why it is not, or None
    :ivar peer_spki: the SPKI fingerprint of its certificate, or ``""``
    :ivar peer_ends: when its certificate ends, in seconds since 1970, or 0
    """

    def __init__(self, judge: Judge, demanded: bool = True) -> None:
        self._judge = judge
        self._demanded = demanded
        self._shown = False
        self._problems: list[Problem] = []
        self._peer: X509 | None = None
        self.verdict: Verdict | None = None
        self.refusal: ProviderNotTrusted | None = None
        self.peer_spki = ""
        self.peer_ends = 0.0

    @property
    def trusted(self) -> bool:
        """Whether the judge has seen the peer's certificate and trusts it; or there is none, and
        none is demanded."""
        if not self._shown and not self._demanded:
            return True
        return self.verdict is not None and self.refusal is None

    def step(self, connection: object, certificate: X509, error: int, depth: int, ok: int) -> bool:
        """OpenSSL's verify callback: go on (True), or refuse the peer (False).

        :param connection: OpenSSL's, not used
        :param certificate: the one that is looked at now
        :param error: OpenSSL's number of what is wrong with it, 0 for nothing
        :param depth: its place in the chain; 0 is the peer's own
        :param ok: whether OpenSSL would go on
        """
        self._shown = True
        if not ok:
            self._problems.append(Problem(error, depth))
        elif depth == 0:
            self._peer = certificate
        if self._peer is not None and self.refusal is None:  # a late problem is judged again
            self._ask(self._peer)
        return self.refusal is None

    def _ask(self, peer: X509) -> None:
        try:
            certificate = peer.to_cryptography()
            self.peer_spki = spki_fingerprint(certificate)
            self.peer_ends = certificate.not_valid_after_utc.timestamp()
            self.verdict = self._judge.judge(certificate, tuple(self._problems))
        except ProviderNotTrusted as refusal:
            self.refusal = refusal
        except Exception as error:  # whatever a parser makes of a strange certificate
            self.refusal = CertificateUntrusted(
                f"the certificate cannot be read ({type(error).__name__})", self.peer_spki or None
            )
