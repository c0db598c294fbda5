"""The first of several addresses that answers."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli import side_by_side
from cloudconnect.cli.dialling import Dialled
from cloudconnect.cli.side_by_side import ADDRESSES_MAX, Address, connect_first, in_turn

#: No test waits for so many seconds.
LONG = 60.0


def address(port: int, host: str = "127.0.0.1", family: int = socket.AF_INET) -> Address:
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


class OrderTests(SynchronousTestCase):
    """Which address is tried when."""

    def test_in_turn(self) -> None:
        """The system's order, with the families in turn."""
        six = [address(n, "::1", socket.AF_INET6) for n in range(3)]
        four = [address(n) for n in range(2)]
        expected = [six[0], four[0], six[1], four[1], six[2]]
        self.assertEqual(expected, in_turn([*six, *four]))
        self.assertEqual([four[0], six[0], four[1]], in_turn([*four, six[0]]))
        self.assertEqual([], in_turn([]))

    def test_bounded(self) -> None:
        """Of a host with many addresses not all are tried."""
        many = [address(number) for number in range(50)]
        self.assertEqual(many[:ADDRESSES_MAX], in_turn(many))


class ConnectTests(SynchronousTestCase):
    """Addresses on loopback that answer, refuse, or say nothing."""

    def setUp(self) -> None:
        self.patch(side_by_side, "NEXT_SECONDS", 0.01)
        self.made: list[socket.socket] = []
        real = side_by_side._begin

        def begin(where: Address) -> socket.socket:
            self.made.append(real(where))
            return self.made[-1]

        self.patch(side_by_side, "_begin", begin)

    def listening(self, backlog: int = 16) -> socket.socket:
        made = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.addCleanup(made.close)
        return made

    def silent(self) -> Address:
        """An address where nobody answers: its queue is full."""
        listening = self.listening(0)
        where = listening.getsockname()
        for _ in range(3):
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            self.assertIn(waiting.connect_ex(where), (0, errno.EINPROGRESS))
        return address(where[1])

    def refusing(self) -> Address:
        with self.listening() as listening:
            return address(listening.getsockname()[1])

    def connect(self, *addresses: Address, seconds: float = LONG, **more: Any) -> socket.socket:
        self.patch(socket, "getaddrinfo", lambda *arguments: list(addresses))
        made = connect_first(("host", 7), seconds, **more)
        self.addCleanup(made.close)
        return made

    def assertOpen(self, *expected: socket.socket) -> None:
        """These are open of all that were made, and no others."""
        self.assertEqual(list(expected), [one for one in self.made if one.fileno() >= 0])

    def test_silent(self) -> None:
        """Beside an address that does not answer the next one is tried, and used; what was begun
        is closed."""
        there = self.listening()
        made = self.connect(self.silent(), self.silent(), address(there.getsockname()[1]))
        self.assertEqual(there.getsockname(), made.getpeername())
        self.assertFalse(made.getblocking())
        self.assertEqual(3, len(self.made))
        self.assertOpen(made)

    def test_answers(self) -> None:
        """Where the first one answers no other is tried."""
        self.patch(side_by_side, "NEXT_SECONDS", LONG)
        there = self.listening()
        made = self.connect(address(there.getsockname()[1]), self.silent())
        self.assertEqual(there.getsockname(), made.getpeername())
        self.assertOpen(made)
        self.assertEqual(1, len(self.made))

    def test_refused(self) -> None:
        """Where one refuses, or cannot even be tried, the next one is tried at once."""
        self.patch(side_by_side, "NEXT_SECONDS", LONG)
        there = self.listening()
        odd = address(1, "no address")
        made = self.connect(self.refusing(), odd, address(there.getsockname()[1]))
        self.assertEqual(there.getsockname(), made.getpeername())
        self.assertOpen(made)

    def test_slow(self) -> None:
        """One that answers late is used where no other one does."""
        there = self.listening()
        made = self.connect(self.refusing(), address(there.getsockname()[1]), self.refusing())
        self.assertEqual(there.getsockname(), made.getpeername())
        self.assertOpen(made)

    def test_none(self) -> None:
        """Where nobody answers that is an error, and nothing stays open."""
        self.assertRaises(OSError, self.connect, self.refusing(), self.refusing())
        self.assertRaises(OSError, self.connect)
        silent = (self.silent(), self.silent())
        self.assertRaises(TimeoutError, self.connect, *silent, seconds=0.05)
        self.assertOpen()

    def test_unwanted(self) -> None:
        """What nobody wants any more is given up."""
        self.assertRaises(OSError, self.connect, self.silent(), wanted=lambda: False)
        self.assertOpen()

    def test_ahead_of_time(self) -> None:
        """A connection that is opened ahead of time goes to the address that answers."""
        there = self.listening()
        addresses = [self.silent(), address(there.getsockname()[1])]
        self.patch(socket, "getaddrinfo", lambda *arguments: addresses)
        dialled = Dialled("host", 7)
        dialled._thread.join()
        taken = dialled.take()
        assert taken is not None
        self.addCleanup(taken.close)
        self.assertEqual(there.getsockname(), taken.getpeername())
