"""Tests of :mod:`cloudconnect.transports.keyfiles`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import UsageError
from cloudconnect.transports.keyfiles import KEY_FILE_MAX, read_key

KEY = bytes(range(200, 232))


class KeyFileTests(SynchronousTestCase):
    """What is read, and what is refused."""

    def file(self, content: bytes, mode: int = 0o600) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    def refusal(self, path: str) -> str:
        """The message with which ``path`` is refused."""
        return str(self.assertRaises(UsageError, read_key, path))

    def test_octets(self) -> None:
        """32 bytes are the key, white space at their ends too."""
        for key in (KEY, b"\n" + KEY[:30] + b" "):
            self.assertEqual(key, read_key(self.file(key)).reveal())

    def test_hexadecimal(self) -> None:
        """64 digits are the key, in either case, with white space around them."""
        digits = KEY.hex().encode()
        for content in (digits, digits.upper(), digits + b"\n", b"  " + digits + b" \r\n\n"):
            self.assertEqual(KEY, read_key(self.file(content)).reveal(), content)

    def test_size(self) -> None:
        """Another number of bytes or digits is refused, and none of it is repeated."""
        digits = KEY.hex().encode()
        wrong = [b"", KEY[:31], KEY + b"\n", digits[:-1], digits + b"0", digits + b" " + digits]
        wrong += [digits[:32] + b" " + digits[32:], b"g" * 64, digits + b" " * KEY_FILE_MAX]
        for content in wrong:
            message = self.refusal(self.file(content))
            self.assertIn("32 random bytes nor 64 hexadecimal digits", message)
            self.assertNotIn("c8c9cacb", message)
            self.assertNotIn("\\xc8", message)

    def test_password(self) -> None:
        """32 characters of text are a password, or 128 bits of digits, and no key."""
        for content in (b"correct horse battery staple 123", b"0123456789abcdef" * 2):
            self.assertEqual(32, len(content))
            self.assertIn("neither", self.refusal(self.file(content)))

    def test_open_to_everybody(self) -> None:
        """A file that others may read or write is refused; a group may be meant to read it."""
        for mode in (0o604, 0o602, 0o644, 0o666):
            self.assertIn("chmod 600", self.refusal(self.file(KEY, mode)))
        for mode in (0o600, 0o400, 0o640, 0o440):
            self.assertEqual(KEY, read_key(self.file(KEY, mode)).reveal())

    def test_no_file(self) -> None:
        """What cannot be opened is named, and why."""
        message = self.refusal("no such\nfile")
        self.assertEqual(
            "key file 'no such\\nfile' cannot be read: No such file or directory", message
        )
        self.assertIn("zero byte", self.refusal("a\0b"))
        self.assertIn("cannot be read", self.refusal(""))

    def test_not_regular(self) -> None:
        """A folder, a device or a pipe is no key file; a pipe is not waited for."""
        folder, pipe = self.mktemp(), self.mktemp()
        os.mkdir(folder, 0o700)
        os.mkfifo(pipe, 0o600)
        for path in (folder, pipe, "/dev/zero"):
            self.assertIn("not a regular file", self.refusal(path))

    def test_link(self) -> None:
        """A symbolic link is followed, and what it leads to is looked at."""
        for mode, good in ((0o600, True), (0o644, False)):
            link = self.mktemp()
            os.symlink(os.path.abspath(self.file(KEY, mode)), link)
            if good:
                self.assertEqual(KEY, read_key(link).reveal())
            else:
                self.assertIn("chmod 600", self.refusal(link))
