"""A tampered session between real processes gets to somebody: by a real mail, by a real webhook."""

from __future__ import annotations

import email
import json
from email.message import Message
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.ssl import PrivateCertificate
from twisted.web.server import Site

from cloudconnect.config.provider import CONFIGURATION
from tests.attacks.fields import Line as Kind
from tests.attacks.fields import Way
from tests.attacks.rules import Flip, at_payload
from tests.attacks.stage import make_files
from tests.certificates import self_signed
from tests.provider.alarms.test_mail import MailServer
from tests.provider.alarms.test_webhook import Hook
from tests.story.processes import Line, Provider, StoryCase, in_front_of

reactor: Any = _reactor


class AlarmTests(StoryCase):
    """Provider and tenant are processes, with an attacker between them."""

    async def receive(self) -> tuple[Hook, MailServer, dict[str, Any]]:
        """A webhook over HTTPS and a mail server, and the settings that name them."""
        files = self_signed(("localhost",)).write(str(self.folder / "hook"))
        certificate = Path(files.certificate_path).read_bytes()
        key = Path(files.key_path).read_bytes()
        options = PrivateCertificate.loadPEM(certificate + key).options()
        hook, server = Hook(), MailServer()
        port = reactor.listenSSL(0, Site(hook), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        mail_port = await server.listen(self)
        settings = {
            "alarm_webhook": f"https://localhost:{port.getHost().port}/alarms",
            "alarm_webhook_ca": files.certificate_path,
            "alarm_mail_to": ("admin@example.com",),
            "alarm_mail_from": "provider@example.com",
            "alarm_mail_server": f"127.0.0.1:{mail_port}",
        }
        return hook, server, settings

    async def test_told(self) -> None:
        """The tenant's command ends with 20, nothing is published, and mail and webhook tell of
        that session and of no other, with its tenant and the kind of the warning."""
        hook, server, alarms = await self.receive()
        provider = Provider(self)
        settings = attrs.evolve(provider.settings, **alarms)
        text = settings.to_toml() + f'alarm_webhook_ca = "{alarms["alarm_webhook_ca"]}"\n'
        (provider.directory / CONFIGURATION).write_text(text)
        token = provider.add_tenant()
        await provider.start()
        proxy = in_front_of(self, provider.port)
        line = Line(self, provider, proxy.port, token)
        self.assertStatus(await line.connect(), 0)
        source = str(self.folder / "source")
        make_files(source)
        self.assertStatus(await line.run("backup", source), 0)
        (point,) = provider.rows("point", tenant="acme")

        make_files(f"{source}/more")
        proxy.rules = [Flip(Kind.STREAM, Way.UP, at_payload(3000))]
        done = await line.run("backup", source)
        self.assertStatus(done, 20)
        (session,) = (r["session"] for r in done.records if r.get("name") == "started")
        kind = "tampered"
        self.assertIn(kind, done.warnings)
        left = [row["point"] for row in provider.rows("point", tenant="acme")]
        self.assertEqual([point["point"]], left)

        body, _ = await hook.posted
        found = json.loads(body)["alarms"]
        told = {(a["session"], a["tenant"], a["name"], a["security"]) for a in found}
        self.assertEqual({(session, "acme", kind, True)}, told)
        message: Message = email.message_from_bytes(await server.box.came)
        self.assertIn(f"SECURITY WARNING: {kind}", message["Subject"])
        lines = message.get_payload().splitlines()
        named = {one.strip() for one in lines if one.startswith(("  session ", "  tenant "))}
        self.assertEqual({f"session {session}", "tenant acme"}, named)
        await server.gone
