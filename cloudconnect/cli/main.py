"""Layer 6: the command ``cloudconnect``: which commands there are, and what their ends mean.

Commands are imported when they are called, so that ``--help`` and short commands start quickly.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, Final, NoReturn

import click

from cloudconnect.cli.importing import LazyGroup, Listed, spare, uncollected
from cloudconnect.errors import CloudConnectError, ExitCode, Truncated

#: Commands, and where they are.
_COMMANDS: Final[dict[str, Listed]] = {
    "backup": Listed(
        "cloudconnect.cli.backup",
        "backup",
        "Back up files, folders, or standard input, as one restore point.",
    ),
    "check": Listed(
        "cloudconnect.cli.check",
        "check",
        "Check that restore points can be restored: all of them, or each POINT.",
    ),
    "completion": Listed(
        "cloudconnect.cli.completion",
        "completion",
        "Print what makes SHELL complete commands, options and paths.",
    ),
    "connect": Listed(
        "cloudconnect.cli.connect",
        "connect",
        "Connect to a provider once, and remember how in a profile.",
    ),
    "delete": Listed("cloudconnect.cli.keeping", "delete", "Put restore points into the bin."),
    "diff": Listed(
        "cloudconnect.cli.diff",
        "diff",
        "Show what changed from restore point FIRST to SECOND, everywhere or in PATH.",
    ),
    "dump": Listed(
        "cloudconnect.cli.dump",
        "dump",
        "Write one file of a restore point, or a tar archive, to standard output.",
    ),
    "events": Listed(
        "cloudconnect.cli.history",
        "events",
        "List what the provider has kept of your sessions, security warnings among it.",
    ),
    "find": Listed(
        "cloudconnect.cli.find",
        "find",
        "Search all restore points, oldest first, for what PATTERN means.",
    ),
    "job": Listed(
        "cloudconnect.cli.job",
        "job",
        "Backups on a schedule, which the agent runs (twist cloudconnect-agent).",
    ),
    "key": Listed(
        "cloudconnect.cli.key",
        "key",
        "The repository's encryption key: the recovery kit, passphrases, and new keys.",
    ),
    "lock": Listed(
        "cloudconnect.cli.keeping",
        "lock",
        "Lock restore points: until DATE nobody can delete them, neither you nor the provider.",
    ),
    "ls": Listed(
        "cloudconnect.cli.points",
        "ls",
        "List what is in a restore point: everything, or PATH and what is below it.",
    ),
    "node": Listed(
        "cloudconnect.cli.node", "node", "Nodes of a provider that run on hosts of their own."
    ),
    "points": Listed("cloudconnect.cli.points", "points", "List the restore points, oldest first."),
    "provider": Listed("cloudconnect.cli.provider", "provider", "Be a service provider."),
    "quickstart": Listed(
        "cloudconnect.cli.quickstart",
        "quickstart",
        "Try the whole story: back up SOURCE (this folder by default) and restore it, on loopback.",
    ),
    "restore": Listed(
        "cloudconnect.cli.restore",
        "restore",
        "Restore a point, or some paths of it, below a folder.",
    ),
    "retention": Listed(
        "cloudconnect.cli.retention",
        "retention",
        "Which restore points are kept, and which the provider puts into the bin by itself.",
    ),
    "session": Listed("cloudconnect.cli.history", "session", "The sessions that jobs have had."),
    "status": Listed(
        "cloudconnect.cli.status",
        "status",
        "Show the newest restore point of each host and job, as the provider has them.",
    ),
    "undelete": Listed(
        "cloudconnect.cli.keeping",
        "undelete",
        "Take restore points out of the bin: cloudconnect points --deleted lists them.",
    ),
    "wan": Listed(
        "cloudconnect.cli.wan_nodes",
        "wan",
        "WAN acceleration on your side: its cache, and accelerators that machines share.",
    ),
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

        # Early, as little else is in memory beside what it takes for a moment.
        ahead = begin(profile, os.environ) if command in _OPENING else None
        spare()

    return OwnProcess(ahead, dialled)


def _os_error_text(error: OSError) -> str:
    """What the system refused, with the name in front as in other messages."""
    if error.strerror is None or error.filename is None:
        return str(error)
    name = error.filename if isinstance(error.filename, int) else os.fsdecode(error.filename)
    return f"{name}: {error.strerror}"
