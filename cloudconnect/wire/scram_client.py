"""Layer 1: the tenant's side of a login (``docs/protocol.rst``, section 2).

SCRAM-SHA-256-PLUS (RFC 5802, section 3, and RFC 7677), bound to the TLS channel by ``tls-exporter``
(RFC 9266). It is written out here, from the functions of Python's own ``hashlib`` and ``hmac``:
each command of a tenant logs in, and to import the library of the provider's side would take a
twentieth of its start. That library still prepares passwords that are not ASCII (RFC 4013), and the
tests hold this side against it and against the RFC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from typing import Final

from cloudconnect.errors import LoginRefused, ProtocolViolation, UsageError
from cloudconnect.keys import Password
from cloudconnect.settings import ITERATIONS_MAX
from cloudconnect.wire.login import (
    BINDING_TYPE,
    MESSAGE_MAX,
    REFUSED,
    checked_binding,
    is_login_name,
    least_iterations,
    password_text,
    unusable_password,
)

#: Random bytes of our nonce, and the least of a salt.
NONCE_SIZE: Final = 32
SALT_MIN: Final = 12
#: The fewest iterations that any password may have (RFC 7677, section 4).
ITERATIONS_MIN: Final = 4096

_HEADER: Final = f"p={BINDING_TYPE},,"
_BASE64: Final = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
#: An answer with nonce, salt and iterations; extensions that need not be known may follow.
_SERVER_FIRST: Final = re.compile(
    rf"r=([!-+\--~]+),s=({_BASE64}),i=([1-9][0-9]{{0,8}})((?:,[A-Za-ln-z]=[^,\0\ud800-\udfff]+)*)"
)
_SERVER_FINAL: Final = re.compile(rf"v=({_BASE64})((?:,[A-Za-ln-z]=[^,\0\ud800-\udfff]+)*)")


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
        self._least = least_iterations(password)
        self._password: bytes | None = prepared(password_text(password)).encode()
        self._binding = checked_binding(binding)
        self._nonce = os.urandom(NONCE_SIZE).hex()
        self._bare = f"n={tenant},r={self._nonce}"
        self._expected: bytes | None = None

    def first(self) -> str:
        """The client's first message: the name, a nonce, the type of the binding."""
        return _HEADER + self._bare

    def final(self, server_first: str) -> str:
        """The client's second message, with the proof that it knows the password. Once only.

        :param server_first: the server's answer, text
        :raises ProtocolViolation: not an answer to :meth:`first`, or one that asks for too many
            iterations
        :raises LoginRefused: the server answers with an error; or asks for so few iterations that a
            false one could guess the password cheaply: a true one does so where the password is a
            token and this one is not. Nothing that depends on the password has been computed.
        :raises RuntimeError: it was called before
        """
        nonce, salt, iterations = self._read(server_first)
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
        password, self._password = self._password, None  # it has served
        if password is None:
            raise RuntimeError("a login is made once")
        salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        bound = base64.b64encode(_HEADER.encode() + self._binding).decode()
        without_proof = f"c={bound},r={nonce}"
        message = f"{self._bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._expected = hmac.digest(server_key, message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}"

    def _read(self, server_first: str) -> tuple[str, bytes, int]:
        """Nonce, salt and iterations of the server's answer."""
        if server_first.startswith("e="):
            raise LoginRefused(REFUSED)
        found = None
        if len(server_first) <= MESSAGE_MAX:
            found = _SERVER_FIRST.fullmatch(server_first)
        if found is None:
            raise ProtocolViolation("the login's first answer is not usable: it has another form")
        nonce, salt, iterations = found[1], base64.b64decode(found[2]), int(found[3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ProtocolViolation("the login's first answer is not usable: not to this question")
        if len(salt) < SALT_MIN:
            raise ProtocolViolation("the login's first answer is not usable: its salt is too short")
        if iterations < ITERATIONS_MIN:
            raise ProtocolViolation(
                f"the login's first answer is not usable: {iterations} iterations, and nobody "
                f"accepts fewer than {ITERATIONS_MIN}"
            )
        return nonce, salt, iterations

    def verify(self, server_final: str) -> None:
        """Check that the provider knows this tenant's verifier; before this it is trusted with
        nothing.

        :param server_final: the server's last message, text
        :raises LoginRefused: it refuses the login, or cannot prove that it knows the verifier
        """
        if server_final == "e=invalid-proof":
            raise LoginRefused(REFUSED)
        expected, self._expected = self._expected, None
        found = None
        if len(server_final) <= MESSAGE_MAX:
            found = _SERVER_FINAL.fullmatch(server_final)
        shown = b"" if found is None else base64.b64decode(found[1])
        if expected is None or not hmac.compare_digest(expected, shown):
            raise LoginRefused("the provider could not prove that it knows your login password")


def prepared(text: str) -> str:
    """A login password as SCRAM uses it (RFC 4013).

    :param text: as somebody typed it
    :raises UsageError: it has characters that none may have
    """
    if text.isascii():  # of which RFC 4013 changes nothing, and forbids the control characters
        if not text.isprintable():
            raise unusable_password()
        return text
    import scramp  # for few, and it takes long

    try:
        found: str = scramp.utils.saslprep(text)
    except scramp.ScramException:
        raise unusable_password() from None
    if not found:
        raise unusable_password()
    return found
