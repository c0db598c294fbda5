"""Layer 6: secrets in files: bounded, and read in one way."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from cloudconnect.config.reading import read_bounded as read_bounded
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password

#: Longest password or passphrase file, in bytes.
SECRET_MAX: Final = 4096
#: Longest key file, in bytes.
KEY_FILE_MAX: Final = 1 << 20


def as_password(octets: bytes, what: str) -> Password:
    """A password from a file's or command's bytes, without the newline at their end.

    :raises UsageError: it is empty or too long
    """
    if len(octets) > SECRET_MAX:
        raise UsageError(f"the {what} has more than {SECRET_MAX} bytes")
    octets = octets.removesuffix(b"\n").removesuffix(b"\r")
    if not octets:
        raise UsageError(f"the {what} is empty")
    return Password(octets)


def readable_by_all(path: Path) -> bool:
    """Whether each user of this machine may read a file, as far as its own mode says."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def key_file_content(path: Path) -> Password:
    """The content of a key file, which serves in the place of a passphrase.

    :raises UsageError: it cannot be read, is empty or too long
    """
    return Password(read_bounded(path, "encryption key file", KEY_FILE_MAX))
