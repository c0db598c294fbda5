"""The state machine of :mod:`tests.crash.machine`, as a campaign."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.crash.machine import RepositoryMachine
from tests.crash.stage import Failed

#: Steps of one run of the machine, and runs between two looks at the clock.
_STEPS = 40
_RUNS = 5


def run(seed: int, seconds: float, counts: Counter[str], steps: int | None = None) -> None:
    """The campaign: runs of the machine, one after the other.

    :param seed: of every choice
    :param seconds: begin no runs after so many
    :param counts: what happened is counted there
    :param steps: begin no runs after so many steps
    :raises Failed: what was found, and the steps to it
    """
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    ends = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends and (steps is None or counts["steps"] < steps):

        class Machine(RepositoryMachine):
            _hypothesis_internal_use_seed = f"{seed} {number}"

        Machine.counts = counts
        how = settings(
            max_examples=_RUNS,
            stateful_step_count=_STEPS,
            deadline=None,
            database=None,
            print_blob=False,
            phases=[Phase.generate],  # a failure of so many slow steps takes too long to shrink
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(Machine, settings=how)
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", []))
            text = "".join(traceback.format_tb(error.__traceback__)[-3:])
            raise Failed(f"seed {seed}, run {number}: {text}{error!r}\n{notes}") from error
        number += 1
        counts["runs"] += _RUNS
