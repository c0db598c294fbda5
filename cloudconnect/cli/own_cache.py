"""Layer 6: where this machine's own block cache lies, and how large it may get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.accelerator.room import cache_folder as tenant_folder
from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import read_node_key
from cloudconnect.config.profile import cache_folder, state_folder
from cloudconnect.errors import UsageError

#: GiB of block cache on the tenant's machine, where CLOUDCONNECT_WAN_CACHE_GB does not say.
CACHE_GB: Final = 4
_GIB: Final = 1 << 30


@attrs.frozen
class OwnCache:
    """Where the block cache of this machine lies, for one repository at one provider.

    :ivar folder: its directory, whether it is there or not
    :ivar key: file of this machine's node key
    :ivar name: what the accelerator calls it, 32 bytes
    :ivar limit: bytes that it may take
    """

    folder: Path
    key: Path
    name: bytes
    limit: int

    @classmethod
    def of(cls, provider: bytes, repository: bytes) -> OwnCache:
        """That of a provider's and a repository's 16 bytes.

        :raises UsageError: ``CLOUDCONNECT_WAN_CACHE_GB`` is no number that can be used
        """
        name = provider + repository
        caches = cache_folder(os.environ, provider, repository) / "wan"
        key = state_folder(os.environ, provider, repository) / "wan.key"
        return cls(tenant_folder(caches, name.hex()), key, name, _cache_size())

    def open(self) -> BlockCache:
        """Open it, for somebody who is not an accelerator.

        :raises UsageError: another process uses it, or the node key cannot be used
        """
        for parent in (self.folder.parent, self.key.parent):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        node = read_node_key(self.key, make=True)
        return BlockCache(self.folder, self.name.hex(), node, self.limit)


def _cache_size() -> int:
    """Bytes that the own cache may take.

    :raises UsageError: the environment says something else
    """
    text = os.environ.get("CLOUDCONNECT_WAN_CACHE_GB", str(CACHE_GB))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 10_000:
        raise UsageError(f"CLOUDCONNECT_WAN_CACHE_GB is {text!r}, not a number from 1 to 10000")
    return int(text) * _GIB
