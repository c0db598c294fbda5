"""Layer 3: AMP with bounds, typed errors and secrets that stay secret.

The bytes are AMP's (:mod:`twisted.protocols.amp`), and so is the way in which commands and their
responders are declared. Twisted's own protocol is not used: it keeps an unfinished box without
bound, any number of open requests, file descriptors that nobody asked for; it prints a responder's
whole answer, keys included, when a field is missing; and its peer may start TLS or another protocol
on the line. None of that can be reached here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from cloudconnect.commands.answering import find_responder
from cloudconnect.commands.box_parser import BoxParser, BoxTooLarge, digest_of_box, encode_box
from cloudconnect.commands.calls import Call, OpenCalls
from cloudconnect.commands.fields import (
    BoundedCommand,
    carried_error,
    error_box,
    may_be_used,
    read_fields,
    write_fields,
)
from cloudconnect.errors import CloudConnectError, LocalError, NotReachable, ProtocolViolation
from cloudconnect.settings import BOX_MAX, COMMAND_SECONDS, REQUESTS_MAX
from cloudconnect.transports.flow import WriteGate

__all__ = ["BoundedAMP", "BoundedCommand"]

#: Longest tag that a peer may give a request, in bytes: our own have 16 digits at most.
TAG_MAX: Final = 16


class BoundedAMP(Protocol, amp.CommandLocator):
    """Calls commands, and answers those that it or its locator has responders for.

    A responder raises a :class:`~cloudconnect.errors.CloudConnectError` to refuse: the caller gets
    one of the same class with the same text. Anything else that it raises is a bug: it is logged
    here, and the caller learns only that there was one.

    :param clock: the reactor, or a ``Clock``
    :param locator: has the responders; by default the protocol itself
    :param box_max: largest box to receive or send, in bytes
    :param requests_max: most requests of the peer, and most calls of ours, open at once
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        locator: amp.CommandLocator | None = None,
        *,
        box_max: int = BOX_MAX,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        self._locator: Any = self if locator is None else locator
        self._more: tuple[Any, ...] = ()
        self._parser = BoxParser(box_max)
        self._requests_max = requests_max
        self._open_requests = 0
        self._current_box: amp.AmpBox | None = None
        self._calls = OpenCalls(clock)
        self._error: CloudConnectError | None = None  # why nothing can be called any more
        self._gate = WriteGate(self._gate_changed, lambda: None)

    def set_limits(self, box_max: int, requests_max: int) -> None:
        """Other limits from the next box on: once the peer is authenticated, for instance."""
        self._parser.box_max = box_max
        self._requests_max = requests_max

    def answer_with(self, *locators: amp.CommandLocator) -> None:
        """Have these answer too what the protocol, or its locator, has no responders for."""
        self._more = locators

    # --- calling --------------------------------------------------------------------------------

    def call(
        self,
        command: type[amp.Command],
        timeout: float | None = COMMAND_SECONDS,
        **arguments: Any,
    ) -> Deferred[dict[str, Any]]:
        """Call ``command`` at the other side; the result is its answer by field names.

        Fails with the error that the other side answers, ``Refused`` where its class is unknown
        here; with ``NotReachable`` when there is no answer in time or the connection ends, or with
        the typed reason of that end; with ``TypeError`` for arguments that do not fit.

        :param timeout: in seconds; None to wait for as long as the connection lasts
        """
        return self.call_with_digest(command, timeout, **arguments)[1]

    def call_with_digest(
        self,
        command: type[amp.Command],
        timeout: float | None = COMMAND_SECONDS,
        **arguments: Any,
    ) -> tuple[bytes, Deferred[dict[str, Any]]]:
        """As :meth:`call`, and SHA-256 over the very bytes of the box that went out.

        The other side has the same digest from :meth:`digest_of_current_box`. It is ``b""`` where
        nothing went out.
        """
        try:
            return self._call(command, timeout, arguments)
        except Exception:
            return b"", fail()

    def _call(
        self, command: type[amp.Command], timeout: float | None, arguments: dict[str, Any]
    ) -> tuple[bytes, Deferred[dict[str, Any]]]:
        if self._error is not None:
            raise self._error
        if self.transport is None:
            raise NotReachable("there is no connection yet")
        if not may_be_used(command):
            raise TypeError(f"{command.__name__} would change the line")
        if len(self._calls) >= self._requests_max:
            raise LocalError(f"{self._requests_max} calls wait for an answer on this connection")
        unknown = set(arguments).difference(
            name.decode("ascii").replace("-", "_") for name, _ in command.arguments
        )
        if unknown:
            raise TypeError(f"{command.__name__} takes no {', '.join(sorted(unknown))}")
        box = write_fields(arguments, command.arguments, command, self)
        box[amp.COMMAND] = command.commandName
        tag = self._calls.new_tag()
        if command.requiresAnswer:
            box[amp.ASK] = tag
        octets = encode_box(box, self._parser.box_max)
        if command.requiresAnswer:
            answer = self._calls.open(tag, command, timeout).answer
        else:
            answer = succeed({})
        self.transport.write(octets)
        return digest_of_box(box), answer

    # --- receiving ------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the transport. Nothing that the peer sends makes this raise."""
        if self._error is not None:
            return
        try:
            for box in self._parser.receive(data):
                self._box_received(box)
                if self._error is not None or getattr(self.transport, "disconnecting", False):
                    return
        except ProtocolViolation as error:
            self._fail(error)

    def _box_received(self, box: amp.AmpBox) -> None:
        kinds = [kind for kind in (amp.ANSWER, amp.ERROR, amp.COMMAND) if kind in box]
        if kinds == [amp.COMMAND]:
            self._asked(box)
        elif kinds in ([amp.ANSWER], [amp.ERROR]):
            call = self._calls.answered(box[kinds[0]])
            if call is None:
                raise ProtocolViolation("an answer to nothing that was asked")
            if not call.given_up:
                call.give_up()
                self._conclude(call, box)
        else:
            raise ProtocolViolation("a box that is no command, answer or error")

    def _conclude(self, call: Call, box: amp.AmpBox) -> None:
        if amp.ERROR in box:
            call.answer.errback(carried_error(box))
            return
        try:
            values = read_fields(box, call.command.response, call.command, self)
        except ProtocolViolation as error:
            call.answer.errback(error)
        else:
            call.answer.callback(values)

    def _fail(self, error: CloudConnectError) -> None:
        """The peer does not keep to the protocol: nothing more is read, and the line is cut."""
        self._error = error
        line: Any = self.transport
        self.log.warn(
            "{protocol} with {peer} failed: {error}",
            protocol=type(self).__name__,
            peer=line.getPeer(),
            error=str(error),
        )
        getattr(line, "abortConnection", line.loseConnection)()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has gone: every open call fails with the reason."""
        if self._error is None:
            self._error = _end_as_error(reason)
        self.transport = None
        self._calls.fail(self._error)

    # --- answering ------------------------------------------------------------------------------

    def digest_of_current_box(self) -> bytes:
        """SHA-256 over the very bytes of the box that is being answered.

        :raises LocalError: not called by a responder before it has returned or awaited
        """
        if self._current_box is None:
            raise LocalError("there is a current box only while a responder is called")
        return digest_of_box(self._current_box)

    def _asked(self, box: amp.AmpBox) -> None:
        if self._open_requests >= self._requests_max:
            raise ProtocolViolation(f"more than {self._requests_max} requests are open")
        tag = box.get(amp.ASK)
        if tag is not None and not 1 <= len(tag) <= TAG_MAX:
            raise ProtocolViolation("the tag of a request is too long, or empty")
        self._open_requests += 1
        answered = maybeDeferred(self._respond, box)
        answered.addErrback(self._explain)
        answered.addCallback(self._answer, tag)
        answered.addErrback(lambda bug: self.log.failure("an answer was not sent", bug))

    def _respond(self, box: amp.AmpBox) -> Deferred[amp.AmpBox]:
        found = find_responder((self._locator, *self._more), box[amp.COMMAND])
        if found is None or not may_be_used(found[0]):
            raise ProtocolViolation("there is no such command here")
        command, responder = found
        arguments = read_fields(box, command.arguments, command, self)
        self._current_box = box
        try:
            answer = maybeDeferred(responder, **arguments)
        finally:
            self._current_box = None
        self._look_on(command, arguments, answer)
        return answer.addCallback(write_fields, command.response, command, self)

    def _look_on(
        self, command: type[amp.Command], arguments: dict[str, Any], answer: Deferred[Any]
    ) -> None:
        """Hook of a subclass that writes down what is asked of it; ``answer`` is passed on."""

    def _explain(self, failure: Failure) -> amp.AmpBox:
        """The error box for what a responder raised."""
        if not isinstance(failure.value, CloudConnectError):
            self.log.failure("a responder of {protocol} failed", failure, protocol=self._locator)
        return error_box(failure.value)

    def _answer(self, box: amp.AmpBox, tag: bytes | None) -> None:
        self._open_requests -= 1
        if tag is None or self.transport is None or self._error is not None:
            return
        box[amp.ERROR if amp.ERROR_CODE in box else amp.ANSWER] = tag
        try:
            octets = encode_box(box, self._parser.box_max)
        except BoxTooLarge as error:
            box = self._explain(Failure(error))
            box[amp.ERROR] = tag
            octets = encode_box(box, self._parser.box_max)
        self._write_answer(octets)

    def _write_answer(self, octets: bytes) -> None:
        """Write, and read no more requests while the peer does not take our answers.

        A producer is registered while the transport is full and not longer, so that
        ``loseConnection`` need not wait for us.
        """
        line: Any = self.transport
        if self._gate.paused:
            line.write(octets)
            return
        line.registerProducer(self._gate, True)
        line.write(octets)
        if not self._gate.paused:
            line.unregisterProducer()

    def _gate_changed(self) -> None:
        line: Any = self.transport
        if line is None:
            return
        if self._gate.paused:
            line.pauseProducing()
        else:
            line.unregisterProducer()
            line.resumeProducing()


def _end_as_error(reason: Failure) -> CloudConnectError:
    """The end of the connection as an error of ours."""
    if isinstance(reason.value, CloudConnectError):
        return reason.value
    if isinstance(reason.value, ConnectionDone):
        return NotReachable("the other side has closed the connection")
    return NotReachable(f"the connection was lost: {reason.getErrorMessage()}")
