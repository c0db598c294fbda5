"""A provider, or a tenant's command, whose accelerator lies, as a process of its own.

::

    python -m tests.attacks.lying provider DIRECTORY WAY KIND AT
    python -m tests.attacks.lying tenant WAY KIND AT ARGUMENT...

It flips a bit of byte ``AT`` of the first frame of ``KIND`` that goes ``WAY`` (``up`` or ``down``)
in each session, behind all checks of the accelerator.
"""

from __future__ import annotations

import sys
from typing import Any

from cloudconnect.accelerator import source, target
from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.wire.frames import FrameKind
from tests.attacks.fields import Way
from tests.attacks.liars import Instead, Lie, flipped, lying


def bent(kind: Any, way: str, frame: str, at: str) -> Any:
    """A class of accelerators with a new lie for each session."""

    class Bent(lying(kind)):  # type: ignore[misc]
        @property
        def lie(self) -> Lie:
            return Instead(Way(way), FrameKind[frame], lambda octets, _: flipped(octets, int(at)))

    return Bent


def main(whose: str, *arguments: str) -> None:
    """Run it."""
    if whose == "provider":
        from twisted.application.twist._twist import Twist

        directory, *what = arguments
        target.TargetAccelerator = bent(TargetAccelerator, *what)  # type: ignore[misc]
        line = ["twist", "--log-format=text", "cloudconnect-provider", "--directory", directory]
        Twist.main(line)
    else:
        way, kind, at, *rest = arguments
        # Before anything imports it.
        source.SourceAccelerator = bent(SourceAccelerator, way, kind, at)  # type: ignore[misc]
        from cloudconnect.cli.main import main as command

        sys.argv = ["cloudconnect", *rest]
        command()


if __name__ == "__main__":
    main(*sys.argv[1:])
