"""Layer 1: how a tenant logs in (``docs/protocol.rst``, section 2).

SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) from PyPI ``scramp``, bound to the TLS channel by
``tls-exporter`` (RFC 9266): the login password never leaves the tenant, the provider stores no
password, and a login that somebody carries from one TLS channel into another is refused.

Both sides compute PBKDF2 or HMAC without I/O; :meth:`ScramClient.final` and :func:`make_verifier`
take some tenths of a second, so call them in a thread.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Callable
from typing import Final

import attrs
import scramp
from scramp.core import CbName
from scramp.utils import ServerError

from cloudconnect.errors import LoginRefused, ProtocolViolation, UsageError
from cloudconnect.keys import KEY_SIZE, Password
from cloudconnect.settings import (
    ITERATIONS_MAX,
    PASSWORD_ITERATIONS_MIN,
    TOKEN_ITERATIONS_MIN,
)

#: The one mechanism.
MECHANISM: Final = "SCRAM-SHA-256-PLUS"
#: The channel binding type (RFC 9266).
BINDING_TYPE: Final = "tls-exporter"
#: Size of the channel binding, in bytes (RFC 9266, section 2).
BINDING_SIZE: Final = 32
#: Size of a verifier's salt, in bytes.
SALT_SIZE: Final = 16
#: Longest message of either side, in characters: ours have fewer than 300.
MESSAGE_MAX: Final = 1024
#: How a provider-made token begins.
TOKEN_PREFIX: Final = "cct1-"  # noqa: S105

#: What the credential is called that a log-in name without a label means.
DEFAULT_LABEL: Final = "default"

_TENANT: Final = re.compile(r"[a-z0-9._-]{1,64}")
_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}")
# 256 bits are 51 characters of five bits, and one of which only the first bit may be set.
_TOKEN: Final = re.compile(TOKEN_PREFIX + "[a-z2-7]{51}[aq]")

_REFUSED: Final = "the provider does not accept this tenant name and login password"

# scramp takes a binding as bytes but refuses this name, because Python's own ssl module cannot
# compute it. Ours comes from OpenSSL's exporter (cloudconnect.transports.tls).
CbName.SUPPORTED_TYPES = CbName.SUPPORTED_TYPES | {BINDING_TYPE}
CbName.UNSUPPORTED_TYPES = CbName.UNSUPPORTED_TYPES - {BINDING_TYPE}


def is_tenant_name(name: str) -> bool:
    """Whether ``name`` can be a tenant's: 1 to 64 of ``a-z 0-9 . _ -``."""
    return _TENANT.fullmatch(name) is not None


def is_login_name(name: str) -> bool:
    """Whether ``name`` can be a log-in name: ``TENANT``, or ``TENANT/LABEL``, both of 1 to 64 of
    ``a-z 0-9 . _ -`` and beginning with a letter or digit."""
    if "/" not in name:
        return is_tenant_name(name)
    return _LOGIN.fullmatch(name) is not None


def split_login(name: str) -> tuple[str, str]:
    """Tenant and label of a log-in name.

    :param name: ``TENANT`` or ``TENANT/LABEL``
    """
    tenant, slash, label = name.partition("/")
    return tenant, label if slash else DEFAULT_LABEL


def make_token() -> Password:
    """A login password that nobody has to remember: ``cct1-`` and 256 random bits in base 32."""
    octets = base64.b32encode(os.urandom(KEY_SIZE)).rstrip(b"=").lower()
    return Password(TOKEN_PREFIX.encode() + octets)


def is_token(password: Password) -> bool:
    """Whether this is a login password of the form that :func:`make_token` makes.

    :param password: any login password
    """
    return _TOKEN.fullmatch(password.reveal().decode("utf-8", "replace")) is not None


@attrs.frozen
class Verifier:
    """What a provider stores to check a login password (RFC 5802, section 3).

    Whoever reads it can try guesses, and ``server_key`` lets them pose as the provider to this
    tenant; neither is the password.

    :ivar salt: 16 bytes
    :ivar stored_key: 32 bytes
    :ivar server_key: 32 bytes
    :ivar iterations: of PBKDF2-HMAC-SHA256
    """

    salt: bytes = attrs.field(repr=False)
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)
    iterations: int


