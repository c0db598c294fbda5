"""Layer 3: makes files for a restore, in a process of its own.

To make a file takes the system longer than it takes this program to decide what is in it, and a
thread that waits for the system that often gets in the way of all others. So a large restore starts
this file as a program (:mod:`cloudconnect.backup.maker` has the other side). It knows nothing but
folders by their descriptors, names, permissions, times and content, and has no keys. It ends when
the socket that it is given ends.

Content lies in memory that both share, where it costs no calls of the system and one copy less. A
batch comes as the length of a list, the place in that memory, and the list (marshal): folder
number, name, mode, time in nanoseconds and size for each file, whose contents lie one behind the
other from that place on; the folders' descriptors come beside the first byte. The answer is a
length and a list of number and errno of what could not be made; of that nothing is left, and the
memory may be used again.
"""

# Run as a program by its path, without the rest of the package.
from __future__ import annotations

import contextlib
import errno
import marshal
import mmap
import os
import signal
import socket
import struct
import sys

#: Bytes of the list, and where in the shared memory the content begins.
BATCH = struct.Struct(">II")
#: Bytes of an answer's list; 0 where everything was made.
ANSWER = struct.Struct(">I")
#: One that could not be made: its number, errno.
FAILED = struct.Struct(">II")
#: Most folders of one batch: the system hands over 253 descriptors at a time.
FOLDERS_MAX = 64

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make(folder: int, name: bytes, mode: int, mtime_ns: int, content: memoryview) -> int:
    """Make a file; 0, or the errno with which it could not be made.

    :param folder: descriptor of the folder
    :param mode: permissions, of which the umask takes none
    """
    try:
        descriptor = os.open(name, _NEW, mode, dir_fd=folder)
    except OSError as error:
        return error.errno or errno.EIO
    failed = 0
    try:
        while len(content):
            content = content[os.write(descriptor, content) :]
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    except OSError as error:
        failed = error.errno or errno.EIO
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
    os.close(descriptor)
    return failed


def serve(connection: socket.socket, memory: memoryview) -> None:
    """Say that this has started, then make what comes, until the connection ends."""
    connection.sendall(ANSWER.pack(0))
    while True:
        head, folders, _, _ = socket.recv_fds(connection, BATCH.size, FOLDERS_MAX)
        if not head:
            return
        try:
            while len(head) < BATCH.size:
                head += _some(connection, BATCH.size - len(head))
            listed, at = BATCH.unpack(head)
            # It comes from the restore that has started this, and that alone has the other end.
            files = marshal.loads(_exactly(connection, bytearray(listed)))  # noqa: S302  # nosec B302
            failed = []
            for number, (folder, name, mode, mtime_ns, length) in enumerate(files):
                error = make(folders[folder], name, mode, mtime_ns, memory[at : at + length])
                at += length
                if error:
                    failed.append((number, error))
        finally:
            for descriptor in folders:
                os.close(descriptor)
        answer = b"".join(FAILED.pack(*one) for one in failed)
        connection.sendall(ANSWER.pack(len(answer)) + answer)


def _some(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most)
    if not data:
        raise EOFError
    return data


def _exactly(connection: socket.socket, into: bytearray) -> bytearray:
    view = memoryview(into)
    while len(view):
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return into


if __name__ == "__main__":
    # An interrupt is for the restore, which ends this by ending the socket.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    shared = mmap.mmap(int(sys.argv[2]), 0, access=mmap.ACCESS_READ)
    with contextlib.suppress(EOFError, ConnectionError):
        serve(socket.socket(fileno=int(sys.argv[1])), memoryview(shared))
