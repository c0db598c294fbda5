"""Tests of :mod:`cloudconnect.config.client_certificates`: what a machine can log in with."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.client_certificates import (
    CERTIFICATE_MAX,
    certificate_end,
    certificate_pin,
    check_certificate,
    client_identity,
    make_client_certificate,
    own_certificate,
)
from cloudconnect.errors import UsageError
from tests.certificates import CLIENT_USE, EXPIRED, SERVER_USE, build


class CheckTests(SynchronousTestCase):
    """Certificates that others have made."""

    def written(self, **wrong: Any) -> Path:
        return Path(
            build("x", None, **{"uses": CLIENT_USE, **wrong}).write(self.mktemp()).certificate_path
        )

    def test_good(self) -> None:
        """Keys that are strong enough, with the use of clients or without any."""
        for wrong in (
            {},
            {"uses": None},
            {"is_ca": True},
            {"key": rsa.generate_private_key(65537, 2048)},
            {"key": ec.generate_private_key(ec.SECP384R1())},
        ):
            check_certificate(self.written(**wrong))

    def test_bad(self) -> None:
        """Weak keys, other uses, what is over, and what is no certificate."""
        text = Path(self.mktemp())
        text.write_text("x")
        long = Path(self.mktemp())
        long.write_bytes(b"x" * (CERTIFICATE_MAX + 1))
        weak = rsa.generate_private_key(65537, 1024)
        for path in (
            self.written(days=EXPIRED),
            self.written(uses=SERVER_USE),
            self.written(key=weak),
            self.written(key=ec.generate_private_key(ec.SECP192R1())),
            text,
            long,
            Path("/nowhere"),
        ):
            self.assertRaises(UsageError, check_certificate, path)

    def test_pin_of_the_key(self) -> None:
        """The pin is the key's: another certificate of it has the same, also one that is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        pins = {certificate_pin(self.written(key=key, days=days)) for days in ((0, 1), EXPIRED)}
        self.assertEqual(1, len(pins))
        self.assertNotIn(certificate_pin(self.written()), pins)


class IdentityTests(SynchronousTestCase):
    """The two files of this machine."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        self.files = str(folder / "certificate.pem"), str(folder / "key.pem")

    def test_made(self) -> None:
        """They are made where there are none, the key for its owner only, and then used."""
        own_certificate("acme/laptop", *self.files)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.files[1]).st_mode))
        key = Path(self.files[1]).read_bytes()
        identity = own_certificate("acme/laptop", *self.files)
        self.assertEqual(key, Path(self.files[1]).read_bytes())
        self.assertEqual(self.files, (identity.certificate_path, identity.key_path))
        check_certificate(Path(self.files[0]))

    def test_expired(self) -> None:
        """One that is over is left to the provider's clock to judge; when it ends can be asked."""
        made = build("x", None, uses=CLIENT_USE, days=EXPIRED).write(self.mktemp())
        os.chmod(made.key_path, 0o600)
        client_identity(made.certificate_path, made.key_path)
        ends = certificate_end(Path(made.certificate_path))
        self.assertTrue(0 < time.time() - ends < 2 * 86400)

    def test_only_one(self) -> None:
        """Where one of the two is missing nothing is made."""
        own_certificate("x", *self.files)
        os.unlink(self.files[0])
        key = Path(self.files[1]).read_bytes()
        self.assertRaises(UsageError, own_certificate, "x", *self.files)
        self.assertEqual(key, Path(self.files[1]).read_bytes())

    def test_open_key(self) -> None:
        """A key that others can read is refused, by the name of its file and not its content."""
        make_client_certificate("x", *map(Path, self.files))
        os.chmod(self.files[1], 0o644)
        error = self.assertRaises(UsageError, client_identity, *self.files)
        self.assertIn("open to everybody", str(error))
        self.assertNotIn("PRIVATE", str(error))

    def test_another_key(self) -> None:
        """The key of another certificate is refused, and so is one that is encrypted or none."""
        make_client_certificate("x", *map(Path, self.files))
        other = Path(self.mktemp()) / "key.pem"
        make_client_certificate("y", other.with_name("certificate.pem"), other)
        self.assertRaises(UsageError, client_identity, self.files[0], str(other))
        other.write_text("x")
        self.assertRaises(UsageError, client_identity, self.files[0], str(other))
        self.assertRaises(UsageError, client_identity, self.files[0], "/nowhere")

    def test_rsa(self) -> None:
        """Keys of other kinds can be used too."""
        made = build("x", None, uses=CLIENT_USE, key=rsa.generate_private_key(65537, 2048))
        identity = made.write(self.mktemp())
        os.chmod(identity.key_path, 0o600)
        self.assertEqual(identity, client_identity(identity.certificate_path, identity.key_path))
