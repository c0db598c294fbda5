"""Layer 6: the certificates of a node's process over the years: renewed in time, their end told.

It is looked at every few hours. Where two thirds of its life are over the node gets its next one
from the service (:mod:`cloudconnect.config.node_renewal`); where that does not succeed it is tried
again at the next look, and the log and the metrics say when the certificate ends.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.logger import Logger

from cloudconnect.commands.renewing import renew_node, show_node
from cloudconnect.config.certificates import load_certificate
from cloudconnect.config.endings import node_endings
from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.node_renewal import adopt_next, is_due, keep_own, next_tls, renew
from cloudconnect.errors import CloudConnectError, UsageError
from cloudconnect.provider.alarms.expiry import LOOK_SECONDS, ExpiryWatch
from cloudconnect.provider.looking import Looking
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tap.reloading import ChangeWatch, SettingsFile
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.nodes import SERVICE, NodeName


def renew_over_lan(
    reactor: Any, directory: Path, service: tuple[str, int], issuer: str = SERVICE
) -> Awaitable[x509.Certificate]:
    """Get the next certificate of the node in ``directory`` from the service, and use it.

    :param service: host and port of the service's LAN port
    :param issuer: the role of who has the authority there
    :raises CloudConnectError: it could not be had; all is as it was
    """
    place = HostnameEndpoint(reactor, *service, CONNECT_SECONDS)

    async def ask(request: bytes) -> tuple[bytes, bytes]:
        shown = wrap_client_endpoint(lan_tls(directory, issuer), place, reactor)
        return await renew_node(reactor, shown, request)

    async def show() -> None:
        await show_node(reactor, wrap_client_endpoint(next_tls(directory, issuer), place, reactor))

    return renew(directory, ask, show)


class CertificateKeeper(Looking):
    """Has a certificate renewed when it is due.

    :param reactor: clock
    :param look: renews what is due; fires with when what there is now ends, or None where nothing
        was due
    """

    _log = Logger()

    def __init__(self, reactor: Any, look: Callable[[], Awaitable[float | None]]) -> None:
        super().__init__(reactor, LOOK_SECONDS, lambda: Deferred.fromCoroutine(self._renew(look)))

    async def _renew(self, look: Callable[[], Awaitable[float | None]]) -> None:
        try:
            ends = await look()
        except (CloudConnectError, OSError) as error:
            self._log.warn("a certificate in the LAN is not renewed: {why}", why=str(error))
        except CancelledError:
            return
        except Exception:
            self._log.failure("a certificate in the LAN could not be renewed")
        else:
            if ends is not None:
                until = time.strftime("%Y-%m-%d", time.gmtime(ends))
                self._log.info("this node has another certificate, until {until}", until=until)


def begin_with_own(authority: Path, directory: Path, node: NodeName) -> None:
    """Before its files are read: have a node that has the authority begin with a pair that is one,
    since a crash may have left half of a new one, and with one that is not over.

    Where the authority's key is kept elsewhere that cannot be, and all goes on as it is.

    :param authority: folder of the authority
    :param directory: folder of the node
    """
    try:
        keep_own(authority, directory, node)
    except (UsageError, OSError) as error:
        Logger(__name__).error("a certificate in the LAN is not renewed: {why}", why=str(error))


def own_keeper(
    reactor: Any, authority: Path, directory: Path, node: NodeName, renewed: Callable[[], Any]
) -> CertificateKeeper:
    """Keeps the certificates of a node that has the authority itself, and that of the authority.

    :param authority: folder of the authority
    :param directory: folder of the node
    :param renewed: has the files read again
    """

    async def look() -> float | None:
        if not keep_own(authority, directory, node):
            return None
        renewed()
        return load_certificate(directory / "certificate.pem").not_valid_after_utc.timestamp()

    return CertificateKeeper(reactor, look)


def keep_certificate(reactor: Any, process: Any, directory: Path, service: tuple[str, int]) -> None:
    """Have a node's process renew its certificate over the LAN link.

    :param process: its ``MultiService``
    :param service: host and port of the service's LAN port
    """
    log = Logger(__name__)
    if adopt_next(directory):
        log.info("the node's next certificate is used from now on")

    async def look() -> float | None:
        if not is_due(load_certificate(directory / "certificate.pem"), time.time()):
            return None
        return (await renew_over_lan(reactor, directory, service)).not_valid_after_utc.timestamp()

    CertificateKeeper(reactor, look).setServiceParent(process)  # type: ignore[no-untyped-call]


def watch_files(
    reactor: Any,
    process: Any,
    directory: Path,
    reread: Callable[[], Any],
    configuration: str,
    settings: SettingsFile,
) -> None:
    """Have a node's process notice other certificates and settings, also by SIGHUP, and tell its
    log 30, 14 and 3 days before certificates end.

    :param process: its ``MultiService``
    :param reread: reads certificates again; what dials the service reads them for each line anyhow
    :param configuration: name of the file of settings
    :param settings: what it says
    """
    log = Logger(__name__)
    ends = ExpiryWatch(
        reactor,
        partial(node_endings, directory),
        lambda name, days, text: log.warn("{text}", text=text),
    )

    def changed() -> None:
        settings.read_again()
        try:
            reread()
        except UsageError as error:
            log.error("not used: {why}", why=str(error))
            return
        log.info("certificates were read again")
        ends.look()

    names = ("certificate.pem", "key.pem", "ca.pem", configuration)
    paths = [directory / name for name in names]
    for child in (ends, ChangeWatch(reactor, paths, changed)):
        child.setServiceParent(process)  # type: ignore[no-untyped-call]
