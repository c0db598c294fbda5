"""Files for what is too much for memory."""

from __future__ import annotations

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.temporary import temporary_file


class TemporaryFileTests(SynchronousTestCase):
    """Nobody else sees them, and nothing is left."""

    def test_no_name(self) -> None:
        """It has no name, belongs to this user alone, and is not handed to other programs."""
        with temporary_file() as file:
            status = os.fstat(file.fileno())
            self.assertEqual(status.st_nlink, 0)
            self.assertEqual(stat.S_IMODE(status.st_mode) & 0o077, 0)
            self.assertFalse(os.get_inheritable(file.fileno()))

    def test_no_buffer(self) -> None:
        """What was written is in the file at once."""
        with temporary_file() as file:
            file.write(b"here")
            self.assertEqual(os.pread(file.fileno(), 10, 0), b"here")
