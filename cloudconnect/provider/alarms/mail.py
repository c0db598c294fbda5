"""Layer 4: alarms by mail: SMTP, with STARTTLS wherever the server is not this machine.

The server shows a certificate for the name by which it is known here, of an authority that the
system trusts or that the admin has named; else nothing is sent, and the log says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from io import BytesIO
from typing import Any

import attrs
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from cloudconnect.errors import CertificateUntrusted, NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms.alarms import Alarm, alarm_text
from cloudconnect.provider.alarms.receivers import authorities, is_loopback


@attrs.frozen
class Mail:
    """Sends alarms by mail.

    :ivar server: host and port
    :ivar sender: the address that it comes from
    :ivar to: the addresses that it goes to
    :ivar user: to log in with, or empty
    :ivar ca: PEM of the authorities to trust in the place of the system's, or empty; with it a
        server on this machine shows a certificate too
    """

    reactor: Any
    server: tuple[str, int]
    sender: str = attrs.field()
    to: tuple[str, ...] = attrs.field()
    user: str = ""
    password: Password | None = attrs.field(default=None, repr=False)
    ca: bytes = b""
    name: str = "mail server"

    @sender.validator
    @to.validator
    def _check_addresses(self, field: Any, value: str | tuple[str, ...]) -> None:
        for address in (value,) if isinstance(value, str) else value:
            plain = parseaddr(address)[1]
            if plain != address or "@" not in address or not address.isascii():
                raise UsageError(f"{address!r} is not a mail address")

    def send(self, alarms: Sequence[Alarm], dropped: int) -> Deferred[Any]:
        """Send one mail with all of them, in one attempt.

        :return: fails with ``CertificateUntrusted`` where the server is not who it should be, with
            ``NotReachable`` where it does not take it
        """
        # Not above: it imports the reactor, and who only imports this may choose or fork later.
        from twisted.mail.smtp import ESMTPSenderFactory

        host, port = self.server
        secure = bool(self.ca) or not is_loopback(host)

        def give_up(_: Deferred[Any]) -> None:
            factory.sendFinished = True
            line = factory.currentProtocol
            if line is not None and line.transport is not None:
                line.transport.abortConnection()
            else:
                connector.disconnect()

        sent: Deferred[Any] = Deferred(give_up)
        factory = ESMTPSenderFactory(
            self.user.encode() or None,
            None if self.password is None else self.password.reveal(),
            self.sender.encode(),
            [address.encode() for address in self.to],
            BytesIO(bytes(alarm_mail(self.sender, self.to, alarms, dropped))),
            sent,
            retries=0,  # who sends it tries again
            contextFactory=self._context(host) if secure else None,
            heloFallback=True,
            requireAuthentication=bool(self.user),
            requireTransportSecurity=secure,
        )
        factory.noisy = False
        connector = self.reactor.connectTCP(host, port, factory)
        return sent.addErrback(_understood, host)

    def _context(self, host: str) -> Any:
        roots = authorities(self.ca) if self.ca else None
        return optionsForClientTLS(host, roots)


def _understood(failure: Failure, host: str) -> Failure:
    """Why a mail was not sent, as an error of ours; its text has nothing of what was sent."""
    if failure.check(CancelledError):
        return failure
    text = failure.getErrorMessage()
    if any(isinstance(c, SSL.Error | VerificationError) for c in _causes(failure.value)):
        return Failure(
            CertificateUntrusted(
                f"the certificate that the mail server {host} shows is not trusted: name its "
                "authority with alarm_mail_ca, and the server as its certificate does"
            )
        )
    return Failure(NotReachable(f"the mail server {host} did not take it: {text}"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def alarm_mail(
    sender: str, to: Sequence[str], alarms: Sequence[Alarm], dropped: int = 0
) -> EmailMessage:
    """The mail about some alarms."""
    message = EmailMessage()
    first = alarms[0]
    names = sorted({alarm.name for alarm in alarms})
    word = "SECURITY WARNING: " if any(alarm.security for alarm in alarms) else ""
    whose = f", tenant {first.tenant}" if first.tenant and len(alarms) == 1 else ""
    message["Subject"] = f"[cloudconnect] {word}{', '.join(names)}{whose}"[:200]
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = formatdate(time.time())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    text = "\n\n".join(map(alarm_text, alarms)) + "\n"
    if dropped:
        text += f"\n{dropped} further alarms were given up: see cloudconnect provider events.\n"
    message.set_content(text)
    return message
