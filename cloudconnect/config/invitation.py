"""Layer 5: an invitation: one text with all that a machine needs to connect, for one time.

The provider's admin makes it with ``provider tenant invite`` and hands it over on a safe way;
``connect --invite FILE`` reads it. It is TOML, and holds a secret: the token, which is good for one
log-in, up to a moment.
"""

from __future__ import annotations

import datetime
import tomllib
from typing import Any, Final

import attrs

from cloudconnect.config.profile import quoted, split_provider
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password
from cloudconnect.transports.trust import parse_fingerprint
from cloudconnect.wire.login import DEFAULT_LABEL, is_login_name, is_token

#: Names the form of the text.
FORMAT: Final = "cloudconnect-invitation-1"
#: Longest text of an invitation, in bytes.
INVITATION_MAX: Final = 16 << 10
#: Most addresses and fingerprints in one.
ITEMS_MAX: Final = 64


@attrs.frozen(kw_only=True)
class InvitationText:
    """What an invitation says.

    :ivar providers: ``HOST:PORT`` of each way to the provider, the best first
    :ivar tenant: the tenant's name
    :ivar credential: what the machine's credential will be called
    :ivar fingerprints: the provider's pins
    :ivar token: to log in with, once
    :ivar expires: when it is over, in seconds since 1970
    """

    providers: tuple[str, ...]
    tenant: str
    credential: str
    fingerprints: tuple[str, ...]
    token: Password = attrs.field(repr=False)
    expires: int

    @property
    def login(self) -> str:
        """The log-in name of the machine."""
        if self.credential == DEFAULT_LABEL:
            return self.tenant
        return f"{self.tenant}/{self.credential}"

    def encode(self) -> str:
        """The text."""
        end = datetime.datetime.fromtimestamp(self.expires, datetime.UTC)
        lines = [
            f"# Invitation to back up as tenant {self.tenant}, good once, until "
            f"{end:%Y-%m-%d %H:%M} UTC.",
            "# It is a secret: who has it can connect. Use: cloudconnect connect --invite FILE",
            f"format = {quoted(FORMAT)}",
            f"providers = [{', '.join(map(quoted, self.providers))}]",
            f"tenant = {quoted(self.tenant)}",
            f"credential = {quoted(self.credential)}",
            f"fingerprints = [{', '.join(map(quoted, self.fingerprints))}]",
            f"token = {quoted(self.token.reveal().decode())}",
            f"expires = {self.expires}",
        ]
        return "\n".join(lines) + "\n"


def parse_invitation(octets: bytes) -> InvitationText:
    """The invitation in a file's bytes; ``connect --invite`` reads it.

    :param octets: at most :data:`INVITATION_MAX` are looked at
    :raises UsageError: it is none, or was changed; its token is not repeated
    """
    try:
        values = tomllib.loads(octets[:INVITATION_MAX].decode().replace("\r\n", "\n"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise _unusable("it cannot be read: copy all its lines, and nothing else") from None
    if values.get("format") != FORMAT:
        raise _unusable("it is no invitation, or one of a newer release")
    providers, fingerprints = (_texts(values, name) for name in ("providers", "fingerprints"))
    tenant, credential, token = (values.get(name) for name in ("tenant", "credential", "token"))
    expires = values.get("expires")
    texts = all(isinstance(text, str) for text in (tenant, credential, token))
    if not texts or type(expires) is not int or not is_login_name(f"{tenant}/{credential}"):
        raise _unusable("one of its values is missing or wrong")
    secret = Password(str(token).encode())
    if not is_token(secret):
        raise _unusable("its token was changed")
    try:
        for provider in providers:
            split_provider(provider)
        pins = tuple(parse_fingerprint(pin) for pin in fingerprints)
    except UsageError as error:
        raise _unusable(str(error)) from None
    return InvitationText(
        providers=tuple(providers),
        tenant=str(tenant),
        credential=str(credential),
        fingerprints=pins,
        token=secret,
        expires=expires,
    )


def _texts(values: dict[str, Any], name: str) -> list[str]:
    found = values.get(name)
    if not isinstance(found, list) or not 0 < len(found) <= ITEMS_MAX:
        raise _unusable(f"its {name} are missing")
    if not all(isinstance(text, str) for text in found):
        raise _unusable(f"its {name} are not texts")
    return found


def _unusable(why: str) -> UsageError:
    return UsageError(f"the invitation cannot be used: {why}; ask the provider for another one")
