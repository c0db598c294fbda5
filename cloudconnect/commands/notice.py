"""Layer 3: what a provider tells its tenants in good time: its next key, its next address.

It comes with the answer to the log-in, over the authenticated control channel
(``docs/protocol.rst``, section 2).
"""

from __future__ import annotations

from typing import Any, Final, Self

import attrs

from cloudconnect.errors import ProtocolViolation, UsageError
from cloudconnect.shown import Shown
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.trust import parse_fingerprint

#: Most pins that one notice names.
PINS_MAX: Final = 4
#: Longest ``HOST:PORT``: a host name's 253 characters, brackets and a port.
ADDRESS_MAX: Final = 270


@attrs.frozen(kw_only=True, repr=False)
class Notice(Shown):
    """What will hold from some day on.

    :ivar pins: ``SPKI-SHA256:`` fingerprints of the keys that the provider will use next
    :ivar address: ``HOST:PORT`` that it will be reached at, or ""
    """

    pins: tuple[str, ...] = ()
    address: str = ""

    def __bool__(self) -> bool:
        return bool(self.pins or self.address)

    def as_map(self) -> dict[str, Any]:
        """As it is sent."""
        return {"pins": list(self.pins), "address": self.address}

    @classmethod
    def from_map(cls, values: Any) -> Self:
        """As it was sent; what a newer provider says besides is left out.

        :raises ProtocolViolation: it cannot be read
        """
        if not isinstance(values, dict):
            raise ProtocolViolation("a notice is a map")
        address = values.get("address", "")
        if not isinstance(address, str) or len(address) > ADDRESS_MAX:
            raise ProtocolViolation("the address of a notice is a text")
        try:
            if address:
                split_host_port(address)
        except UsageError:
            raise ProtocolViolation("the address of a notice is not HOST:PORT") from None
        return cls(pins=read_pins(values.get("pins", [])), address=address)


def read_pins(values: Any) -> tuple[str, ...]:
    """Pins that a peer has sent: of public keys, each once.

    :raises ProtocolViolation: they cannot be read, or are too many
    """
    if not isinstance(values, list) or len(values) > PINS_MAX:
        raise ProtocolViolation(f"pins are a list of at most {PINS_MAX} texts")
    pins = []
    for value in values:
        try:
            pin = parse_fingerprint(value) if isinstance(value, str) and len(value) < 200 else ""
        except UsageError:
            pin = ""
        if not pin.startswith("SPKI-"):
            raise ProtocolViolation("a pin is SPKI-SHA256: and 64 hexadecimal digits")
        pins.append(pin)
    return tuple(dict.fromkeys(pins))
