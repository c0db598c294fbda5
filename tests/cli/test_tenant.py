"""Tests of :mod:`cloudconnect.cli.tenant`: what a command knows, and where secrets come from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from cloudconnect.cli.main import cloudconnect
from cloudconnect.cli.secret_files import KEY_FILE_MAX, SECRET_MAX
from cloudconnect.cli.tenant import (
    TenantSettings,
    address_text,
    host_label,
    resolve,
    secret,
)
from cloudconnect.config.profile import Profile, save
from cloudconnect.errors import UsageError
from tests.cli.commands import CommandCase

NOTHING: dict[str, Any] = {
    "profile_name": None,
    "provider": None,
    "tenant": None,
    "password_file": None,
    "fingerprint": (),
    "ca": None,
    "passphrase_file": None,
    "key_file": None,
    "kit_file": None,
    "encryption": None,
    "as_json": False,
    "quiet": False,
    "verbose": False,
    "wait": None,
    "debug": False,
}
COMMAND = "CLOUDCONNECT_PASSWORD_COMMAND"


class ResolveTests(CommandCase):
    """An option stands above the environment, the environment above the profile."""

    def resolve(self, **options: Any) -> TenantSettings:
        return resolve(**{**NOTHING, **options})

    def save(self, name: str = "default", **values: Any) -> None:
        save(self.environment, name, Profile(**values))

    def test_mode(self) -> None:
        """The encryption mode is tenant unless another was chosen, by option, environment, or
        profile; what is no mode is refused."""
        self.assertEqual("tenant", self.resolve().mode.value)
        self.save(encryption="provider")
        self.assertEqual("provider", self.resolve().mode.value)
        self.environment["CLOUDCONNECT_ENCRYPTION"] = "none"
        self.assertEqual("none", self.resolve().mode.value)
        self.assertEqual("tenant", self.resolve(encryption="tenant").mode.value)
        self.environment["CLOUDCONNECT_ENCRYPTION"] = "some"
        self.assertRaises(UsageError, lambda: self.resolve().mode)

    def test_shared_accelerator(self) -> None:
        """Where the tenant's own accelerator is stands in the environment, above the profile."""
        self.save(wan_accelerator="a:1", wan_node="/a")
        profile = self.resolve().profile
        self.assertEqual(("a:1", "/a"), (profile.wan_accelerator, profile.wan_node))
        self.environment["CLOUDCONNECT_WAN_ACCELERATOR"] = "b:2"
        self.environment["CLOUDCONNECT_WAN_NODE"] = "b"
        profile = self.resolve().profile
        self.assertEqual(("b:2", os.path.abspath("b")), (profile.wan_accelerator, profile.wan_node))

    def test_order(self) -> None:
        """For every setting that has all three."""
        pin = "SPKI-SHA256:" + "00" * 32
        for option, variable, field, texts in (
            ("provider", "CLOUDCONNECT_PROVIDER", "provider", "abc"),
            ("tenant", "CLOUDCONNECT_TENANT", "tenant", "abc"),
            (
                "password_file",
                "CLOUDCONNECT_PASSWORD_FILE",
                "password_file",
                ("/a", "/b", "/c"),
            ),
            ("ca", "CLOUDCONNECT_CA", "ca", ("/a", "/b", "/c")),
            (
                "passphrase_file",
                "CLOUDCONNECT_PASSPHRASE_FILE",
                "passphrase_file",
                ("/a", "/b", "/c"),
            ),
            ("key_file", "CLOUDCONNECT_KEY_FILE", "key_file", ("/a", "/b", "/c")),
        ):
            saved, environment, given = texts
            self.save(**{field: saved})
            self.assertEqual(saved, getattr(self.resolve().profile, field))
            self.environment[variable] = environment
            self.assertEqual(environment, getattr(self.resolve().profile, field), variable)
            found = self.resolve(**{option: given}).profile
            self.assertEqual(given, getattr(found, field), option)
            del self.environment[variable]
        self.save(fingerprints=(pin,))
        self.assertEqual((pin,), self.resolve().profile.fingerprints)
        self.environment["CLOUDCONNECT_FINGERPRINT"] = "SHA256:b, SHA256:c"
        self.assertEqual(("SHA256:b", "SHA256:c"), self.resolve().profile.fingerprints)
        found = self.resolve(fingerprint=("SHA256:d",)).profile
        self.assertEqual(("SHA256:d",), found.fingerprints)

    def test_profile(self) -> None:
        """Which profile: the option's, the environment's, the usual one."""
        for name in ("default", "environment", "option"):
            self.save(name, tenant=name)
        self.assertEqual("default", self.resolve().tenant)
        self.environment["CLOUDCONNECT_PROFILE"] = "environment"
        self.assertEqual("environment", self.resolve().tenant)
        self.assertEqual("option", self.resolve(profile_name="option").tenant)

    def test_no_profile(self) -> None:
        """A profile that was named must be there, unless everything is given."""
        self.assertRaises(UsageError, self.resolve, profile_name="other")
        self.assertEqual("a", self.resolve(profile_name="other", provider="a").profile.provider)
        self.assertEqual(Profile(), self.resolve().profile)

    def test_nothing_known(self) -> None:
        """Without provider or tenant the text says what to do."""
        for name in ("address", "tenant"):
            with self.assertRaises(UsageError) as caught:
                getattr(self.resolve(), name)
            self.assertIn("connect", str(caught.exception))

    def test_relative_paths(self) -> None:
        """Paths of options and environment are of where the command was called."""
        self.environment["CLOUDCONNECT_CA"] = "ca.pem"
        found = self.resolve(password_file="login").profile
        self.assertEqual(
            (os.path.abspath("login"), os.path.abspath("ca.pem")), (found.password_file, found.ca)
        )

    def test_two_keys(self) -> None:
        """A passphrase file and a key file are one too many, unless one is only saved."""
        self.assertRaises(UsageError, self.resolve, passphrase_file="/a", key_file="/b")
        self.save(key_file="/saved")
        found = self.resolve(passphrase_file="/a").profile
        self.assertEqual(("/a", ""), (found.passphrase_file, found.key_file))

    def test_saved_passphrase_given_key(self) -> None:
        """A key file that is given stands above a saved passphrase file."""
        path = self.file(b"key file content")
        self.save(passphrase_file="/nonexistent")
        settings = self.resolve(key_file=path)
        self.assertEqual(b"key file content", settings.passphrase().reveal())

    def test_commands_above_the_profile(self) -> None:
        """A command in the environment stands above a file in the profile, and below one that is
        given."""
        self.save(
            provider="a",
            password_file=self.file(b"saved", "saved"),
            passphrase_file=self.file(b"saved", "saved"),
        )
        self.environment[COMMAND] = "printf printed"
        self.environment["CLOUDCONNECT_PASSPHRASE_COMMAND"] = "printf printed"
        self.assertEqual(b"printed", self.resolve().login_password().reveal())
        self.assertEqual(b"printed", self.resolve().passphrase().reveal())
        given = self.resolve(
            password_file=self.file(b"given", "given"), passphrase_file=self.file(b"given", "given")
        )
        self.assertEqual(b"given", given.login_password().reveal())
        self.assertEqual(b"given", given.passphrase().reveal())

    def test_certificate(self) -> None:
        """A certificate stands above a saved password, and a password that is given above a saved
        certificate; both at once, or half of one, are a mistake."""
        both = {"certificate": "/c.pem", "certificate_key": "/k.pem"}
        self.save(password_file="/saved")
        settings = self.resolve(**both)
        found = settings.profile
        self.assertEqual(
            ("/c.pem", "/k.pem", ""),
            (found.certificate, found.certificate_key, found.password_file),
        )
        self.assertIsNone(settings.login_password())
        self.save(**both)
        self.assertEqual("/c.pem", self.resolve().profile.certificate)
        found = self.resolve(password_file="/given").profile
        self.assertEqual(
            ("", "", "/given"), (found.certificate, found.certificate_key, found.password_file)
        )
        self.assertIsNone(self.resolve(password_file="/given").identity())
        for wrong in (
            {**both, "password_file": "/given"},
            {"certificate": "/c.pem"},
            {"certificate_key": "/k.pem"},
        ):
            self.assertRaises(UsageError, self.resolve, **wrong)
        self.environment["CLOUDCONNECT_CERTIFICATE"] = "/e.pem"
        self.environment["CLOUDCONNECT_CERTIFICATE_KEY"] = "/e.key"
        self.assertEqual("/e.pem", self.resolve().profile.certificate)
        self.assertRaises(UsageError, self.resolve().identity)

    def test_waiting(self) -> None:
        """--wait takes a time."""
        self.assertEqual((0.0, 600.0), (self.resolve().wait, self.resolve(wait="10m").wait))
        self.assertRaises(UsageError, self.resolve, wait="soon")


