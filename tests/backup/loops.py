"""Block devices for tests, where this user may make them."""

from __future__ import annotations

import os
import shutil
import subprocess

from twisted.trial.unittest import SkipTest, SynchronousTestCase


def loop_device(case: SynchronousTestCase, path: bytes) -> bytes:
    """A block device that is the file ``path``; let go of at the end of the test.

    :raises SkipTest: there are none here
    """
    losetup = shutil.which("losetup")
    if os.geteuid() != 0 or losetup is None:
        raise SkipTest("block devices need root and losetup")
    made = subprocess.run(
        [losetup, "--find", "--show", "--", os.fsdecode(path)], capture_output=True, check=False
    )
    if made.returncode:
        raise SkipTest(f"there are no loop devices here: {made.stderr.decode(errors='replace')}")
    device = made.stdout.strip()
    case.addCleanup(subprocess.run, [losetup, "--detach", os.fsdecode(device)], check=True)
    return device
