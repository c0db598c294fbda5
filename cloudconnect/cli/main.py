"""Layer 6: the command ``cloudconnect``: which commands there are, and what their ends mean.

Commands are imported when they are called, so that ``--help`` and short commands start quickly.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, Final, NoReturn

import click

from cloudconnect.cli.importing import LazyGroup, uncollected
from cloudconnect.errors import CloudConnectError, ExitCode, Truncated

#: Command -> module and function.
_COMMANDS: Final = {
    "backup": ("cloudconnect.cli.backup", "backup"),
    "check": ("cloudconnect.cli.check", "check"),
    "completion": ("cloudconnect.cli.completion", "completion"),
    "connect": ("cloudconnect.cli.connect", "connect"),
    "delete": ("cloudconnect.cli.keeping", "delete"),
    "diff": ("cloudconnect.cli.diff", "diff"),
    "dump": ("cloudconnect.cli.dump", "dump"),
    "events": ("cloudconnect.cli.history", "events"),
    "find": ("cloudconnect.cli.find", "find"),
    "job": ("cloudconnect.cli.job", "job"),
    "key": ("cloudconnect.cli.key", "key"),
    "lock": ("cloudconnect.cli.keeping", "lock"),
    "ls": ("cloudconnect.cli.points", "ls"),
    "node": ("cloudconnect.cli.node", "node"),
    "points": ("cloudconnect.cli.points", "points"),
    "provider": ("cloudconnect.cli.provider", "provider"),
    "quickstart": ("cloudconnect.cli.quickstart", "quickstart"),
    "restore": ("cloudconnect.cli.restore", "restore"),
    "retention": ("cloudconnect.cli.retention", "retention"),
    "session": ("cloudconnect.cli.history", "session"),
    "status": ("cloudconnect.cli.status", "status"),
    "undelete": ("cloudconnect.cli.keeping", "undelete"),
    "wan": ("cloudconnect.cli.wan_nodes", "wan"),
}
#: Commands that open a repository, most often with the passphrase that the profile names.
_OPENING: Final = frozenset(("backup", "check", "diff", "dump", "find", "ls", "restore"))
#: Commands that connect to a provider, and ask nobody anything before.
_CONNECTING: Final = _OPENING | {"events", "points", "session", "snapshots", "status"}
_ALIASES: Final = {"snapshots": "points"}


@click.group(
    cls=LazyGroup,
    places=_COMMANDS,
    aliases=_ALIASES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="cloudconnect", message="%(prog)s %(version)s")
def cloudconnect() -> None:
    """Back up to a service provider, under keys that you make for each session."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status (``docs/howto/exit-codes.rst``).

    :param arguments: of a command that is run inside another program; None: those of this process,
        which ends with it
    """
    from cloudconnect.cli.console import report_error

    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    try:
        status: Any = cloudconnect.main(
            arguments,
            "cloudconnect",
            standalone_mode=False,
            obj=_own_process(arguments) if own_process else None,
        )
    except click.exceptions.Abort:
        status = ExitCode.INTERRUPTED
    except click.ClickException as error:
        if as_json:
            report_error(error.format_message(), "usage", ExitCode.USAGE, True)
        else:
            error.show()
        status = ExitCode.USAGE
    except KeyboardInterrupt:
        status = ExitCode.INTERRUPTED
    except BrokenPipeError:
        status = ExitCode.FAILED
    except CloudConnectError as error:
        if "--debug" in arguments:
            import traceback

            traceback.print_exc()
        text = str(error) or error.__doc__ or ""
        if isinstance(error, Truncated):
            text = f"{text.rstrip('.')}. The line broke, or somebody cut it: run the same command "
            text += "again, what was stored is not sent twice"
        report_error(text, error.reason, error.exit_code, as_json)
        status = error.exit_code
    except OSError as error:
        if "--debug" in arguments:
            raise
        report_error(_os_error_text(error), "failed", ExitCode.FAILED, as_json)
        status = ExitCode.FAILED
    except Exception as error:
        if "--debug" in arguments:
            raise
        text = f"a bug in cloudconnect ({type(error).__name__}); run again with --debug, report it"
        report_error(text, "failed", ExitCode.FAILED, as_json)
        status = ExitCode.FAILED
    if own_process:
        gc.freeze()  # the process ends: there is no use in looking for what could be freed
    sys.exit(int(status or 0))


def _own_process(arguments: list[str]) -> Any:
    """What the context of a command holds that has the process for itself.

    Where it will connect, and open a repository, what takes longest in that begins before its
    modules are imported (:mod:`cloudconnect.cli.foreseen`).
    """
    command = arguments[0] if arguments else ""
    if command not in _CONNECTING:
        return True
    with uncollected():
        from cloudconnect.cli.dialling import dial
        from cloudconnect.cli.foreseen import foreseen

        profile = foreseen(arguments, os.environ)
        dialled = dial(profile, arguments, os.environ)
        from cloudconnect.cli.opening import OwnProcess, begin

    return OwnProcess(begin(profile, os.environ) if command in _OPENING else None, dialled)


def _os_error_text(error: OSError) -> str:
    """What the system refused, with the name in front as in other messages."""
    if error.strerror is None or error.filename is None:
        return str(error)
    name = error.filename if isinstance(error.filename, int) else os.fsdecode(error.filename)
    return f"{name}: {error.strerror}"
