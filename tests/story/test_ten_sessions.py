"""What one WAN accelerator of the provider's needs for ten sessions at the same time."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from cloudconnect.config.provider import CONFIGURATION
from tests.attacks.proxy import LOOPBACK
from tests.dedup.pairs import noise, text
from tests.story.processes import (
    ANY_PORT,
    Line,
    Provider,
    SeparateAccelerator,
    StoryCase,
    free_port,
    listens,
)

SESSIONS = 10
#: Resident memory that its process may have had at most, in bytes.
MEMORY_MAX = 300 << 20
#: What each session sends, in bytes, and how fast: so that all are there at the same time.
SIZE = 24 << 20
RATE = "3MB"
REGISTERED = re.compile(rb"registered with the service")


class MemoryTests(StoryCase):
    """Ten tenants back up at the same time through one accelerator in a process of its own."""

    async def test_ten_sessions(self) -> None:
        """All succeed, and the accelerator has never had more than 300 MiB of memory."""
        provider, back_end, port = Provider(self), free_port(), free_port()
        settings = attrs.evolve(
            provider.settings,
            lan_listen=ANY_PORT,
            backend_listen=f"tcp:{back_end}:interface={LOOPBACK}",
            backend_address=f"{LOOPBACK}:{back_end}",
            wan_cache_gb=0,
        )
        (provider.directory / CONFIGURATION).write_text(settings.to_toml())
        tokens = [
            provider.add_tenant(f"tenant{number}", modes=["provider"]) for number in range(SESSIONS)
        ]
        await provider.start()
        assert provider.process is not None
        directory = str(self.folder / "accelerator")
        done = await self.run_command(
            *("provider", "wan", "enroll", "one", "--directory", str(provider.directory)),
            *("--output", directory, "--backend", f"{LOOPBACK}:{port}"),
            *("--service", f"{LOOPBACK}:{listens(provider.process, 'LAN link')}"),
            *("--listen", f"tcp:{port}:interface={LOOPBACK}"),
        )
        self.assertStatus(done, 0)
        accelerator = SeparateAccelerator(self, Path(directory))
        self.forked = False  # its memory is measured
        await accelerator.start(REGISTERED)
        self.forked = True
        running = []
        for number, token in enumerate(tokens):
            line = Line(self, provider, provider.port, token)
            line.environment.pop("CLOUDCONNECT_PASSPHRASE_FILE")
            line.environment["CLOUDCONNECT_ENCRYPTION"] = "provider"
            line.environment["CLOUDCONNECT_PROFILE"] = f"tenant{number}"
            self.assertStatus(await line.connect(), 0)
            path = self.folder / f"source-{number}"
            half = noise(SIZE // 4, number) + text(SIZE // 4, number)
            path.write_bytes(half + half[1:])
            words = ("backup", str(path), "--wan", "on", "--limit-upload", RATE)
            running.append((line, words))
        ended = await self.all_done(*(line.start(*words) for line, words in running))
        for one in ended:
            self.assertStatus(one, 0)
            self.assertTrue(one.summary["wan"]["used"])
        assert accelerator.process is not None
        pid = accelerator.process.transport.pid  # type: ignore[union-attr]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
        self.assertLess(peak, MEMORY_MAX)
        await accelerator.stop()
