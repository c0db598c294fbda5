"""What a backup opens, seen from outside: the system calls of a process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.backup.trees import OLD_NS, write

_SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from cloudconnect.backup import leading
from tests.backup.support import Place

# As if the files had been made long ago.
leading.FileCache = partial(leading.FileCache, now_ns=lambda: 1 << 62)
place = Place(sys.argv[1])
for mark in ("first", "second"):
    open(sys.argv[3] + "/" + mark, "w").close()
    result = place.backup(sys.argv[2].encode(), cache=Path(sys.argv[4]))
    print(result.files, result.files_unchanged)
"""


class OpenTests(SynchronousTestCase):
    """Files are opened once, as long as they do not change."""

    def test_unchanged_files_are_not_opened(self) -> None:
        """Of a second backup, strace sees no open() of any source file."""
        strace = shutil.which("strace")
        if strace is None:
            raise SkipTest("strace is not installed")
        base = os.path.abspath(self.mktemp())
        top, marks, log = f"{base}/source", f"{base}/marks", f"{base}/log"
        os.makedirs(marks)
        names = {f"file-{number:03}" for number in range(300)}
        for name in names:
            write(os.fsencode(f"{top}/d/{name}"), name.encode() * 10, mtime_ns=OLD_NS)
        big = os.fsencode(f"{top}/d/file-big")
        write(big, os.urandom(3_000_000), mtime_ns=OLD_NS)
        names.add("file-big")
        script = [sys.executable, "-c", _SCRIPT, f"{base}/place", top, marks, f"{base}/cache"]
        root = Path(__file__).resolve().parents[2]
        traced = [strace, "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", log, *script]
        done = subprocess.run(traced, capture_output=True, text=True, cwd=root, check=False)
        if "ptrace" in done.stderr.lower():
            raise SkipTest("this user may not trace processes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split(), ["301", "0", "301", "301"])
        opened = re.findall(r'"(?:[^"]*/)?(file-[^"/]+|first|second)"', Path(log).read_text())
        first, second = opened.index("first"), opened.index("second")
        self.assertEqual(set(opened[first + 1 : second]), names)
        self.assertEqual(opened[second + 1 :], [])
