"""Tests of :mod:`cloudconnect.commands.admin`: what the boxes of the admin socket carry."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.admin import AddTenant, List
from cloudconnect.commands.arguments import SECRET_MAX
from cloudconnect.commands.fields import read_fields, write_fields
from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import Password


class AdminTests(SynchronousTestCase):
    """The commands of the admin socket."""

    def read(self, fields: Any, command: Any, values: dict[str, Any]) -> Any:
        return read_fields(write_fields(values, fields, command, None), fields, command, None)

    def test_add_tenant(self) -> None:
        """A password, or none, arrives; a printed request does not show it."""
        values = {"name": "acme", "settings": {"quota": 5, "modes": ["tenant"]}}
        without = self.read(AddTenant.arguments, AddTenant, {**values, "password": None})
        self.assertEqual({**values, "password": None}, without)
        given = self.read(AddTenant.arguments, AddTenant, {**values, "password": Password(b"pw!")})
        self.assertEqual(b"pw!", given["password"].reveal())
        self.assertNotIn("pw!", repr(given))

    def test_long_password(self) -> None:
        """A password beyond all measure is refused, and not repeated."""
        values = {"name": "acme", "settings": {}, "password": Password(b"canary" * SECRET_MAX)}
        error = self.assertRaises(
            ProtocolViolation, self.read, AddTenant.arguments, AddTenant, values
        )
        self.assertNotIn("canary", str(error))

    def test_token(self) -> None:
        """The token comes back, or nothing where none was made."""
        for token in (None, Password(b"token")):
            answer = self.read(AddTenant.response, AddTenant, {"token": token})
            self.assertEqual(token, answer["token"])

    def test_list(self) -> None:
        """Rows of every kind of value come back."""
        rows = [{"cursor": 1, "text": "é", "octets": b"\0", "nothing": None, "list": [1, 1.5]}]
        values = {"rows": rows, "more": True}
        self.assertEqual(values, self.read(List.response, List, values))
