"""What the tests of commands share: a command's arguments as a box, and read again."""

from __future__ import annotations

from typing import Any

from cloudconnect.commands.fields import read_fields, write_fields


def read_again(command: Any, values: dict[str, Any]) -> Any:
    """What arrives of a command's arguments."""
    box = write_fields(values, command.arguments, command, None)
    return read_fields(box, command.arguments, command, None)
