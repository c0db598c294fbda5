"""Layer 3: files for what is too much for memory.

They lie where the system keeps temporary files (``TMPDIR`` says where else), have no name, and so
are gone with the process. What goes there is keyed ids of chunks, and where they stand in files: no
content and, but for hard links and folders that a killed restore has left, no names.
"""

from __future__ import annotations

import tempfile
from typing import IO


def temporary_file() -> IO[bytes]:
    """A file without a name and without a buffer.

    :raises OSError: it cannot be made
    """
    return tempfile.TemporaryFile(prefix="cloudconnect-", buffering=0)
