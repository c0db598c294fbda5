"""A tenant's session that names a restore point of another one, and then says that it has failed.

The provider takes back what a failed session has published. That must not become a way around the
bin and around locks, for somebody who has the tenant's login and not even its encryption key.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from cloudconnect.backup.dialogue import greet
from cloudconnect.commands.control import SessionKind
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import Refused
from cloudconnect.repository.store import Repository
from cloudconnect.wire.channel import raise_failure
from cloudconnect.wire.frames import FrameKind, encode_body
from tests.attacks.stage import HOST, JOB, Stage, make_files


class WithdrawingTests(TestCase):
    """A session that fails on purpose."""

    timeout = 120

    async def test_point_of_another_session(self) -> None:
        """A locked point of an earlier session is still there behind it."""
        stage = Stage(reactor)
        self.addCleanup(stage.remove)
        await stage.open()
        self.addCleanup(stage.close)
        source = self.mktemp()
        make_files(source)
        tenant = await stage.tenant()
        good = await tenant.back_up(source)
        folder = stage.settings.repositories / stage.description.repository.hex()
        with Repository.open(folder) as repository:
            repository.lock([good.point], 4e9)

        def attack(channel: Any, session: bytes) -> None:
            greet(channel, stage.keys, stage.description, "backup")
            record = PointRecord(
                point=good.point,
                repository=stage.description.repository,
                session=session,
                job_id=tenant.job_id,
                host=HOST,
                job=JOB,
                started_ns=1,
                finished_ns=2,
                mode=stage.description.mode,
                manifest=(),
                manifest_length=0,
            )
            body = encode_body(
                record=record.encode(),
                signature=os.urandom(64),
                references=0,
                digest=hashlib.sha256().digest(),
            )
            channel.send(FrameKind.POINT, 1, body)
            raise_failure(channel.receive())

        with self.assertRaises(Refused):
            await tenant.session(SessionKind.BACKUP, attack)
        await stage.leave(tenant)
        with Repository.open(folder) as repository:
            self.assertEqual(repository.point(good.point).state, "published")
        self.assertEqual(stage.points(), [good.point.hex()])
