"""Tests of :mod:`cloudconnect.config.alarming`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.alarming import ways
from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import UsageError
from cloudconnect.provider.alarms.mail import Mail
from cloudconnect.provider.alarms.webhook import Webhook
from tests.certificates import self_signed


class WaysTests(SynchronousTestCase):
    """What the settings name."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.settings = ProviderSettings(directory=self.folder, hosts=("localhost",))

    def ways(self, **values: Any) -> list[Any]:
        return list(ways(None, attrs.evolve(self.settings, **values)))

    def test_nobody(self) -> None:
        """Where nobody is named there is no way."""
        self.assertEqual([], self.ways())

    def test_both(self) -> None:
        """A webhook and a mail, with what their files hold."""
        (self.folder / "key").write_bytes(b"secret\n")
        pem = Path(self_signed().write(self.mktemp()).certificate_path).read_bytes()
        (self.folder / "ca.pem").write_bytes(pem)
        webhook, mail = self.ways(
            alarm_webhook="https://example.com/x",
            alarm_webhook_key="key",
            alarm_mail_to=("a@example.com",),
            alarm_mail_from="p@example.com",
            alarm_mail_user="u",
            alarm_mail_password="key",
            alarm_mail_ca="ca.pem",
        )
        assert isinstance(webhook, Webhook) and isinstance(mail, Mail)
        self.assertEqual(b"secret", webhook.key and webhook.key.reveal())
        self.assertEqual((("localhost", 25), "u"), (mail.server, mail.user))
        self.assertEqual((b"", pem), (webhook.ca, mail.ca))

    def test_unusable(self) -> None:
        """What is incomplete or cannot be read is refused."""
        (self.folder / "empty").touch()
        (self.folder / "nonsense").write_bytes(b"no certificate")
        to: dict[str, Any] = {"alarm_mail_to": ("a@example.com",)}
        sent = {**to, "alarm_mail_from": "p@example.com"}
        for values in (
            to,
            {**sent, "alarm_mail_server": "nowhere"},
            {**sent, "alarm_mail_user": "u"},
            {**sent, "alarm_mail_ca": "nonsense"},
            {"alarm_webhook": "https://example.com", "alarm_webhook_ca": "nonsense"},
            {"alarm_webhook": "http://example.com"},
            {"alarm_webhook": "https://example.com", "alarm_webhook_key": "missing"},
            {"alarm_webhook": "https://example.com", "alarm_webhook_key": "empty"},
        ):
            self.assertRaises(UsageError, self.ways, **values)
