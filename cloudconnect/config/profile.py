"""Layer 5: a tenant's profile: what ``connect`` found out and later commands need.

Profiles are TOML under ``$XDG_CONFIG_HOME/cloudconnect``, mode 0600; the environment and the
options of a command stand above them. Secrets are never in a profile, only the paths of the files
that hold them; a login password that was typed at ``connect`` gets a file of its own beside it.
Caches, and what is remembered of a repository, hang on the provider's and the repository's ids, not
on a host name.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs

from cloudconnect.errors import UsageError
from cloudconnect.settings import PUBLIC_PORT
from cloudconnect.shown import Shown

#: The profile that is used where none is named.
DEFAULT_PROFILE = "default"
_PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@attrs.frozen(kw_only=True, repr=False)
class Profile(Shown):
    """How to reach one provider as one tenant.

    :ivar provider: ``HOST`` or ``HOST:PORT``
    :ivar next_provider: ``HOST:PORT`` that the provider has announced to move to, or empty
    :ivar tenant: the log-in name: the tenant's, or ``TENANT/LABEL``
    :ivar fingerprints: the provider's pins
    :ivar ca: PEM file of authorities, or empty
    :ivar password_file: file with the login password, or empty
    :ivar certificate: PEM file of the certificate to log in with in the place of a password, or
        empty
    :ivar certificate_key: PEM file of its key, or empty
    :ivar passphrase_file: file with the encryption passphrase, or empty: ask on the terminal
    :ivar key_file: file that serves as encryption key in the place of a passphrase, or empty
    :ivar encryption: at-rest mode that was chosen at ``connect``
    :ivar provider_id: the provider's id in hexadecimal, once known
    :ivar repository: the repository's id in hexadecimal, once known
    :ivar wan_accelerator: ``HOST:PORT`` of the tenant's own WAN accelerator that several machines
        share, or empty: each command has one in its own process
    :ivar wan_node: folder with this machine's certificate for it (``wan client``), or empty
    """

    provider: str = ""
    next_provider: str = ""
    tenant: str = ""
    fingerprints: tuple[str, ...] = ()
    ca: str = ""
    password_file: str = ""
    certificate: str = ""
    certificate_key: str = ""
    passphrase_file: str = ""
    key_file: str = ""
    encryption: str = ""
    provider_id: str = ""
    repository: str = ""
    wan_accelerator: str = ""
    wan_node: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the provider.

        :raises UsageError: not an address
        """
        return split_provider(self.provider)

    def to_toml(self) -> str:
        """As it is saved."""
        lines = []
        for field in attrs.fields(Profile):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                lines.append(f"{field.name} = [{', '.join(map(quoted, value))}]")
            elif value:
                lines.append(f"{field.name} = {quoted(value)}")
        return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """``text`` as a TOML string.

    :raises UsageError: it has control characters
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if any(ord(c) < 32 or ord(c) == 127 for c in escaped):
        raise UsageError("a setting has control characters in it")
    return f'"{escaped}"'


def split_provider(text: str) -> tuple[str, int]:
    """Host and port of ``HOST[:PORT]``; an IPv6 address with a port stands in square brackets.

    :raises UsageError: not of this form
    """
    if text.startswith("["):
        host, mark, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if mark else "?"
        if rest and not rest.startswith(":"):
            port = "?"
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not port and not text.endswith(":"):
        port = str(PUBLIC_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not HOST or HOST:PORT")
    return host, int(port)


def config_folder(environment: Mapping[str, str]) -> Path:
    """Where profiles are."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path(_home(environment)) / ".config")
    return Path(base) / "cloudconnect"


def cache_folder(environment: Mapping[str, str], provider: bytes, repository: bytes) -> Path:
    """Where the caches of one repository at one provider are."""
    base = environment.get("XDG_CACHE_HOME") or str(Path(_home(environment)) / ".cache")
    return Path(base) / "cloudconnect" / provider.hex() / repository.hex()


def state_folder(environment: Mapping[str, str], provider: bytes, repository: bytes) -> Path:
    """Where this machine remembers what it has seen of one repository at one provider."""
    base = environment.get("XDG_STATE_HOME") or str(Path(_home(environment)) / ".local" / "state")
    return Path(base) / "cloudconnect" / provider.hex() / repository.hex()


def _home(environment: Mapping[str, str]) -> str:
    home = environment.get("HOME") or str(Path("~").expanduser())
    if not home or home == "~":
        raise UsageError(
            "HOME is not set: set it, or XDG_CONFIG_HOME, XDG_CACHE_HOME and XDG_STATE_HOME"
        )
    return home


def profile_path(environment: Mapping[str, str], name: str) -> Path:
    """The file of the profile ``name``.

    :raises UsageError: not a name
    """
    if not _PROFILE_NAME.match(name):
        raise UsageError(f"profile name {name!r}: letters, digits, and . _ - after the first")
    return config_folder(environment) / f"{name}.toml"


def load(environment: Mapping[str, str], name: str) -> Profile | None:
    """The saved profile ``name``, or None.

    :raises UsageError: it cannot be used, or others may read it
    """
    path = profile_path(environment, name)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            values = tomllib.load(file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"profile {path} cannot be used: {error}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"profile {path} is open to others: chmod 600 it")
    known = {field.name for field in attrs.fields(Profile)}
    if set(values) - known:
        raise UsageError(f"profile {path}: unknown {', '.join(sorted(set(values) - known))}")
    fingerprints = values.get("fingerprints", [])
    if not isinstance(fingerprints, list):
        raise UsageError(f"profile {path}: fingerprints is a list of texts")
    values["fingerprints"] = tuple(fingerprints)
    texts = [*fingerprints, *(v for k, v in values.items() if k != "fingerprints")]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"profile {path}: every value is a text")
    return Profile(**values)


def save(environment: Mapping[str, str], name: str, profile: Profile) -> Path:
    """Keep ``profile`` under ``name``, whole or not at all; returns its path."""
    path = profile_path(environment, name)
    write_private(path, profile.to_toml().encode())
    return path


def write_private(path: Path, octets: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, with the folders above it of mode 0700."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # In a folder where others may write, somebody may have made it, and have it open.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
