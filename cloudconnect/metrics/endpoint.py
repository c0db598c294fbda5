"""Layer 5: the private HTTP port: ``/metrics``, ``/healthz`` and ``/readyz``.

It has no log-in and no TLS: its place is the loopback or a network for monitoring only. It answers
GET and HEAD, reads no body and logs no request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

#: What must answer does so within so many seconds, or it is not ready.
READY_SECONDS: Final = 5.0
#: A connection that is idle for so many seconds is closed.
IDLE_SECONDS: Final = 30.0

#: Looks at everything that must work; fires with what is wrong by name, "" where nothing is.
Checks = Callable[[], Deferred[Mapping[str, str]]]


class MetricsSite(Site):
    """The port's factory.

    :param clock: measures how long a check may take
    :param registry: what ``/metrics`` shows
    :param checks: what ``/readyz`` asks; without one a process that answers is ready
    """

    noisy = False
    displayTracebacks = False

    def __init__(
        self, clock: IReactorTime, registry: CollectorRegistry, checks: Checks | None = None
    ) -> None:
        root = Resource()
        root.putChild(b"metrics", _Metrics(registry))
        root.putChild(b"healthz", _Text(b"ok\n"))
        root.putChild(b"readyz", _Ready(clock, checks or (lambda: succeed({}))))
        super().__init__(root, timeout=IDLE_SECONDS)  # type: ignore[no-untyped-call]

    def log(self, request: Any) -> None:
        """No line for each request."""


class _Text(Resource):
    """Always the same text."""

    isLeaf = True

    def __init__(self, text: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._text = text

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return self._text


class _Metrics(Resource):
    """The metrics in Prometheus's text format."""

    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._registry = registry

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode("ascii"))
        return generate_latest(self._registry)


class _Ready(Resource):
    """Whether all checks hold."""

    isLeaf = True
    _log = Logger()

    def __init__(self, clock: IReactorTime, checks: Checks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._checks = checks

    def render_GET(self, request: Request) -> int:
        gone: list[Any] = []
        request.notifyFinish().addErrback(gone.append)
        looked: Deferred[Any] = self._checks()
        looked.addTimeout(READY_SECONDS, self._clock)
        looked.addCallbacks(self._text, self._failed)

        def answer(found: tuple[int, str]) -> None:
            if gone:
                return
            status, text = found
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            request.setResponseCode(status)
            if request.method != b"HEAD":
                request.write(text.encode())
            request.finish()

        looked.addCallback(answer)
        return NOT_DONE_YET

    def _text(self, found: Mapping[str, str]) -> tuple[int, str]:
        lines = "".join(f"{name}: {why or 'ok'}\n" for name, why in found.items())
        return SERVICE_UNAVAILABLE if any(found.values()) else 200, lines or "ok\n"

    def _failed(self, failure: Failure) -> tuple[int, str]:
        if failure.check(TimeoutError):
            return SERVICE_UNAVAILABLE, f"no answer within {READY_SECONDS:.0f} s\n"
        self._log.failure("a check of /readyz failed", failure)
        return INTERNAL_SERVER_ERROR, "a check failed; see the log\n"
