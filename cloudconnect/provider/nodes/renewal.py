"""Layer 4: the service gives nodes their next certificates, before those that they have end.

The service's end of what :mod:`cloudconnect.commands.renewing` describes. A node has proved which
one it is, by the certificate that it has; it gets another one of the same role and name, for a key
that it has made itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from cloudconnect.commands.enrolling import REQUEST_MAX
from cloudconnect.errors import Busy, ProtocolViolation
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.alarms.expiry import Ending
from cloudconnect.provider.nodes.enrolment import Signer

#: Seconds from one certificate of a node to its next one: each is a signature and a write.
RENEWAL_SECONDS: Final = 60.0


class NodeRenewals:
    """Issues next certificates.

    :param clock: measures :data:`RENEWAL_SECONDS`
    :param accounts: knows the nodes; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there
    :param sign: issues certificates; blocks, and runs there too
    :param renewed: is told of each: role and name
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        sign: Signer,
        renewed: Callable[[str, str], Any],
    ) -> None:
        self._clock = clock
        self._accounts = accounts
        self._run = in_accounts_thread
        self._sign = sign
        self._renewed = renewed
        # With the certificate: a line that shows an old one holds nobody up.
        self._last: dict[tuple[str, str, str], float] = {}

    def renew(self, role: str, name: str, request: bytes, shown: str) -> Deferred[dict[str, Any]]:
        """Issue the next certificate of a node that has proved that it is this one.

        :param request: PKCS #10, DER
        :param shown: fingerprint of the key that it has proved, maybe long ago
        :raises Busy: it has got one just now
        :raises Refused: it is no request, or the node has another certificate by now
        :raises ProtocolViolation: it is too long
        """
        if len(request) > REQUEST_MAX:
            raise ProtocolViolation(f"a request has at most {REQUEST_MAX} bytes")
        now, asks = self._clock.seconds(), (role, name, shown)
        last = self._last.get(asks)
        if last is not None and now - last < RENEWAL_SECONDS:
            raise Busy(f"node {name} has got a certificate within the last minute")
        self._last = {one: at for one, at in self._last.items() if now - at < RENEWAL_SECONDS}
        self._last[asks] = now
        issued = self._run(self._issue, role, name, request, shown)
        return issued.addCallback(self._say, role, name)

    def _issue(self, role: str, name: str, request: bytes, shown: str) -> dict[str, Any]:
        certificate, authority, spki = self._sign(role, name, request)
        self._accounts.renew_node(role, name, spki, shown)
        return {"certificate": certificate, "authority": authority}

    def _say(self, answer: dict[str, Any], role: str, name: str) -> dict[str, Any]:
        self._log.info("node {role} {name} gets its next certificate", role=role, name=name)
        self._renewed(role, name)
        return answer


class NodeCertificates:
    """When the certificates of all nodes end, as the service has seen them last.

    :param rows: the nodes as the accounts list them
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self._ends: dict[tuple[str, str], float] = {}
        for row in rows:
            if row["revoked"] is None and row["ends"]:
                self._ends[row["role"], row["name"]] = row["ends"]

    def saw(self, role: str, name: str, ends: float) -> None:
        """A node has shown its certificate."""
        self._ends[role, name] = ends

    def forget(self, role: str, name: str) -> None:
        """It was taken back."""
        self._ends.pop((role, name), None)

    def names(self) -> list[tuple[str, str]]:
        """Role and name of each, in order."""
        return sorted(self._ends)

    def __iter__(self) -> Iterator[Ending]:
        """Each, the first to end first."""
        for (role, name), ends in sorted(self._ends.items(), key=lambda found: found[1]):
            yield Ending(f"the certificate of {role} {name}", ends)
