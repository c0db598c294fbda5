"""Layer 2, transports: secrets that a program is told by the path of a file.

Secrets do not stand in command lines, in endpoint strings or in settings, which others can read;
the path of a file does.

Source: ``docs/howto/endpoint-strings.rst``, "Key files".
"""

from __future__ import annotations

import os
import re
import stat
from typing import Final

from cloudconnect.errors import UsageError
from cloudconnect.keys import KEY_SIZE, Secret

#: Most bytes of a key file that are looked at: 64 digits, and some white space around them.
KEY_FILE_MAX: Final = 128

_HEXADECIMAL: Final = re.compile(rb"\s*([0-9A-Fa-f]{64})\s*")
_TEXT: Final = re.compile(rb"[\t\n\r -~]+")


def read_key(path: str) -> Secret:
    """The secret in a file: 32 bytes, or 64 hexadecimal digits (white space around them is fine).

    :param path: a regular file that others cannot read or write (``chmod 600``, or 640 where a
        group of its own is meant to read it)
    :raises UsageError: there is no such file, others may read or write it, or it holds something
        else; 32 characters of text, too, as those are a password and no key
    """
    octets = _read(path)
    if len(octets) == KEY_SIZE and not _TEXT.fullmatch(octets):
        return Secret(octets)
    digits = _HEXADECIMAL.fullmatch(octets)
    if digits is None or len(octets) > KEY_FILE_MAX:
        raise UsageError(
            f"key file {path!r} holds neither {KEY_SIZE} random bytes nor {2 * KEY_SIZE} "
            "hexadecimal digits (openssl rand -hex 32 prints such)"
        )
    return Secret(bytes.fromhex(digits[1].decode("ascii")))


def check_private(path: str) -> None:
    """Whether a file is one that others cannot get at.

    :param path: a regular file
    :raises UsageError: there is no such file, or others may read or write it
    """
    _read(path)


def _read(path: str) -> bytes:
    try:
        # Without O_NONBLOCK opening a pipe would wait for whoever writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"key file {path!r} is not a regular file")
            if mode & stat.S_IRWXO:
                raise UsageError(f"key file {path!r} is open to everybody: chmod 600 it")
            return os.read(descriptor, KEY_FILE_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(f"key file {path!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"key file {path!r}: a path cannot have a zero byte in it") from None
