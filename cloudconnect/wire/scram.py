"""Layer 1: how a provider lets a tenant log in (``docs/protocol.rst``, section 2).

SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) from PyPI ``scramp``, bound to the TLS channel by
``tls-exporter`` (RFC 9266): the login password never leaves the tenant, the provider stores no
password, and a login that somebody carries from one TLS channel into another is refused. The
tenant's side is :mod:`~cloudconnect.wire.scram_client`, which does without the library.

Both sides compute PBKDF2 or HMAC without I/O; :meth:`ScramClient.final` and :func:`make_verifier`
take some tenths of a second, so call them in a thread.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Final

import scramp
from scramp.core import CbName
from scramp.utils import ServerError

from cloudconnect.errors import LoginRefused
from cloudconnect.keys import KEY_SIZE, Password
from cloudconnect.settings import ITERATIONS_MAX, PASSWORD_ITERATIONS_MIN
from cloudconnect.wire.login import (
    BINDING_TYPE,
    MESSAGE_MAX,
    Verifier,
    checked_binding,
    is_login_name,
    least_iterations,
    password_text,
    unusable_password,
    wrong_credentials,
)

#: The one mechanism.
MECHANISM: Final = "SCRAM-SHA-256-PLUS"
#: Size of a verifier's salt, in bytes.
SALT_SIZE: Final = 16

# scramp takes a binding as bytes but refuses this name, because Python's own ssl module cannot
# compute it. Ours comes from OpenSSL's exporter (cloudconnect.transports.tls).
CbName.SUPPORTED_TYPES = CbName.SUPPORTED_TYPES | {BINDING_TYPE}
CbName.UNSUPPORTED_TYPES = CbName.UNSUPPORTED_TYPES - {BINDING_TYPE}


def make_verifier(password: Password, iterations: int = PASSWORD_ITERATIONS_MIN) -> Verifier:
    """Compute what to store for a login password, with a fresh salt.

    :param password: the login password
    :param iterations: one of the numbers that :class:`ScramServer` also tells unknown names: a name
        that is answered with another one is known to exist
    :raises UsageError: characters that RFC 4013 does not allow, or none
    :raises ValueError: fewer iterations than any client accepts for this password, or more
    """
    if not least_iterations(password) <= iterations <= ITERATIONS_MAX:
        raise ValueError(f"no client accepts {iterations} iterations for this login password")
    mechanism = scramp.ScramMechanism(MECHANISM)
    text = password_text(password)
    try:
        salt, stored_key, server_key, count = mechanism.make_auth_info(
            text, iteration_count=iterations, salt=os.urandom(SALT_SIZE)
        )
    except scramp.ScramException:
        raise unusable_password() from None
    return Verifier(salt, stored_key, server_key, count)


class ScramServer:
    """The provider's side of one login: :meth:`first`, then :meth:`final`.

    Everything that can be wrong ends in the same error with the same text, after the same work: a
    name that does not exist gets a salt that is always the same for it, and a verifier that nothing
    fits.

    :param lookup: the verifier of a log-in name, or None; what it raises goes through
    :param binding: the TLS channel's exporter for ``EXPORTER-Channel-Binding``, 32 bytes
    :param decoy_key: 32 random bytes that the provider keeps for all its life
    :param decoy_iterations: how many iterations unknown names are told
    :ivar tenant: the log-in name that the client claims, or "" before :meth:`first`
    :ivar authenticated: whether the claim has been proved
    :ivar detail: for the provider's own log, never for the peer: what was wrong, or ""
    :raises ValueError: a key or an exporter of the wrong size
    """

    def __init__(
        self,
        lookup: Callable[[str], Verifier | None],
        binding: bytes,
        decoy_key: bytes,
        decoy_iterations: int = PASSWORD_ITERATIONS_MIN,
    ) -> None:
        if len(decoy_key) != KEY_SIZE:
            raise ValueError(f"a decoy key has {KEY_SIZE} bytes, not {len(decoy_key)}")
        self._lookup = lookup
        self._decoy_key = decoy_key
        self._decoy_iterations = decoy_iterations
        self._known = False
        self._scram = scramp.ScramMechanism(MECHANISM).make_server(
            self._find, (BINDING_TYPE, checked_binding(binding))
        )
        self.tenant = ""
        self.authenticated = False
        self.detail = ""

    def first(self, client_first: str) -> str:
        """Answer the client's first message: nonce, salt, iterations.

        :param client_first: the client's message, text
        :raises LoginRefused: it is not a first message of this mechanism, with this binding type
        """
        try:
            self._scram.set_client_first(_bounded(client_first))
            return str(self._scram.get_server_first())
        except scramp.ScramException as error:
            if error.server_error is ServerError.NO_RESOURCES and error.__cause__ is not None:
                raise error.__cause__ from None  # the lookup's own trouble is not the client's
            raise self._refusal(error) from None

    def final(self, client_final: str) -> str:
        """Check the proof, and answer with ours.

        :param client_final: the client's second message, text
        :raises LoginRefused: the name does not exist, the password is another one, or the login was
            made for another TLS channel
        """
        try:
            self._scram.set_client_final(_bounded(client_final))
            answer = str(self._scram.get_server_final())
        except scramp.ScramException as error:
            raise self._refusal(error) from None
        if not self._known:  # cannot be reached: no proof fits a decoy
            raise self._refusal(None)
        self.authenticated = True
        return answer

    def _find(self, name: str) -> tuple[bytes, bytes, bytes, int]:
        decoy = self._decoy(name)
        found = self._lookup(name) if is_login_name(name) else None
        self._known = found is not None
        self.tenant = name if is_login_name(name) else ""
        verifier = found or decoy
        return verifier.salt, verifier.stored_key, verifier.server_key, verifier.iterations

    def _decoy(self, name: str) -> Verifier:
        salt, stored_key, server_key = (
            hmac.digest(self._decoy_key, b"cloudconnect/1 decoy " + part + name.encode(), "sha256")
            for part in (b"salt ", b"stored ", b"server ")
        )
        return Verifier(salt[:SALT_SIZE], stored_key, server_key, self._decoy_iterations)

    def _refusal(self, error: scramp.ScramException | None) -> LoginRefused:
        if self.tenant and not self._known:
            self.detail = "unknown-user"
        elif error is not None and error.server_error is not None:
            self.detail = error.server_error.value
        else:
            self.detail = "other-error"
        return wrong_credentials()


def _bounded(message: str) -> str:
    if len(message) > MESSAGE_MAX:
        raise scramp.ScramException("the message is too long", ServerError.OTHER_ERROR)
    return message