class SecretTests(CommandCase):
    """Where secrets come from."""

    def test_file(self) -> None:
        """A file's content without the newline at its end; other white space belongs to it."""
        for content, wanted in (
            (b"secret", b"secret"),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b" se cret \n", b" se cret "),
            (b"two\nlines\n", b"two\nlines"),
        ):
            self.assertEqual(wanted, secret(self.file(content), COMMAND, "password").reveal())

    def test_unusable_file(self) -> None:
        """A file that is missing, empty or too long is named, and its content not shown."""
        long = self.file(b"secret" * SECRET_MAX, "long")
        for path in (str(self.home / "missing"), self.file(b"", "empty"), self.file(b"\n"), long):
            error = self.assertRaises(UsageError, secret, path, COMMAND, "login password")
            self.assertIn("login password", str(error))
            self.assertNotIn("secret", str(error))

    def test_key_file(self) -> None:
        """A key file is taken as it is, to its last newline, up to its own size."""
        octets = os.urandom(KEY_FILE_MAX - 1) + b"\n"
        settings = resolve(**{**NOTHING, "key_file": self.file(octets)})
        self.assertEqual(octets, settings.passphrase().reveal())
        settings = resolve(**{**NOTHING, "key_file": self.file(octets + b"x")})
        self.assertRaises(UsageError, settings.passphrase)

    def test_command(self) -> None:
        """The output of a command from the environment; it is not given to a shell."""
        marker = self.home / "marker"
        self.environment[COMMAND] = f"printf '%s' 'a b; touch {marker}'"
        self.assertEqual(f"a b; touch {marker}".encode(), secret("", COMMAND, "x").reveal())
        self.assertFalse(marker.exists())

    def test_failing_command(self) -> None:
        """A command that fails, or prints nothing or too much, is an error; what it printed is not
        shown."""
        for command in ("sh -c 'printf secret; exit 3'", "true", "head -c 5000 /dev/zero"):
            self.environment[COMMAND] = command
            error = self.assertRaises(UsageError, secret, "", COMMAND, "password")
            self.assertNotIn("secret", str(error))

    def test_no_command(self) -> None:
        """What is no program, or has a quotation mark too many, is named by its variable."""
        for command in ("/no/such/program secret", "printf 'secret"):
            self.environment[COMMAND] = command
            error = self.assertRaises(UsageError, secret, "", COMMAND, "password")
            self.assertIn(f"{COMMAND} cannot be run", str(error))
            self.assertNotIn("secret", str(error))

    def test_no_terminal(self) -> None:
        """Where there is no terminal nobody is asked, and the text says what to do."""
        error = self.assertRaises(UsageError, secret, "", COMMAND, "login password")
        self.assertIn("file", str(error))

    def test_prompt(self) -> None:
        """On a terminal a person is asked, without an echo; twice for a new one."""
        asked: list[dict[str, Any]] = []

        def prompt(text: str, **options: Any) -> str:
            asked.append({"text": text, **options})
            return "typed ü"

        self.patch(click, "prompt", prompt)
        self.patch(sys.stdin, "isatty", lambda: True)
        self.assertEqual("typed ü".encode(), secret("", COMMAND, "encryption passphrase").reveal())
        secret("", COMMAND, "encryption passphrase", new=True)
        self.assertEqual([True, True], [options["hide_input"] for options in asked])
        self.assertEqual([False, True], [options["confirmation_prompt"] for options in asked])

    def test_not_printed(self) -> None:
        """A secret is an object that does not show itself."""
        found = secret(self.file(b"canary"), COMMAND, "password")
        self.assertNotIn("canary", f"{found!r} {found}")


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below ``command``."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for part in command.list_commands(context):
            found = command.get_command(context, part)
            assert found is not None
            yield from commands(found, f"{name} {part}".strip())
    else:
        yield name, command


