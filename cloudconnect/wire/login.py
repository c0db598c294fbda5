"""Layer 1: what a login is made of: names, passwords and tokens, what a provider keeps of them.

For both sides, :mod:`~cloudconnect.wire.scram_client` and :mod:`~cloudconnect.wire.scram`, and for
who only deals with names. Rules and bounds: ``docs/protocol.rst``, section 2.
"""

from __future__ import annotations

import base64
import os
import re
from typing import Final

import attrs

from cloudconnect.errors import LoginRefused, UsageError
from cloudconnect.keys import KEY_SIZE, Password
from cloudconnect.settings import PASSWORD_ITERATIONS_MIN, TOKEN_ITERATIONS_MIN
from cloudconnect.shown import Shown

#: The channel binding type (RFC 9266).
BINDING_TYPE: Final = "tls-exporter"
#: Size of the channel binding, in bytes (RFC 9266, section 2).
BINDING_SIZE: Final = 32
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

#: What every wrong log-in is answered with, in words.
REFUSED: Final = "the provider does not accept this tenant name and login password"


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


@attrs.frozen(repr=False)
class Verifier(Shown):
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


def wrong_credentials() -> LoginRefused:
    """What every wrong log-in is answered with, whatever is wrong with it."""
    return LoginRefused(REFUSED)


def least_iterations(password: Password) -> int:
    """The fewest iterations of PBKDF2 that a client accepts.

    :param password: for this login password: fewer for a token
    """
    return TOKEN_ITERATIONS_MIN if is_token(password) else PASSWORD_ITERATIONS_MIN


def password_text(password: Password) -> str:
    """The login password as text.

    :param password: octets in UTF-8
    :raises UsageError: it is empty, or no UTF-8
    """
    try:
        text = password.reveal().decode()
    except UnicodeDecodeError:
        raise unusable_password() from None
    if not text:
        raise unusable_password()
    return text


def unusable_password() -> UsageError:
    """What is said of a login password that cannot be one."""
    return UsageError(
        "the login password is empty, is not UTF-8, or has characters that none may have (RFC 4013)"
    )


def checked_binding(binding: bytes) -> bytes:
    """The channel binding, as it was given.

    :param binding: the TLS channel's exporter for ``EXPORTER-Channel-Binding``
    :raises ValueError: not 32 bytes
    """
    if len(binding) != BINDING_SIZE:
        raise ValueError(f"a channel binding has {BINDING_SIZE} bytes, not {len(binding)}")
    return bytes(binding)
