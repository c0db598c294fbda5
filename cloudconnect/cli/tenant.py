"""Layer 6: what every tenant command shares: its options, its secrets, its line to the provider.

An option stands above the environment, the environment above the profile. A secret never stands in
argv: it comes from a file, from a command's output, or from a prompt on a terminal.
"""

from __future__ import annotations

import functools
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from cloudconnect.cli.completion import FILE
from cloudconnect.cli.console import Console
from cloudconnect.cli.dialling import Dialled
from cloudconnect.cli.opening import OwnProcess
from cloudconnect.cli.running import Interrupt, run
from cloudconnect.cli.secret_files import SECRET_MAX, as_password, key_file_content, read_bounded
from cloudconnect.cli.sections import SharedOption
from cloudconnect.cli.values import parse_duration
from cloudconnect.config.profile import DEFAULT_PROFILE, Profile, load, split_provider
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.content.slots import Stretch, stretch
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password
from cloudconnect.shown import Shown
from cloudconnect.tenant.retrying import RETRY_SECONDS

if TYPE_CHECKING:
    from cloudconnect.content.kit import Kit
    from cloudconnect.transports.identity import ServerIdentity

_T = TypeVar("_T")

_connection = functools.partial(click.option, cls=SharedOption, section="Provider and keys")
_output = functools.partial(click.option, cls=SharedOption, section="Output and line")

_OPTIONS: Final = [
    _connection("--profile", "profile_name", metavar="NAME", help="Which saved profile to use."),
    _connection("--provider", metavar="HOST[:PORT]", help="The provider's address."),
    _connection("--tenant", metavar="NAME", help="The tenant's name at the provider."),
    _connection("--password-file", type=FILE, help="File with the login password or token."),
    _connection("--certificate", type=FILE, help="Log in with this certificate, PEM."),
    _connection(
        "--key",
        "certificate_key",
        type=FILE,
        help="PEM file of its key, mode 0600.",
    ),
    _connection(
        "--fingerprint",
        multiple=True,
        metavar="PIN",
        help="SPKI-SHA256:... or SHA256:...; may be repeated.",
    ),
    _connection("--ca", type=FILE, help="PEM file of the authorities to accept."),
    _connection("--passphrase-file", type=FILE, help="File with the encryption passphrase."),
    _connection("--key-file", type=FILE, help="File used as key in place of a passphrase."),
    _connection("--kit", "kit_file", type=FILE, help="File with the recovery kit's text."),
    _connection(
        "--encryption",
        type=click.Choice([mode.value for mode in EncryptionMode]),
        help="Who can read what is stored, as chosen at connect; tenant (only you) by default.",
    ),
    _output("--json", "as_json", is_flag=True, help="JSON lines on standard output."),
    _output("-q", "--quiet", is_flag=True, help="Only errors."),
    _output("-v", "--verbose", is_flag=True, help="Every step of the session."),
    _output("--wait", metavar="TIME", help="When the task limit is reached, wait so long."),
    _output(
        "--retry",
        metavar="TIME",
        help="When the line breaks, try for so long to go on; 5m by default, 0: not at all.",
    ),
    _output("--debug", is_flag=True, help="The log and tracebacks on standard error."),
]


@attrs.frozen(kw_only=True, repr=False)
class TenantSettings(Shown):
    """What a command knows after options, environment and profile were put together.

    :ivar profile: the three of them in one
    :ivar profile_name: the name it is saved under
    :ivar wait: seconds to wait for a free task
    :ivar retry: seconds to try to go on when the line breaks
    :ivar kit: the recovery kit whose master key is used in the place of a passphrase, or None
    :ivar stretch: derives the key of a key slot
    :ivar dialled: a connection to the provider that was opened ahead of time, or None
    :ivar accept_expired: the provider's certificate may have expired, where a fingerprint matches
    """

    profile: Profile
    profile_name: str
    console: Console
    debug: bool
    wait: float = 0.0
    retry: float = RETRY_SECONDS
    kit: Kit | None = None
    stretch: Stretch = stretch
    dialled: Dialled | None = None
    accept_expired: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the provider.

        :raises UsageError: none is known
        """
        if not self.profile.provider:
            raise UsageError(
                "no provider is known: run cloudconnect connect HOST --tenant NAME once, or give "
                "--provider and --tenant"
            )
        return self.profile.address

    @property
    def tenant(self) -> str:
        """The tenant's name.

        :raises UsageError: none is known
        """
        if not self.profile.tenant:
            raise UsageError("no tenant is known: give --tenant, or run cloudconnect connect once")
        return self.profile.tenant

    @property
    def mode(self) -> EncryptionMode:
        """The encryption mode that the tenant chose, ``tenant`` where none is known.

        :raises UsageError: the profile or the environment says something else
        """
        try:
            return EncryptionMode(self.profile.encryption or EncryptionMode.TENANT.value)
        except ValueError:
            raise UsageError(
                f"{self.profile.encryption!r} is not an encryption mode: tenant, provider or none"
            ) from None

    @property
    def repository(self) -> bytes | None:
        """The repository's 16 bytes, where the profile knows them."""
        try:
            known = bytes.fromhex(self.profile.repository)
        except ValueError:
            return None
        return known if len(known) == 16 else None

    def identity(self) -> ServerIdentity | None:
        """The certificate to log in with, where one is named in the place of a password.

        :raises UsageError: it cannot be used, or its key is open to others
        """
        profile = self.profile
        if not profile.certificate:
            return None
        from cloudconnect.config.client_certificates import client_identity  # for few

        return client_identity(profile.certificate, profile.certificate_key)

    def login_password(self) -> Password | None:
        """The login password, from a file, a command or a prompt; None where a certificate is named
        in its place.

        :raises UsageError: there is none, and no terminal to ask on
        """
        if self.profile.certificate:
            return None
        what = f"login password at {self.profile.provider}"
        return secret(self.profile.password_file, "CLOUDCONNECT_PASSWORD_COMMAND", what)

    def passphrase(self, new: bool = False) -> Password:
        """The encryption passphrase, or the content of the key file.

        :param new: it is a new one: a prompt asks twice
        :raises UsageError: there is none, and no terminal to ask on
        """
        if self.profile.key_file:
            return key_file_content(Path(self.profile.key_file))
        return secret(
            self.profile.passphrase_file,
            "CLOUDCONNECT_PASSPHRASE_COMMAND",
            "encryption passphrase",
            new,
        )

    def run(self, work: Callable[[Any, Interrupt], Coroutine[Any, Any, _T]]) -> _T:
        """Run the command's work under the reactor."""
        return run(work, self.debug)


