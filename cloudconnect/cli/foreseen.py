"""Layer 6: what a command will do, as far as that is certain before its modules are imported.

What takes long and depends on nothing but the profile begins then: the key of a key slot
(:mod:`cloudconnect.cli.opening`) and the connection to the provider
(:mod:`cloudconnect.cli.dialling`). Whatever an option or a variable may say otherwise, or is wrong,
is left to the command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

from cloudconnect.config.profile import DEFAULT_PROFILE, Profile, load
from cloudconnect.errors import UsageError

#: Options, and variables, that say more of provider, repository or passphrase than the profile
#: does, or that nothing is opened: then nothing begins early.
_OTHERWISE: Final = (
    "--profile",
    "--provider",
    "--tenant",
    "--passphrase-file",
    "--key-file",
    "--kit",
    "--encryption",
    "--dry-run",
    "--help",
    "-h",
)
VARIABLES: Final = (
    "CLOUDCONNECT_PROVIDER",
    "CLOUDCONNECT_TENANT",
    "CLOUDCONNECT_PASSPHRASE_FILE",
    "CLOUDCONNECT_PASSPHRASE_COMMAND",
    "CLOUDCONNECT_KEY_FILE",
    "CLOUDCONNECT_ENCRYPTION",
)


def foreseen(arguments: Sequence[str], environment: Mapping[str, str]) -> Profile | None:
    """The profile by which the command will go, where nothing else can have a say in it.

    :param arguments: of the command line, the command's name included
    :return: None where something may, or there is none; whatever is wrong, the command will say
    """
    if any(environment.get(name) for name in VARIABLES):
        return None
    if any(word.split("=")[0] in _OTHERWISE for word in arguments):
        return None
    with contextlib.suppress(UsageError):
        return load(environment, environment.get("CLOUDCONNECT_PROFILE") or DEFAULT_PROFILE)
    return None
