"""Layer 3: between the values of a command and the boxes that carry them.

What does not fit is named and never repeated: a value may be a key, and the text of an error is
logged, or sent back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.protocols import amp

from cloudconnect.errors import (
    CloudConnectError,
    PeerError,
    ProtocolViolation,
    Refused,
    UsageError,
    error_classes,
)

#: Longest text of an error that is sent or believed, in characters: a few lines.
ERROR_TEXT_MAX: Final = 1000

_UNEXPECTED: Final = "the other side met an error that it did not expect; its log says more"


class BoundedCommand(amp.Command):
    """Base of our commands. Every class of :mod:`cloudconnect.errors` may be their answer."""


def may_be_used(command: type[amp.Command]) -> bool:
    """Whether ``command`` leaves the line as it is; Twisted's commands that do not, are refused."""
    plain = command.commandType is amp.Box and command.responseType is amp.Box
    return plain and not issubclass(command, (amp.StartTLS, amp.ProtocolSwitchCommand))


def read_fields(box: amp.AmpBox, fields: list[Any], command: type[amp.Command], proto: Any) -> Any:
    """The values of ``fields`` in ``box``, by name.

    :raises ProtocolViolation: one is missing or malformed; its value is not repeated
    """
    values: dict[str, Any] = {}
    strings = box.copy()
    for name, argument in fields:
        try:
            argument.fromBox(name, strings, values, proto)
        except Exception as error:
            what = str(error) if isinstance(error, CloudConnectError) else "missing or malformed"
            raise ProtocolViolation(
                f"{name.decode('ascii')} of {command.__name__}: {what}"
            ) from None
    return values


def write_fields(
    values: Mapping[str, Any], fields: list[Any], command: type[amp.Command], proto: Any
) -> amp.AmpBox:
    """A box with the ``values`` of ``fields``.

    :raises TypeError: one is missing or does not fit; its value is not repeated
    """
    box = amp.AmpBox()
    objects = dict(values)
    for name, argument in fields:
        try:
            argument.toBox(name, box, objects, proto)
        except Exception as error:
            raise TypeError(
                f"{name.decode('ascii')} of {command.__name__} is missing or does not fit "
                f"({type(error).__name__})"
            ) from None
    return box


def error_box(error: BaseException | None) -> amp.AmpBox:
    """The answer to a request that ended with ``error``: its reason and text, if it is one of ours.

    Of any other error the caller learns nothing but that there was one.
    """
    reason, text = CloudConnectError.reason, ""
    if isinstance(error, CloudConnectError):
        reason, text = error.reason, str(error)[:ERROR_TEXT_MAX]
    box = amp.AmpBox()
    box[amp.ERROR_CODE] = reason.encode("ascii")
    box[amp.ERROR_DESCRIPTION] = text.encode("utf-8", "replace")
    return box


def carried_error(box: amp.AmpBox) -> CloudConnectError:
    """The error that ``box`` carries, of the class that has its reason."""
    reason = box.get(amp.ERROR_CODE, b"").decode("utf-8", "replace")
    text = box.get(amp.ERROR_DESCRIPTION, b"").decode("utf-8", "replace")[:ERROR_TEXT_MAX]
    text = "".join(c if c.isprintable() else " " for c in text)  # it may come to a terminal
    if reason == CloudConnectError.reason:
        return CloudConnectError(text or _UNEXPECTED)
    cls = error_classes().get(reason, Refused)
    # What is wrong at the other side is, seen from here, a refusal: a peer cannot make this side
    # say that its own user or key did something. A usage error is about what was asked, by us.
    return cls(text) if issubclass(cls, (PeerError, UsageError)) else Refused(text)
