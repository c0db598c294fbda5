"""Layer 2, transports: who the other end of a TLS connection must be.

A :class:`TrustPolicy` judges the certificate that a provider presented and what OpenSSL found wrong
with its chain (``docs/protocol.rst``, section 2); :mod:`~cloudconnect.transports.verification` asks
it. For the nodes of a LAN see :mod:`~cloudconnect.transports.nodes`. Nothing here does any I/O.

Fingerprints are text: ``SPKI-SHA256:`` and 64 hexadecimal digits over the certificate's public key,
which survives its renewal, or ``SHA256:`` and 64 over the whole certificate.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from service_identity.exceptions import CertificateError, VerificationError

from cloudconnect.errors import (
    CertificateUntrusted,
    FingerprintMismatch,
    HostnameMismatch,
    UsageError,
)
from cloudconnect.shown import Shown
from cloudconnect.transports.hosts import is_address, names_in, parse_host

_FINGERPRINT: Final = re.compile(r"(?i)(SPKI-SHA256|SHA256):([0-9a-f]{64})")
#: Longest text of one, in characters: with a colon and a space between any two digits it has 204.
_TEXT_MAX: Final = 300

#: OpenSSL's error numbers (X509_verify_cert_error_string(3)) that a policy or a message needs.
EXPIRED: Final = 10
NOT_YET_VALID: Final = 9
_IN_WORDS: Final = {
    2: "its authority is unknown",
    7: "its signature is wrong",
    NOT_YET_VALID: "it is not valid yet (is the clock right?)",
    EXPIRED: "it has expired",
    18: "it is self-signed",
    19: "its authority is unknown",
    20: "its authority is unknown",
    21: "its authority is unknown",
    25: "its chain is longer than an authority in it allows",
    26: "it is not for this use",
    34: "it has a critical extension that is unknown here",
    47: "its authority may not issue for its names",
    66: "its key is too weak",
    67: "its authority's key is too weak",
    68: "it is signed with a weak hash",
    79: "an authority in its chain is none",
}
#: What is found wrong with a certificate just because no authority that we know has signed it.
_UNCHAINED: Final = frozenset({2, 18, 19, 20, 21})


def spki_fingerprint(certificate: x509.Certificate) -> str:
    """``SPKI-SHA256:`` and 64 hexadecimal digits over the DER SubjectPublicKeyInfo (RFC 7469).

    :param certificate: any X.509 certificate
    """
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"SPKI-SHA256:{hashlib.sha256(key).hexdigest()}"


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """``SHA256:`` and 64 hexadecimal digits over the whole certificate in DER.

    :param certificate: any X.509 certificate
    """
    return f"SHA256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def parse_fingerprint(text: str) -> str:
    """The fingerprint in ``text`` as the functions above write it.

    Upper or lower case, and colons or spaces between the digits, make no difference.

    :raises UsageError: not a fingerprint
    """
    if len(text) > _TEXT_MAX:
        raise UsageError(f"a fingerprint has at most {_TEXT_MAX} characters, not {len(text)}")
    label, mark, digits = text.strip().partition(":")
    found = _FINGERPRINT.fullmatch(label + mark + "".join(digits.replace(":", " ").split()))
    if found is None:
        raise UsageError(
            f"{text!r} is not a fingerprint: it reads SPKI-SHA256: or SHA256: and 64 hexadecimal "
            "digits (cloudconnect provider fingerprint prints them)"
        )
    return f"{found[1].upper()}:{found[2].lower()}"


@attrs.frozen(repr=False)
class Problem(Shown):
    """Something that OpenSSL finds wrong with a chain.

    :ivar code: OpenSSL's number
    :ivar depth: at which certificate: 0 is the peer's own
    """

    code: int
    depth: int

    def __str__(self) -> str:
        words = _IN_WORDS.get(self.code, f"OpenSSL's verification error {self.code}")
        return words if self.depth == 0 else f"{words} (at its authority, {self.depth} up)"


@attrs.frozen(repr=False)
class Verdict(Shown):
    """Why a peer is trusted.

    :ivar checked_by: ``ca``, ``pin`` or ``ca+pin``
    :ivar role: the peer's role, where it is a node of a LAN
    :ivar name: its name among the nodes of that role
    """

    checked_by: str
    role: str = ""
    name: str = ""


def _parse_all(texts: Iterable[str]) -> tuple[str, ...]:
    if isinstance(texts, str):
        raise TypeError("fingerprints are a sequence of texts")
    return tuple(map(parse_fingerprint, texts))


class Policy(enum.Enum):
    """What makes a provider's certificate good; its host name must always be right."""

    CA = "ca"
    PIN = "pin"
    CA_AND_PIN = "ca+pin"


