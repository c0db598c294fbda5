"""Layer 5: a provider's directory: what lies where, its configuration, and how it is made.

``DIRECTORY/provider.toml`` is written by ``provider init`` and read by everything else; admins edit
it. The rest of the directory belongs to the provider: certificate and key, the accounts data base,
the repositories, the node authority of its LAN, the admin socket and a lock that says that a
provider runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from OpenSSL import SSL

from cloudconnect.config.bounds import BOUNDS, TENDING
from cloudconnect.config.certificates import make_server_certificate
from cloudconnect.config.history import DEFAULT, KEPT, bounds_of_kept, check_kept
from cloudconnect.config.node_certificates import issue_node_certificate, make_node_ca
from cloudconnect.config.reading import read_settings
from cloudconnect.errors import Busy, UsageError
from cloudconnect.settings import (
    ADDRESS_CONNECTIONS_MAX,
    CONNECTIONS_MAX,
    PUBLIC_PORT,
    TENANT_CONNECTIONS_MAX,
)
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import SERVICE

CONFIGURATION = "provider.toml"
#: The roles that a provider's process may have.
ROLES = ("service", "gateway", "mover", "wan")


@attrs.frozen(kw_only=True)
class ProviderSettings:
    """What ``provider.toml`` says.

    :ivar directory: the provider's directory
    :ivar hosts: names and addresses that the certificate is for
    :ivar roles: the roles of the provider's process, of :data:`ROLES`; ``service`` is one of them
    :ivar listen: endpoint string of the public port
    :ivar advertise: ``HOST:PORT`` of gateways that tenants are told; empty: where they connected
    :ivar moving_to: ``HOST:PORT`` that tenants are told to use one day, or empty
    :ivar certificate: path of the certificate, PEM
    :ivar key: path of its key, PEM
    :ivar lan_listen: endpoint string for gateways and WAN accelerators of their own process, or
        empty
    :ivar backend_listen: endpoint string for what they send on, or empty
    :ivar backend_address: ``HOST:PORT`` of it, as they connect to it
    :ivar metrics_listen: endpoint string of the private port of metrics and health, or empty
    :ivar alarm_webhook: ``https://`` address that alarms are posted to, or empty
    :ivar alarm_webhook_ca: path of a PEM file of authorities for it, or empty: the system's
    :ivar alarm_webhook_key: path of a file with the key that requests are signed with, or empty
    :ivar alarm_mail_to: addresses that alarms are sent to by mail
    :ivar alarm_mail_from: the address that they come from
    :ivar alarm_mail_server: ``HOST:PORT`` of the mail server
    :ivar alarm_mail_user: name to log in there with, or empty
    :ivar alarm_mail_password: path of a file with the password for it
    :ivar alarm_mail_ca: path of a PEM file of authorities for its certificate, or empty: the
        system's
    :ivar alarm_events: further events that are alarms, by name
    :ivar maintenance_hours: hours from one round of the mover's maintenance to the next, 1 to 24
    :ivar gc_hours: hours from one collection of garbage to the next, 1 to 720
    :ivar scrub_days: days in which all that is stored is read and compared once, 1 to 365
    :ivar grace_days: days after the end of a lease in which its tenant may restore, 0 to 3,650
    :ivar removed_days: days that a removed tenant stays in the bin, 1 to 3,650
    :ivar events_days: days, of those in which the provider runs, in which events and security
        warnings are kept, 30 to 3,650; 0: for ever
    :ivar sessions_days: likewise sessions, 180 to 3,650; 0: for ever
    :ivar audit_days: likewise the audit log, 30 to 3,650; 0: for ever
    :ivar audit_gb: GiB of it that are kept, 1 to 10,000; 0: any number
    :ivar tenant_events: events that are kept of one tenant, and as many of its security warnings,
        1,000 to 100,000,000
    :ivar tenant_sessions: sessions that are kept of one tenant, likewise
    :ivar wan_caches: folder of the WAN accelerator's block caches
    :ivar wan_cache_gb: GiB that one tenant's cache may take, 0 to 10,000; 0: no accelerator in the
        provider's own process
    :ivar wan_caches_gb: GiB that all of them may take, 1 to 100,000
    :ivar line_rate: bytes a second of the public port's line in each direction, which tenants share
        fairly; 0: no limit
    :ivar connections: most connections of the public port, 1 to 1,000,000
    :ivar address_connections: most of one address, likewise
    :ivar tenant_connections: most data connections of one tenant, likewise
    """

    directory: Path
    hosts: tuple[str, ...]
    roles: tuple[str, ...] = ROLES
    listen: str = f"tcp:{PUBLIC_PORT}"
    advertise: tuple[str, ...] = ()
    moving_to: str = ""
    certificate: str = "tls/certificate.pem"
    key: str = "tls/key.pem"
    lan_listen: str = ""
    backend_listen: str = ""
    backend_address: str = ""
    metrics_listen: str = ""
    alarm_webhook: str = ""
    alarm_webhook_ca: str = ""
    alarm_webhook_key: str = ""
    alarm_mail_to: tuple[str, ...] = ()
    alarm_mail_from: str = ""
    alarm_mail_server: str = "localhost:25"
    alarm_mail_user: str = ""
    alarm_mail_password: str = ""
    alarm_mail_ca: str = ""
    alarm_events: tuple[str, ...] = ()
    maintenance_hours: int = 1
    gc_hours: int = 24
    scrub_days: int = 30
    grace_days: int = 30
    removed_days: int = 30
    events_days: int = DEFAULT.events_days
    sessions_days: int = DEFAULT.sessions_days
    audit_days: int = DEFAULT.audit_days
    audit_gb: int = DEFAULT.audit_gb
    tenant_events: int = DEFAULT.tenant_events
    tenant_sessions: int = DEFAULT.tenant_sessions
    wan_caches: str = "wan"
    wan_cache_gb: int = 4
    wan_caches_gb: int = 100
    line_rate: int = 0
    connections: int = CONNECTIONS_MAX
    address_connections: int = ADDRESS_CONNECTIONS_MAX
    tenant_connections: int = TENANT_CONNECTIONS_MAX

    @property
    def identity(self) -> ServerIdentity:
        """Certificate and key of the control channel."""
        return ServerIdentity(
            str(self.directory / self.certificate), str(self.directory / self.key)
        )

    @property
    def accounts_url(self) -> str:
        """SQLAlchemy URL of the accounts data base."""
        return f"sqlite:///{self.directory / 'accounts.sqlite'}"

    @property
    def repositories(self) -> Path:
        """Folder of the repositories."""
        return self.directory / "repositories"

    @property
    def keys(self) -> Path:
        """Folder of the provider's own keys of repositories in encryption mode ``provider``."""
        return self.directory / "keys"

    @property
    def node_key(self) -> Path:
        """File of the key under which this host's block caches are sealed."""
        return self.directory / "wan.key"

    @property
    def read_only(self) -> bool:
        """Whether the directory lies on a file system that is mounted read-only."""
        return bool(os.statvfs(self.directory).f_flag & os.ST_RDONLY)

    @property
    def reserve(self) -> Path:
        """Path of the file that keeps room for when the disk is full."""
        return self.directory / "reserve"

    @property
    def audit(self) -> Path:
        """Folder of the audit log."""
        return self.directory / "audit"

    @property
    def admin_socket(self) -> Path:
        """Path of the admin socket."""
        return self.directory / "admin.sock"

    @property
    def node_authority(self) -> Path:
        """Folder of the provider's own small certificate authority for its LAN."""
        return self.directory / "lan"

    def to_toml(self) -> str:
        """As ``provider init`` writes it."""
        lines = [
            "# The provider's settings. Paths are relative to this folder.",
            f"hosts = {_toml_list(self.hosts)}",
            "# The roles of the provider's process; the others run in processes of their own.",
            f"roles = {_toml_list(self.roles)}",
            f"listen = {quoted(self.listen)}",
            "# What tenants are told to connect to for data; empty: the address that they used.",
            f"advertise = {_toml_list(self.advertise)}",
            "# HOST:PORT that tenants are told beforehand, for the day on which this one moves.",
            f"moving_to = {quoted(self.moving_to)}",
            f"certificate = {quoted(self.certificate)}",
            f"key = {quoted(self.key)}",
            "# For gateways and accelerators of their own process: where they register, where what",
            "# they send on arrives (loopback or a LAN that only they can reach), its HOST:PORT.",
            f"lan_listen = {quoted(self.lan_listen)}",
            f"backend_listen = {quoted(self.backend_listen)}",
            f"backend_address = {quoted(self.backend_address)}",
            "# Metrics for Prometheus, /healthz and /readyz: without a log-in, so where only",
            "# monitoring gets, such as tcp:9180:interface=127.0.0.1; empty: nowhere.",
            f"metrics_listen = {quoted(self.metrics_listen)}",
            "# Whom alarms go to (docs/howto/operations.rst). Keys and passwords: paths of files.",
            f"alarm_webhook = {quoted(self.alarm_webhook)}",
            f"alarm_mail_to = {_toml_list(self.alarm_mail_to)}",
            f"alarm_mail_from = {quoted(self.alarm_mail_from)}",
            f"alarm_mail_server = {quoted(self.alarm_mail_server)}",
            "# How often the provider tends what is stored: hours from one round to the next and",
            "# from one collection of garbage to the next, days in which all of it is read once.",
            *(f"{name} = {getattr(self, name)}" for name in TENDING),
            "# Days in which a tenant may still restore when its lease has ended, and in which one",
            "# that was removed can come back.",
            *(f"{name} = {getattr(self, name)}" for name in _TENANTS),
            "# Days, of those in which the provider runs, in which events and security warnings,",
            "# sessions, and the audit log are kept (0: for ever); GiB that the log may have (0:",
            "# any number); events, security warnings and sessions that are kept of one tenant.",
            *(f"{name} = {getattr(self, name)}" for name in KEPT),
            "# WAN acceleration: where its block caches lie, best on another disk than this",
            "# folder, which has their key; GiB for one tenant's (0: none in this process), all.",
            f"wan_caches = {quoted(self.wan_caches)}",
            *(f"{name} = {getattr(self, name)}" for name in _CACHES),
            "# The public port: bytes a second of its line in each direction, which tenants share",
            "# fairly (0: no limit); most connections, in all and of one address, and most data",
            "# connections of one tenant.",
            *(f"{name} = {getattr(self, name)}" for name in BOUNDS),
        ]
        return "\n".join(lines) + "\n"


