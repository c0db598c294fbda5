"""Layer 3: what of the sources a backup leaves out.

Paths that were named as sources are never left out themselves; everything below them may be.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

import attrs

from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.shown import Shown

#: What a folder holds that says of itself that it is a cache (https://bford.info/cachedir/).
CACHE_TAG: Final = b"CACHEDIR.TAG"
#: How the content of such a file begins.
CACHE_TAG_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"


@attrs.frozen(repr=False)
class ExcludeRules(Shown):
    """What is left out.

    :ivar patterns: paths that are left out, folders with everything below them
    :ivar caches: keep of a folder with a valid ``CACHEDIR.TAG`` only itself and that file
    :ivar if_present: keep of a folder that holds one of these names only itself and that file
    :ivar larger_than: leave out files of more than this many bytes, or None
    """

    patterns: PathPatterns = attrs.field(factory=lambda: PathPatterns(()))
    caches: bool = False
    if_present: frozenset[bytes] = frozenset()
    larger_than: int | None = None

    def excludes(self, path: bytes, folder: bool) -> bool:
        """Whether ``path`` (absolute) matches a pattern."""
        return self.patterns.means(path, folder)

    def too_large(self, size: int) -> bool:
        """Whether a file of ``size`` bytes is left out for its size."""
        return self.larger_than is not None and size > self.larger_than

    def kept_names(self, folder: int, names: Collection[bytes]) -> frozenset[bytes] | None:
        """The only names to keep of a folder that a file in it marks, or None for all of them.

        :param folder: descriptor of the folder
        :param names: everything in it
        """
        marks = {name for name in self.if_present if name in names}
        if self.caches and CACHE_TAG in names and _is_cache_tag(folder):
            marks.add(CACHE_TAG)
        return frozenset(marks) if marks else None


def _is_cache_tag(folder: int) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(CACHE_TAG, flags, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(CACHE_TAG_SIGNATURE)) == CACHE_TAG_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(descriptor)
