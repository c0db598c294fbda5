"""Layer 2, transports: the names of nodes on a LAN link, and who is trusted there.

A provider, or a tenant with more than one machine, has a small authority of its own that issues one
certificate to each node. The node's role and name stand in it as a URI,
``cloudconnect:<role>/<name>`` (``docs/protocol.rst``, section 10), so that a stolen gateway's key
does not open what is meant for a mover.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
from cryptography import x509

from cloudconnect.errors import CertificateUntrusted, HostnameMismatch, UsageError
from cloudconnect.shown import Shown
from cloudconnect.transports.trust import Problem, Verdict, spki_fingerprint

#: The URI scheme of node names.
SCHEME: Final = "cloudconnect:"
#: The roles of nodes. On a provider's LAN: the Cloud Connect service, and who registers with it ...
SERVICE: Final = "service"
GATEWAY: Final = "gateway"
ACCELERATOR: Final = "accelerator"
MOVER: Final = "mover"
#: ... and on a tenant's, whose own accelerators are nodes too: the machines that make backups.
JOB_MANAGER: Final = "job-manager"
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _check_word(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if _WORD.fullmatch(value) is None:
        raise UsageError(
            f"{value!r} cannot be a node's {attribute.name}: it has 1 to 64 of a-z, 0-9, '.', '_' "
            "and '-', and begins with a letter or digit"
        )


@attrs.frozen(repr=False)
class NodeName(Shown):
    """Which node this is.

    :ivar role: what it does, such as ``gateway``: 1 to 64 of ``[a-z0-9._-]``
    :ivar name: its own name among those of its role, of the same characters
    :raises UsageError: other characters
    """

    role: str = attrs.field(validator=_check_word)
    name: str = attrs.field(validator=_check_word)

    def __str__(self) -> str:
        return f"{self.role}/{self.name}"

    @property
    def uri(self) -> str:
        """How it stands in a certificate's subjectAltName."""
        return f"{SCHEME}{self}"

    @classmethod
    def parse(cls, uri: str) -> NodeName:
        """The other way round.

        :param uri: as a certificate has it
        :raises UsageError: not such a URI
        """
        role, slash, name = uri.removeprefix(SCHEME).partition("/")
        if not uri.startswith(SCHEME) or not slash:
            raise UsageError(f"{uri!r} is not the name of a node")
        return cls(role, name)


def node_named_in(certificate: x509.Certificate) -> NodeName:
    """The one node that ``certificate`` is for.

    :raises CertificateUntrusted: it names none, or several
    """
    presented = spki_fingerprint(certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return NodeName.parse(uri)
    except (x509.ExtensionNotFound, ValueError, UsageError) as error:
        raise CertificateUntrusted("the certificate does not name one node", presented) from error


def _parse_roles(roles: Iterable[str]) -> frozenset[str]:
    found = frozenset([roles] if isinstance(roles, str) else roles)
    if not found:
        raise UsageError("a LAN link needs at least one role that it trusts")
    return found


@attrs.frozen(repr=False)
class NodeTrust(Shown):
    """Which nodes are trusted at the other end of a LAN link.

    :ivar ca_file: PEM file with the authority that issues the nodes' certificates
    :ivar roles: the roles that the peer may have
    :ivar name: the name that it must have, or None for any
    :raises UsageError: no role
    """

    ca_file: str
    roles: frozenset[str] = attrs.field(converter=_parse_roles)
    name: str | None = None

    def judge(self, certificate: x509.Certificate, problems: Sequence[Problem]) -> Verdict:
        """Trust ``certificate``, and say why.

        :param problems: all that OpenSSL found wrong with the certificate and its chain
        :raises CertificateUntrusted: our authority did not issue it, or it names no node
        :raises HostnameMismatch: it is another node's
        """
        presented = spki_fingerprint(certificate)
        if problems:
            raise CertificateUntrusted(
                f"the node's certificate is not trusted: {problems[0]}. It presents {presented}. "
                f"The authority in {self.ca_file} has to issue it.",
                presented,
            )
        node = node_named_in(certificate)
        if node.role not in self.roles or self.name not in (None, node.name):
            wanted = f"{' or '.join(sorted(self.roles))}/{self.name or '*'}"
            raise HostnameMismatch(f"the node is {node} and not {wanted}", presented)
        return Verdict("ca", node.role, node.name)
