"""Tests of :mod:`cloudconnect.provider.one_thread`."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from cloudconnect.provider.one_thread import OneThread


class ThreadTests(TestCase):
    """What runs in it."""

    timeout = 60

    @inlineCallbacks
    def test_order(self) -> Any:
        """One after the other in one other thread, and what waits at a stop is done before the
        end."""
        done: list[Any] = []
        thread = OneThread(reactor, "a test's", lambda: done.append("closed"))
        thread.startService()
        here = yield thread.run(threading.get_ident)
        again = yield thread.run(threading.get_ident)
        self.assertEqual(here, again)
        self.assertNotEqual(here, threading.get_ident())
        last = [thread.run(done.append, number) for number in range(3)]
        thread.stopService()
        self.assertEqual([0, 1, 2, "closed"], done)
        yield last[-1]
        self.assertEqual([None] * 3, [deferred.result for deferred in last])
