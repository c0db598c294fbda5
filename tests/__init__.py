"""The test suite; run it with ``python -m twisted.trial tests``."""

import contextlib

with contextlib.suppress(ImportError):  # a part of the tests goes without it
    from hypothesis import settings

    # How long an example takes says how busy the machine is, and nothing else.
    settings.register_profile("cloudconnect", deadline=None)
    settings.load_profile("cloudconnect")