def make_verifier(password: Password, iterations: int = PASSWORD_ITERATIONS_MIN) -> Verifier:
    """Compute what to store for a login password, with a fresh salt.

    :param password: the login password
    :param iterations: one of the numbers that :class:`ScramServer` also tells unknown names: a name
        that is answered with another one is known to exist
    :raises UsageError: characters that RFC 4013 does not allow, or none
    :raises ValueError: fewer iterations than any client accepts for this password, or more
    """
    if not _least_iterations(password) <= iterations <= ITERATIONS_MAX:
        raise ValueError(f"no client accepts {iterations} iterations for this login password")
    mechanism = scramp.ScramMechanism(MECHANISM)
    text = _password_text(password)
    try:
        salt, stored_key, server_key, count = mechanism.make_auth_info(
            text, iteration_count=iterations, salt=os.urandom(SALT_SIZE)
        )
    except scramp.ScramException:
        raise _unusable_password() from None
    return Verifier(salt, stored_key, server_key, count)


def wrong_credentials() -> LoginRefused:
    """What every wrong log-in is answered with, whatever is wrong with it."""
    return LoginRefused(_REFUSED)


class ScramClient:
    """The tenant's side of one login: :meth:`first`, :meth:`final`, :meth:`verify`, in this order.

    :param tenant: the log-in name: the tenant's, or ``TENANT/LABEL``
    :param password: login password or token
    :param binding: the TLS channel's exporter for ``EXPORTER-Channel-Binding``, 32 bytes
    :raises UsageError: a name or a password that cannot be one
    """

    def __init__(self, tenant: str, password: Password, binding: bytes) -> None:
        if not is_login_name(tenant):
            raise UsageError(
                "a tenant's name has 1 to 64 characters of a-z 0-9 . _ - (and so has a "
                "credential's behind a slash)"
            )
        self._least = _least_iterations(password)
        text = _password_text(password)
        try:
            self._scram = scramp.ScramClient(
                [MECHANISM], tenant, text, (BINDING_TYPE, _checked(binding))
            )
        except scramp.ScramException:
            raise _unusable_password() from None

    def first(self) -> str:
        """The client's first message: the name, a nonce, the type of the binding."""
        return str(self._scram.get_client_first())

    def final(self, server_first: str) -> str:
        """The client's second message, with the proof that it knows the password.

        :param server_first: the server's answer, text
        :raises ProtocolViolation: not an answer to :meth:`first`, or one that asks for too many
            iterations
        :raises LoginRefused: the server answers with an error; or asks for so few iterations that a
            false one could guess the password cheaply: a true one does so where the password is a
            token and this one is not. Nothing that depends on the password has been computed.
        """
        try:
            self._scram.set_server_first(_bounded(server_first))
        except scramp.ScramException as error:
            if server_first.startswith("e="):
                raise LoginRefused(_REFUSED) from None
            raise ProtocolViolation(
                f"the login's first answer is not usable: {error.args[0]}"
            ) from None
        iterations = int(self._scram.iterations)
        if iterations < self._least:
            raise LoginRefused(
                "the provider does not accept this tenant name and login password: it expects a "
                f"token that it made itself ({iterations} iterations, {self._least} are due here). "
                "Nothing of the password was sent; check both"
            )
        if iterations > ITERATIONS_MAX:
            raise ProtocolViolation(
                f"the provider asks for {iterations} iterations in the login, and at most "
                f"{ITERATIONS_MAX} are accepted; the proof was not sent"
            )
        message = str(self._scram.get_client_final())
        self._scram.password = None  # it has served
        return message

    def verify(self, server_final: str) -> None:
        """Check that the provider knows this tenant's verifier; before this it is trusted with
        nothing.

        :param server_final: the server's last message, text
        :raises LoginRefused: it refuses the login, or cannot prove that it knows the verifier
        """
        try:
            self._scram.set_server_final(_bounded(server_final))
        except scramp.ScramException as error:
            if error.server_error is ServerError.INVALID_PROOF:
                raise LoginRefused(_REFUSED) from None
            raise LoginRefused(
                "the provider could not prove that it knows your login password"
            ) from None


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
            self._find, (BINDING_TYPE, _checked(binding))
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


def _least_iterations(password: Password) -> int:
    return TOKEN_ITERATIONS_MIN if is_token(password) else PASSWORD_ITERATIONS_MIN


def _password_text(password: Password) -> str:
    try:
        text = password.reveal().decode()
    except UnicodeDecodeError:
        raise _unusable_password() from None
    if not text:
        raise _unusable_password()
    return text


def _unusable_password() -> UsageError:
    return UsageError(
        "the login password is empty, is not UTF-8, or has characters that none may have (RFC 4013)"
    )


def _checked(binding: bytes) -> bytes:
    if len(binding) != BINDING_SIZE:
        raise ValueError(f"a channel binding has {BINDING_SIZE} bytes, not {len(binding)}")
    return bytes(binding)


def _bounded(message: str) -> str:
    if len(message) > MESSAGE_MAX:
        raise scramp.ScramException("the message is too long", ServerError.OTHER_ERROR)
    return message