def tenant_command(function: Callable[..., Any], fresh: bool = False) -> Callable[..., Any]:
    """Give a command the shared options, and ``settings`` as its first argument.

    :param fresh: the command makes a profile: what a saved one says does not count
    """

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        shared = {
            name: values.pop(name)
            for name in (
                "profile_name",
                "provider",
                "tenant",
                "password_file",
                "certificate",
                "certificate_key",
                "fingerprint",
                "ca",
                "passphrase_file",
                "key_file",
                "kit_file",
                "encryption",
                "as_json",
                "quiet",
                "verbose",
                "wait",
                "retry",
                "debug",
            )
        }
        settings = resolve(**shared, fresh=fresh)
        process = click.get_current_context().find_root().obj
        if isinstance(process, OwnProcess):
            settings = attrs.evolve(settings, dialled=process.dialled)
            if process.ahead is not None:
                settings = attrs.evolve(settings, stretch=process.ahead.stretch)
        return function(settings, **values)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def resolve(
    *,
    profile_name: str | None,
    provider: str | None,
    tenant: str | None,
    password_file: str | None,
    fingerprint: tuple[str, ...],
    ca: str | None,
    passphrase_file: str | None,
    key_file: str | None,
    kit_file: str | None,
    encryption: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    wait: str | None,
    debug: bool,
    retry: str | None = None,
    certificate: str | None = None,
    certificate_key: str | None = None,
    fresh: bool = False,
) -> TenantSettings:
    """Put options, environment and profile together.

    A recovery kit stands between environment and profile. Its master key is used where no file with
    a passphrase or key is named beside it.

    :param fresh: leave the profile out
    :raises UsageError: a profile was named that there is not, or that cannot be used; the recovery
        kit is mistyped
    """
    environment = os.environ
    name = profile_name or environment.get("CLOUDCONNECT_PROFILE") or DEFAULT_PROFILE
    saved = Profile() if fresh else load(environment, name)
    if saved is None:
        named = profile_name or environment.get("CLOUDCONNECT_PROFILE")
        if named and not (provider or kit_file or environment.get("CLOUDCONNECT_PROVIDER")):
            raise UsageError(f"there is no profile {name}: make it with cloudconnect connect")
        saved = Profile()
    kit = None
    if kit_file:
        kit = read_kit(Path(kit_file))
        saved = with_kit(saved, kit)
        if passphrase_file or key_file:
            kit = None
    given: dict[str, Any] = {
        "provider": provider or environment.get("CLOUDCONNECT_PROVIDER"),
        "tenant": tenant or environment.get("CLOUDCONNECT_TENANT"),
        "password_file": _absolute(password_file or environment.get("CLOUDCONNECT_PASSWORD_FILE")),
        "certificate": _absolute(certificate or environment.get("CLOUDCONNECT_CERTIFICATE")),
        "certificate_key": _absolute(
            certificate_key or environment.get("CLOUDCONNECT_CERTIFICATE_KEY")
        ),
        "fingerprints": fingerprint or _words(environment.get("CLOUDCONNECT_FINGERPRINT")),
        "ca": _absolute(ca or environment.get("CLOUDCONNECT_CA")),
        "passphrase_file": _absolute(
            passphrase_file or environment.get("CLOUDCONNECT_PASSPHRASE_FILE")
        ),
        "key_file": _absolute(key_file or environment.get("CLOUDCONNECT_KEY_FILE")),
        "encryption": encryption or environment.get("CLOUDCONNECT_ENCRYPTION"),
        "wan_accelerator": environment.get("CLOUDCONNECT_WAN_ACCELERATOR"),
        "wan_node": _absolute(environment.get("CLOUDCONNECT_WAN_NODE")),
    }
    if given["passphrase_file"] and given["key_file"]:
        raise UsageError("give a passphrase file or a key file, not both")
    if given["passphrase_file"] and saved.key_file:
        given["key_file"] = ""
        saved = attrs.evolve(saved, key_file="")
    saved = _one_proof(saved, given)
    if os.environ.get("CLOUDCONNECT_PASSWORD_COMMAND") and not given["password_file"]:
        saved = attrs.evolve(saved, password_file="")
    if os.environ.get("CLOUDCONNECT_PASSPHRASE_COMMAND") and not given["passphrase_file"]:
        saved = attrs.evolve(saved, passphrase_file="")
    profile = attrs.evolve(saved, **{key: value for key, value in given.items() if value})
    return TenantSettings(
        profile=profile,
        profile_name=name,
        console=Console(as_json, quiet, verbose),
        debug=debug,
        wait=parse_duration(wait) if wait else 0.0,
        retry=parse_duration(retry) if retry else RETRY_SECONDS,
        kit=kit,
    )