class ArgumentTests(CommandCase):
    """What stands in argv can be read by everybody on the machine."""

    def test_no_secret_in_argv(self) -> None:
        """No command takes a secret as an option or argument, only files that hold it."""
        words = ("pass", "secret", "token", "key", "credential")
        found = {
            option
            for _, command in commands(cloudconnect)
            for parameter in command.params
            for option in parameter.opts
            if not getattr(parameter, "is_flag", False)
            if any(word in option.lower() for word in words)
        }
        files = {"--password-file", "--passphrase-file", "--key-file", "--key"}
        new = {"--new-passphrase-file", "--new-key-file"}
        nodes = {"--token-file", "--keys"}
        self.assertEqual(files | new | nodes, found)
        (init,) = [c for name, c in commands(cloudconnect) if name == "provider init"]
        (key,) = [p for p in init.params if "--key" in p.opts]
        self.assertIsInstance(key.type, click.Path)

    def test_every_command_has_help(self) -> None:
        """Every command says what it does."""
        named = dict(commands(cloudconnect))
        self.assertGreater(len(named), 10)
        for name, command in named.items():
            self.assertTrue(command.help, name)
            self.assertEqual(0, self.call(*name.split(), "--help").status, name)


class LabelTests(CommandCase):
    """Small things."""

    def test_host(self) -> None:
        """This machine's name, or what the environment says."""
        self.assertTrue(host_label())
        self.environment["CLOUDCONNECT_HOST"] = "another"
        self.assertEqual("another", host_label())

    def test_address(self) -> None:
        """An address is checked before anything is asked."""
        self.assertEqual("a:1", address_text("a:1"))
        self.assertRaises(UsageError, address_text, "a:0")