#: The settings that are numbers, with the least and the most that each may be.
_CACHES = {"wan_cache_gb": (0, 10_000), "wan_caches_gb": (1, 100_000)}
_TENANTS = {"grace_days": (0, 3650), "removed_days": (1, 3650)}
_NUMBERS = {**TENDING, **_TENANTS, **bounds_of_kept(), **_CACHES, **BOUNDS}


def quoted(text: str) -> str:
    """``text`` as a TOML string.

    :raises UsageError: it has control characters
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise UsageError(f"{text!r} has control characters in it")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _toml_list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(quoted, texts)) + "]"


def load(directory: Path) -> ProviderSettings:
    """The settings of the provider in ``directory``.

    :raises UsageError: there is none, or its configuration cannot be used
    """
    directory = directory.absolute()
    path = directory / CONFIGURATION
    values = read_settings(
        path,
        ProviderSettings,
        f"there is no provider in {directory}: run cloudconnect provider init --directory "
        f"{directory}",
        _NUMBERS,
        ("hosts", "advertise", "alarm_mail_to", "alarm_events", "roles"),
    )
    if not values.get("hosts"):
        raise UsageError(f"{path}: hosts names nothing that tenants connect to")
    try:
        check_kept(values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if values.get("moving_to"):
        split_host_port(values["moving_to"])
    if "roles" in values:
        values["roles"] = check_roles(values["roles"])
    return ProviderSettings(directory=directory, **values)


def check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles of a provider's process, each once.

    :raises UsageError: one is none, or the service is not among them
    """
    chosen = tuple(dict.fromkeys(roles))
    if "service" not in chosen or not set(chosen) <= set(ROLES):
        raise UsageError(
            f"the roles of a provider's process are service, and any of {', '.join(ROLES[1:])}; "
            "the others run in processes of their own (cloudconnect provider node enroll)"
        )
    return chosen