def _one_proof(saved: Profile, given: dict[str, Any]) -> Profile:
    """The profile without the way to log in that another one was named in the place of.

    :param given: what options and environment say
    :raises UsageError: two were named, or half of one
    """
    certificate = bool(given["certificate"])
    if certificate is not bool(given["certificate_key"]):
        raise UsageError("a certificate to log in with takes both --certificate and --key")
    password = given["password_file"] or os.environ.get("CLOUDCONNECT_PASSWORD_COMMAND")
    if certificate and password:
        raise UsageError("log in with a password or with a certificate, not both")
    if certificate:
        return attrs.evolve(saved, password_file="")
    if password:
        return attrs.evolve(saved, certificate="", certificate_key="")
    return saved


def read_kit(path: Path) -> Kit:
    """The recovery kit in a file.

    :raises UsageError: there is none, or it is mistyped
    """
    from cloudconnect.content.kit import KIT_MAX, parse_kit  # for few

    octets = read_bounded(path, "recovery kit", KIT_MAX)
    try:
        return parse_kit(octets.decode())
    except UnicodeDecodeError:
        raise UsageError(f"recovery kit: {path} is not text") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def with_kit(saved: Profile, kit: Kit) -> Profile:
    """What a recovery kit says, above what the profile says of the same repository."""
    if saved.repository != kit.repository.hex():
        saved = Profile()
    return attrs.evolve(
        saved,
        provider=kit.provider,
        tenant=kit.tenant,
        fingerprints=kit.pins or saved.fingerprints,
        encryption=kit.mode.value,
        repository=kit.repository.hex(),
        passphrase_file="",
        key_file="",
    )


def _absolute(path: str | None) -> str:
    return str(Path(path).absolute()) if path else ""


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").replace(",", " ").split())


def secret(file: str, command_variable: str, what: str, new: bool = False) -> Password:
    """A password or passphrase.

    :param file: the file that holds it, or ""
    :param command_variable: environment variable with a command that prints it
    :param what: what a prompt calls it
    :param new: a prompt asks twice
    :raises UsageError: there is none, and no terminal to ask on; it is empty, or too long
    """
    if file:
        return as_password(read_bounded(Path(file), what, SECRET_MAX), what)
    command = os.environ.get(command_variable)
    if command:
        try:
            done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=False)  # noqa: S603
        except OSError as error:
            raise UsageError(
                f"{command_variable} cannot be run: {error.strerror}; it is a program and its "
                "arguments, without a shell"
            ) from None
        except ValueError as error:  # a quotation mark without its partner
            raise UsageError(f"{command_variable} cannot be run: {error}") from None
        if done.returncode != 0:
            raise UsageError(f"{command_variable} failed with status {done.returncode}")
        return as_password(done.stdout[: SECRET_MAX + 1], what)
    option = "--" + command_variable.split("_")[1].lower() + "-file"
    if not sys.stdin.isatty():
        raise UsageError(
            f"the {what} is needed, and there is no terminal to ask on: name a file that holds it "
            f"with {option}"
        )
    shown = what[0].upper() + what[1:] + (" (a new one, if there is none yet)" if new else "")
    typed = click.prompt(shown, hide_input=True, confirmation_prompt=new, err=True)
    return as_password(str(typed).encode(), what)


def host_label() -> str:
    """This machine's name, as points are labelled with it."""
    return os.environ.get("CLOUDCONNECT_HOST") or socket.gethostname() or "localhost"


def address_text(text: str) -> str:
    """``HOST[:PORT]``, checked.

    :raises UsageError: not an address
    """
    split_provider(text)
    return text
