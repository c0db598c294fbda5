"""Layer 6: the options that all commands of a provider's admin share."""

from __future__ import annotations

from pathlib import Path

import click

directory_option = click.option(
    "--directory",
    required=True,
    envvar="CLOUDCONNECT_DIRECTORY",
    type=click.Path(path_type=Path),
    help="The provider's directory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")
debug_option = click.option(
    "--debug", is_flag=True, help="The log and tracebacks on standard error."
)