def initialize(
    directory: Path,
    hosts: tuple[str, ...],
    advertise: tuple[str, ...] = (),
    certificate: Path | None = None,
    key: Path | None = None,
    listen: str = f"tcp:{PUBLIC_PORT}",
) -> ProviderSettings:
    """Make a provider in ``directory``, which is empty or does not exist yet.

    :param hosts: names and addresses that tenants connect to; the certificate is made for them
    :param certificate: PEM file of a certificate to use in the place of a self-signed one
    :param key: PEM file of its key
    :raises UsageError: there is something there already, or one of a certificate's two files is
        missing
    """
    directory = directory.absolute()
    if (directory / CONFIGURATION).exists():
        raise UsageError(f"there is a provider in {directory} already")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty: choose a new folder for the provider")
    if (certificate is None) != (key is None):
        raise UsageError("a certificate needs its key, and a key its certificate")
    settings = ProviderSettings(
        directory=directory, hosts=hosts, advertise=advertise, listen=listen
    )
    # What cannot be used is said before anything is made.
    written = settings.to_toml()
    if certificate is not None:
        ServerIdentity(str(certificate), str(key)).install(SSL.Context(SSL.TLS_METHOD))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    tls = directory / "tls"
    tls.mkdir(mode=0o700)
    if certificate is not None and key is not None:
        _copy(certificate, tls / "certificate.pem")
        _copy(key, tls / "key.pem")
    else:
        make_server_certificate(list(hosts), tls)
    settings.repositories.mkdir(mode=0o700)
    settings.keys.mkdir(mode=0o700)
    settings.node_authority.mkdir(mode=0o700)
    node = settings.node_authority / "service"
    node.mkdir(mode=0o700)
    make_node_ca(settings.node_authority)
    issue_node_certificate(settings.node_authority, "service", SERVICE, node)
    for name in ("lock", "accounts.sqlite"):
        (directory / name).touch(mode=0o600)
    _write(directory / CONFIGURATION, written.encode())
    return settings


def _copy(source: Path, target: Path) -> None:
    try:
        _write(target, source.read_bytes())
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from None


def _write(path: Path, octets: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def running(settings: ProviderSettings) -> Iterator[None]:
    """Hold the lock that says that a provider runs on this directory.

    The kernel drops it with the process, however that ends.

    :raises Busy: one runs already
    """
    flags = os.O_RDONLY if settings.read_only else os.O_RDWR | os.O_CREAT
    descriptor = os.open(settings.directory / "lock", flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"a provider runs on {settings.directory} already") from None
        yield
    finally:
        os.close(descriptor)
