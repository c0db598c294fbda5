"""Tests of :mod:`cloudconnect.transports.trust`."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    CertificateUntrusted,
    FingerprintMismatch,
    HostnameMismatch,
    UsageError,
)
from cloudconnect.transports.trust import (
    EXPIRED,
    NOT_YET_VALID,
    AnyClient,
    Policy,
    Problem,
    TrustPolicy,
    Verdict,
    certificate_fingerprint,
    parse_fingerprint,
    spki_fingerprint,
)
from tests.certificates import HOST, self_signed

DIGITS = "0123456789abcdef" * 4
SELF_SIGNED = Problem(18, 0)
UNKNOWN_AUTHORITY = Problem(20, 0)


class FingerprintTests(SynchronousTestCase):
    """What identifies a certificate or its key."""

    def test_renewal(self) -> None:
        """A new certificate for the same key keeps the SPKI fingerprint and changes the other."""
        first = self_signed()
        second = self_signed(key=first.key)
        self.assertEqual(first.spki, second.spki)
        self.assertNotEqual(first.fingerprint, second.fingerprint)

    def test_bytes(self) -> None:
        """They are SHA-256 over the DER of the key, and of the certificate."""
        issued = self_signed()
        for data, found in (
            (
                issued.key.public_key().public_bytes(
                    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
                ),
                spki_fingerprint(issued.certificate).removeprefix("SPKI-SHA256:"),
            ),
            (
                issued.certificate.public_bytes(Encoding.DER),
                certificate_fingerprint(issued.certificate).removeprefix("SHA256:"),
            ),
        ):
            digest = hashes.Hash(hashes.SHA256())
            digest.update(data)
            self.assertEqual(digest.finalize().hex(), found)

    def test_parse(self) -> None:
        """Case, colons and spaces make no difference to what is read."""
        colons = ":".join(DIGITS[i : i + 2] for i in range(0, 64, 2)).upper()
        for text in (f"SHA256:{DIGITS}", f"sha256:{colons}", f" SHA256: {colons}\n"):
            self.assertEqual(f"SHA256:{DIGITS}", parse_fingerprint(text))
        self.assertEqual(f"SPKI-SHA256:{DIGITS}", parse_fingerprint(f"spki-sha256:{colons}"))

    def test_no_fingerprint(self) -> None:
        """Anything else is refused, digits without a label too: nobody could know what they are."""
        for text in (
            "",
            DIGITS,
            f"SHA1:{DIGITS[:40]}",
            f"SHA256:{DIGITS[:-1]}",
            f"SHA256:{DIGITS}0",
        ):
            self.assertRaises(UsageError, parse_fingerprint, text)
        self.assertRaises(UsageError, parse_fingerprint, f"SHA256:{'x' * 64}")


class PolicyTests(SynchronousTestCase):
    """Which parts fit together."""

    def test_derived(self) -> None:
        """Fingerprints alone ask for no chain; a named authority is asked as well."""
        pin = (f"SHA256:{DIGITS}",)
        self.assertIs(Policy.CA, TrustPolicy(HOST).policy)
        self.assertIs(Policy.CA, TrustPolicy(HOST, ca_file="ca.pem").policy)
        self.assertIs(Policy.PIN, TrustPolicy(HOST, fingerprints=pin).policy)
        self.assertIs(Policy.CA_AND_PIN, TrustPolicy(HOST, "ca.pem", pin).policy)
        self.assertIs(
            Policy.CA_AND_PIN, TrustPolicy(HOST, fingerprints=pin, policy="ca+pin").policy
        )

    def test_contradictions(self) -> None:
        """A policy that would not mean what it seems to is refused."""
        pin = (f"SHA256:{DIGITS}",)
        for parts in (
            {"fingerprints": pin, "policy": Policy.CA},
            {"policy": Policy.PIN},
            {"policy": Policy.CA_AND_PIN},
            {"fingerprints": pin, "policy": Policy.PIN, "ca_file": "ca.pem"},
            {"accept_expired": True},
        ):
            self.assertRaises(UsageError, TrustPolicy, HOST, **parts)
        self.assertRaises(TypeError, TrustPolicy, HOST, fingerprints=pin[0])


class JudgeTests(SynchronousTestCase):
    """What a policy says to a certificate."""

    def setUp(self) -> None:
        self.issued = self_signed((HOST, "192.0.2.1", "2001:db8::1", "*.wild.example"))
        self.other = self_signed()

    def judge(
        self, policy: TrustPolicy, *problems: Problem, certificate: x509.Certificate | None = None
    ) -> Verdict:
        """What ``policy`` says, with these problems of the chain."""
        return policy.judge(certificate or self.issued.certificate, problems)

    def pinned(self, *fingerprints: str, host: str = HOST, **parts: object) -> TrustPolicy:
        """A policy with these fingerprints, or with the certificate's own."""
        return TrustPolicy(host, fingerprints=fingerprints or (self.issued.spki,), **parts)

    def refused(self, kind: type[Exception], policy: TrustPolicy, *problems: Problem) -> Exception:
        """The refusal of ``policy``, with the presented fingerprint."""
        error = self.assertRaises(kind, self.judge, policy, *problems)
        self.assertEqual(self.issued.spki, error.presented)
        self.assertIn(self.issued.spki, str(error))
        return error

    def test_chain(self) -> None:
        """With policy ``ca`` a chain without a problem is enough, and any problem is too much."""
        self.assertEqual(Verdict("ca"), self.judge(TrustPolicy(HOST)))
        for problem in (SELF_SIGNED, Problem(EXPIRED, 0), Problem(EXPIRED, 1), Problem(999, 3)):
            self.refused(CertificateUntrusted, TrustPolicy(HOST), problem)

    def test_pin(self) -> None:
        """A matching fingerprint of either kind needs no chain."""
        for pin in (self.issued.spki, self.issued.fingerprint):
            for problems in ((), (SELF_SIGNED,), (UNKNOWN_AUTHORITY, Problem(EXPIRED, 1))):
                self.assertEqual(Verdict("pin"), self.judge(self.pinned(pin), *problems))

    def test_several_pins(self) -> None:
        """One of several is enough, so that the next one can be announced."""
        self.assertEqual(Verdict("pin"), self.judge(self.pinned(self.other.spki, self.issued.spki)))

    def test_wrong_pin(self) -> None:
        """A fingerprint that does not match refuses, even where the chain is good."""
        for parts in ({}, {"policy": Policy.CA_AND_PIN}):
            policy = self.pinned(self.other.spki, self.other.fingerprint, **parts)
            self.refused(FingerprintMismatch, policy)
            self.refused(FingerprintMismatch, policy, SELF_SIGNED)

    def test_both(self) -> None:
        """With policy ``ca+pin`` the chain must hold as well."""
        policy = self.pinned(policy=Policy.CA_AND_PIN)
        self.assertEqual(Verdict("ca+pin"), self.judge(policy))
        self.refused(CertificateUntrusted, policy, SELF_SIGNED)

    def test_pin_and_expired(self) -> None:
        """A fingerprint does not make an expired certificate good, nor a weak or misused one."""
        for code in (EXPIRED, NOT_YET_VALID, 26, 66):
            self.refused(CertificateUntrusted, self.pinned(), SELF_SIGNED, Problem(code, 0))

    def test_accept_expired(self) -> None:
        """Where it is asked for, an expired one will do, and only that."""
        for policy in (Policy.PIN, Policy.CA_AND_PIN):
            trust = self.pinned(policy=policy, accept_expired=True)
            self.assertEqual(Verdict(policy.value), self.judge(trust, Problem(EXPIRED, 0)))
            self.refused(CertificateUntrusted, trust, Problem(NOT_YET_VALID, 0))
        self.refused(
            FingerprintMismatch,
            self.pinned(self.other.spki, accept_expired=True),
            Problem(EXPIRED, 0),
        )

    def test_host(self) -> None:
        """The host name must be right whatever else is; so must an address."""
        for host in (HOST, "192.0.2.1", "2001:db8:0::1", "a.wild.example"):
            self.assertEqual(Verdict("ca"), self.judge(TrustPolicy(host)))
            self.assertEqual(Verdict("pin"), self.judge(self.pinned(host=host)))
        for host in ("example.com", "x.backup.example.com", "192.0.2.2", "a.b.wild.example"):
            self.refused(HostnameMismatch, TrustPolicy(host))
            error = self.refused(HostnameMismatch, self.pinned(host=host), SELF_SIGNED)
            self.assertIn(HOST, str(error))

    def test_no_names(self) -> None:
        """A certificate without a subjectAltName is for no host; its common name counts nothing."""
        issued = self_signed(())
        error = self.assertRaises(
            HostnameMismatch, TrustPolicy("self").judge, issued.certificate, ()
        )
        self.assertIn("no name at all", str(error))

    def test_message(self) -> None:
        """A problem further up is told from one of the certificate itself."""
        texts: Sequence[str] = [
            str(problem) for problem in (Problem(EXPIRED, 0), Problem(EXPIRED, 2))
        ]
        self.assertEqual("it has expired", texts[0])
        self.assertIn("2 up", texts[1])


class AnyClientTests(SynchronousTestCase):
    """How a server looks at what a client shows."""

    def test_known_by_its_key(self) -> None:
        """Who signed it and its time do not count, nor what is wrong further up."""
        certificate = self_signed().certificate
        found = [Problem(code, 0) for code in (2, 18, 19, 20, 21, EXPIRED, NOT_YET_VALID)]
        found.append(Problem(7, 1))
        self.assertEqual(Verdict(""), AnyClient().judge(certificate, found))

    def test_refused(self) -> None:
        """A wrong signature, another use, a weak key: it is no certificate of a client."""
        certificate = self_signed().certificate
        for code in (7, 26, 34, 66, 68):
            error = self.assertRaises(
                CertificateUntrusted, AnyClient().judge, certificate, [Problem(code, 0)]
            )
            self.assertEqual(spki_fingerprint(certificate), error.presented)
