"""Layer 3: a damaged blob of the store made again from what else says the same.

The one exception to "a name is never written again". What takes its place is on the disk before
the damaged one goes; a process that is killed in between leaves nothing under the name, which the
next scrub finds.
"""

from __future__ import annotations

from cloudconnect.errors import NoSpace
from cloudconnect.interfaces import IBlobStore


def rewrite(store: IBlobStore, name: str, octets: bytes) -> bool:
    """Put ``octets`` in the place of what is stored as ``name``; False where the disk is full.

    The caller sees to it that nobody else writes that name.
    """
    try:
        writer = store.begin()
    except NoSpace:
        return False
    try:
        writer.write(octets)
        writer.read(0, 1)  # so that it is out of our hands
        store.remove(name)
        writer.commit(name)
    except NoSpace:
        return False
    finally:
        writer.discard()
    return True
