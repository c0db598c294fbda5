"""Layer 6: what a command wants only once it is logged in, imported while the provider is awaited.

On the way to the log-in a command waits for its line several times, and has nothing to do. What a
session and its dialogue take is named here, and imported in a thread beside the waiting. Who uses
it imports it in the function that does: by then it is there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

from cloudconnect.cli.importing import uncollected

#: What every session takes.
_SESSION: Final = (
    "twisted.internet.endpoints",
    "cloudconnect.tenant.run",
    "cloudconnect.transports.blocking",
    "cloudconnect.transports.stream",
    "cloudconnect.backup.pacing",
    # What a certificate's end is judged by, and the first key of a tunnel made with.
    "cloudconnect.provider.alarms.ending",
    "cryptography.hazmat.backends.openssl.backend",
)
_HEADS: Final = (*_SESSION, "cloudconnect.backup.heads")
#: What the commands' dialogues take.
BACKUP: Final = (*_HEADS, "cloudconnect.backup.upload")
CHECK: Final = (*_HEADS, "cloudconnect.backup.check")
READ: Final = (*_HEADS, "cloudconnect.backup.reading")
RESTORE: Final = (*_HEADS, "cloudconnect.backup.restore")
#: What the tenant's own accelerator takes.
ACCELERATOR: Final = ("cloudconnect.accelerator.source", "cloudconnect.tap.accelerators")


def import_beside(reactor: Any, names: Sequence[str]) -> Deferred[None]:
    """Import modules in a thread; nothing else may be imported until that is over.

    :param reactor: has the thread
    :param names: of the modules, in order
    :return: fires when all are there; fails as the first import that fails does
    """
    if all(name in sys.modules for name in names):
        return succeed(None)
    return deferToThreadPool(reactor, reactor.getThreadPool(), _import, names)


def _import(names: Sequence[str]) -> None:
    with uncollected():
        for name in names:
            importlib.import_module(name)
