"""An attack on a session gets to somebody: by a real mail and a real webhook."""

from __future__ import annotations

import email
import json

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from cloudconnect.errors import CloudConnectError
from cloudconnect.provider import delivery
from cloudconnect.provider.alarms import Alarms
from cloudconnect.provider.delivery import Delivery, Mail, Webhook
from tests.attacks.fields import Line, Way
from tests.attacks.rules import Flip, at_payload
from tests.attacks.stage import CHANGES, TENANT, Stage, make_files
from tests.provider.test_delivery import Hook, MailServer


class AlarmTests(TestCase):
    """A tampered session."""

    timeout = 120

    async def test_told(self) -> None:
        """A bit is flipped on the way of a backup: both ways tell it, and no content or key."""
        stage = Stage(reactor)
        self.addCleanup(stage.remove)
        await stage.open()
        self.addCleanup(stage.close)
        server, hook = MailServer(), Hook()
        mail_port = await server.listen(self)
        listening = reactor.listenTCP(0, Site(hook), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(listening.stopListening)
        self.patch(delivery, "COLLECT_SECONDS", 0.01)
        alarms = Alarms(reactor.seconds)  # type: ignore[attr-defined]
        for way in (
            Webhook(reactor, f"http://127.0.0.1:{listening.getHost().port}/"),
            Mail(reactor, ("127.0.0.1", mail_port), "p@example.com", ("a@example.com",)),
        ):
            made = Delivery(reactor, way)
            made.startService()
            self.addCleanup(lambda made=made: maybeDeferred(made.stopService))
            alarms.deliver.append(made.add)
        stage.provider.service.watchers.add(alarms)
        source = self.mktemp()
        make_files(source)
        tenant = await stage.tenant()
        stage.proxy.rules = [Flip(Line.STREAM, Way.UP, at_payload(2000))]
        with self.assertRaises(CloudConnectError):
            await tenant.back_up(source)
        session = next(event.session for event in tenant.events if event.session)
        body, _ = await hook.posted
        (alarm, *_) = json.loads(body)["alarms"]
        self.assertIn(alarm["name"], CHANGES)
        self.assertEqual((TENANT, session), (alarm["tenant"], alarm["session"]))
        message = email.message_from_bytes(await server.box.came)
        self.assertIn("SECURITY WARNING", message["Subject"])
        self.assertIn(f"session {session}", message.get_payload())
        await server.gone
        stage.proxy.forget()
        await stage.leave(tenant)
