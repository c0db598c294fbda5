"""Tests of :mod:`cloudconnect.transports.verification`: the order of OpenSSL's questions."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from OpenSSL.crypto import X509
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import CertificateUntrusted, HostnameMismatch
from cloudconnect.transports.trust import Problem, Verdict
from cloudconnect.transports.verification import Verification
from tests.certificates import Authority, self_signed


class Judge:
    """Says what it was told to say, and keeps what it was asked."""

    def __init__(self, *refused: int, error: Exception | None = None) -> None:
        self.refused = refused
        self.error = error
        self.asked: list[tuple[x509.Certificate, tuple[Problem, ...]]] = []

    def judge(self, certificate: x509.Certificate, problems: Sequence[Problem]) -> Verdict:
        self.asked.append((certificate, tuple(problems)))
        if self.error is not None:
            raise self.error
        if any(problem.code in self.refused for problem in problems):
            raise CertificateUntrusted("refused")
        return Verdict("ca")


class VerificationTests(SynchronousTestCase):
    """What is trusted, and when."""

    def setUp(self) -> None:
        self.root = X509.from_cryptography(Authority().root.certificate)
        self.issued = self_signed()
        self.peer = X509.from_cryptography(self.issued.certificate)

    def test_undecided(self) -> None:
        """Before the peer's own certificate was looked at, nobody is trusted."""
        verification = Verification(Judge())
        self.assertFalse(verification.trusted)
        self.assertTrue(verification.step(None, self.root, 0, 1, 1))
        self.assertTrue(verification.step(None, self.peer, 18, 0, 0))
        self.assertFalse(verification.trusted)

    def test_not_demanded(self) -> None:
        """Where none is demanded, a peer without a certificate is let through; one that shows one
        that is refused, or that was not looked at to the end, is not."""
        self.assertTrue(Verification(Judge(), demanded=False).trusted)
        refused = Verification(Judge(18), demanded=False)
        refused.step(None, self.peer, 18, 0, 0)
        self.assertFalse(refused.trusted)
        refused.step(None, self.peer, 0, 0, 1)
        self.assertFalse(refused.trusted)

    def test_trusted(self) -> None:
        """The judge is asked once, with all problems of the chain, and about the peer."""
        judge = Judge()
        verification = Verification(judge)
        for step in ((self.root, 20, 1, 0), (self.root, 0, 1, 1), (self.peer, 10, 0, 0)):
            self.assertTrue(verification.step(None, *step))
        self.assertTrue(verification.step(None, self.peer, 0, 0, 1))
        self.assertTrue(verification.trusted)
        self.assertEqual([(self.issued.certificate, (Problem(20, 1), Problem(10, 0)))], judge.asked)
        self.assertEqual(
            (Verdict("ca"), self.issued.spki), (verification.verdict, verification.peer_spki)
        )

    def test_refused(self) -> None:
        """A refusal stops OpenSSL there."""
        verification = Verification(Judge(10))
        verification.step(None, self.peer, 10, 0, 0)
        self.assertFalse(verification.step(None, self.peer, 0, 0, 1))
        self.assertFalse(verification.trusted)
        self.assertIsInstance(verification.refusal, CertificateUntrusted)

    def test_late_problem(self) -> None:
        """A problem that OpenSSL finds after the peer's certificate is judged too."""
        verification = Verification(Judge(47))
        self.assertTrue(verification.step(None, self.peer, 0, 0, 1))
        self.assertTrue(verification.trusted)
        self.assertFalse(verification.step(None, self.peer, 47, 0, 0))
        self.assertFalse(verification.trusted)

    def test_refused_for_good(self) -> None:
        """Nothing that comes later mends a refusal, and the first reason stays."""
        judge = Judge(error=HostnameMismatch("first"))
        verification = Verification(judge)
        verification.step(None, self.peer, 0, 0, 1)
        judge.error = None
        self.assertFalse(verification.step(None, self.peer, 0, 0, 1))
        self.assertEqual("first", str(verification.refusal))
        self.assertFalse(verification.trusted)

    def test_unreadable(self) -> None:
        """A certificate that breaks the judge is refused, and its text is not repeated."""
        verification = Verification(Judge(error=ValueError("strange bytes")))
        self.assertFalse(verification.step(None, self.peer, 0, 0, 1))
        self.assertIsInstance(verification.refusal, CertificateUntrusted)
        self.assertNotIn("strange", str(verification.refusal))
        self.assertEqual(self.issued.spki, verification.refusal.presented)
