"""Secrets in files."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.secret_files import (
    KEY_FILE_MAX,
    SECRET_MAX,
    as_password,
    key_file_content,
    read_bounded,
)
from cloudconnect.errors import UsageError


class FileTests(SynchronousTestCase):
    """Small files, whole or not at all."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_bounds(self) -> None:
        """A file of up to the limit is read; one that is longer, empty or missing is refused."""
        self.assertRaises(UsageError, read_bounded, self.path, "key", 10)
        for size, fine in ((0, False), (1, True), (10, True), (11, False)):
            self.path.write_bytes(b"x" * size)
            if fine:
                self.assertEqual(read_bounded(self.path, "key", 10), b"x" * size)
            else:
                error = self.assertRaises(UsageError, read_bounded, self.path, "key", 10)
                self.assertIn("key", str(error))

    def test_newline(self) -> None:
        """One newline at the end is the editor's, not the password's; a key file has no editor."""
        for octets in (b"word", b"word\n", b"word\r\n"):
            self.assertEqual(as_password(octets, "password").reveal(), b"word")
        self.assertEqual(as_password(b"word\n\n", "password").reveal(), b"word\n")
        self.assertRaises(UsageError, as_password, b"\n", "password")
        self.assertRaises(UsageError, as_password, b"x" * (SECRET_MAX + 1), "password")
        self.path.write_bytes(b"word\n")
        self.assertEqual(key_file_content(self.path).reveal(), b"word\n")

    def test_large_key_file(self) -> None:
        """A key file has a bound of its own, and an error does not quote it."""
        self.path.write_bytes(b"k" * (KEY_FILE_MAX + 1))
        error = self.assertRaises(UsageError, key_file_content, self.path)
        self.assertNotIn("kkk", str(error))