@attrs.frozen(repr=False)
class AnyClient(Shown):
    """How a server looks at the certificate that a client may show: it is known by its key alone.

    Who signed it does not count, and neither does its time here, so that one that has expired is
    refused like one that nobody knows. Whether the key is somebody's is judged above.
    """

    def judge(self, certificate: x509.Certificate, problems: Sequence[Problem]) -> Verdict:
        """Let anything through that can be the certificate of a client.

        :param certificate: what the client has shown
        :param problems: all that OpenSSL found wrong with it and its chain, which does not count
        :raises CertificateUntrusted: a weak key, or a certificate for another use
        """
        for problem in problems:
            if problem.depth == 0 and problem.code not in _UNCHAINED | {EXPIRED, NOT_YET_VALID}:
                raise CertificateUntrusted(
                    f"the client's certificate cannot be used: {problem}",
                    spki_fingerprint(certificate),
                )
        return Verdict("")


@attrs.frozen(repr=False)
class TrustPolicy(Shown):
    """How a tenant knows its provider.

    :ivar host: host name or IP address that the certificate must be for
    :ivar ca_file: PEM file with the authorities to accept in the place of the system's
    :ivar fingerprints: any of these must match, whatever the chain says
    :ivar policy: by default ``pin`` with fingerprints alone, ``ca`` without, ``ca+pin`` with both
        fingerprints and a file of authorities
    :ivar accept_expired: an expired certificate will do where a fingerprint matches (restore only)
    :raises UsageError: the parts do not fit together
    """

    host: str = attrs.field(converter=parse_host)
    ca_file: str | None = None
    fingerprints: tuple[str, ...] = attrs.field(default=(), converter=_parse_all)
    policy: Policy = attrs.field(converter=Policy)
    accept_expired: bool = False

    @policy.default
    def _derive_policy(self) -> Policy:
        if not self.fingerprints:
            return Policy.CA
        return Policy.CA_AND_PIN if self.ca_file else Policy.PIN

    def __attrs_post_init__(self) -> None:
        """Refuse parts that would not mean together what they seem to."""
        pinned = bool(self.fingerprints)
        if pinned is (self.policy is Policy.CA):
            raise UsageError(
                f"policy {self.policy.value!r} {'takes no' if pinned else 'needs a'} fingerprint"
            )
        if self.policy is Policy.PIN and self.ca_file:
            raise UsageError("policy 'pin' asks no authority: leave the CA file out, or use ca+pin")
        if self.accept_expired and not pinned:
            raise UsageError("an expired certificate is accepted only with a fingerprint")

    def judge(self, certificate: x509.Certificate, problems: Sequence[Problem]) -> Verdict:
        """Trust ``certificate``, and say why.

        The fingerprint is looked at first, then the chain, then the host name.

        :param problems: all that OpenSSL found wrong with the certificate and its chain
        :raises FingerprintMismatch, CertificateUntrusted, HostnameMismatch: it is not trusted
        """
        presented = spki_fingerprint(certificate)
        if self.fingerprints and not {
            presented,
            certificate_fingerprint(certificate),
        }.intersection(self.fingerprints):
            raise FingerprintMismatch(
                f"{self.host} presents {presented}, and that is none of the fingerprints that you "
                "gave. Somebody may be reading along (a proxy that inspects TLS does), or the "
                "provider has a new key: ask it, not over this line.",
                presented,
            )
        for problem in problems:
            if not self._overlooked(problem):
                raise CertificateUntrusted(
                    f"the certificate of {self.host} is not trusted: {problem}. It presents "
                    f"{presented}. A proxy that inspects TLS looks like this too. Ask the provider "
                    "for its SPKI-SHA256 fingerprint and compare.",
                    presented,
                )
        self._check_host(certificate, presented)
        return Verdict(self.policy.value)

    def _overlooked(self, problem: Problem) -> bool:
        if problem.code == EXPIRED and problem.depth == 0:
            return self.accept_expired
        return self.policy is Policy.PIN and (problem.depth > 0 or problem.code in _UNCHAINED)

    def _check_host(self, certificate: x509.Certificate, presented: str) -> None:
        try:
            if is_address(self.host):
                verify_certificate_ip_address(certificate, self.host)
            else:
                verify_certificate_hostname(certificate, self.host)
        except (VerificationError, CertificateError) as error:
            raise HostnameMismatch(
                f"the certificate is not for {self.host} but for {names_in(certificate)}. It "
                f"presents {presented}. Check the host name, or ask the provider.",
                presented,
            ) from error
