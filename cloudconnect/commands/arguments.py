"""Layer 3: argument types that Twisted's AMP does not have.

A value that does not fit is refused without being repeated: the text of an error may be logged, or
sent back, and the value may be a key.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.protocols import amp

from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import Secret
from cloudconnect.wire import canonical

#: Largest secret of no fixed size (a password), in bytes: longer than anybody types.
SECRET_MAX: Final = 1024


class SecretArgument(amp.Argument):
    """A key or password, as an object that nothing prints.

    :param secret_class: its class, which fixes its size
    :param optional: whether it may be left out (None)
    """

    def __init__(self, secret_class: type[Secret], optional: bool = False) -> None:
        super().__init__(optional)  # type: ignore[no-untyped-call]
        self._class = secret_class

    def toString(self, inObject: Any) -> bytes:
        """The octets.

        :raises TypeError: not an object of that very class
        :raises KeyForgotten: it was forgotten
        """
        if type(inObject) is not self._class:
            raise TypeError(f"this is not a {self._class.__name__}")
        return inObject.reveal()

    def fromString(self, inString: bytes) -> Secret:
        """The object.

        :raises ProtocolViolation: wrong size
        """
        size = self._class.size
        if len(inString) > SECRET_MAX if size is None else len(inString) != size:
            raise ProtocolViolation(f"a {self._class.__name__} of {len(inString)} bytes")
        return self._class(inString)


class FixedBytes(amp.Argument):
    """Octets of one size, such as an id or a digest.

    :param size: in bytes
    :param optional: whether they may be left out (None)
    """

    def __init__(self, size: int, optional: bool = False) -> None:
        super().__init__(optional)  # type: ignore[no-untyped-call]
        self._size = size

    def toString(self, inObject: Any) -> bytes:
        """The octets.

        :raises TypeError: not octets
        :raises ValueError: wrong size
        """
        if not isinstance(inObject, bytes):
            raise TypeError("this is not bytes")
        if len(inObject) != self._size:
            raise ValueError(f"{len(inObject)} bytes in the place of {self._size}")
        return inObject

    def fromString(self, inString: bytes) -> bytes:
        """The octets.

        :raises ProtocolViolation: wrong size
        """
        if len(inString) != self._size:
            raise ProtocolViolation(f"{len(inString)} bytes in the place of {self._size}")
        return inString


class CBORArgument(amp.Argument):
    """Maps, lists, text, octets, numbers, booleans and None, as canonical CBOR.

    The length is bounded by AMP (65,535 bytes); depth and number of items are bounded here.

    :param max_depth: levels of maps and lists in one another
    :param max_items: keys, values, members and containers together
    :param optional: whether it may be left out (None)
    """

    def __init__(
        self,
        max_depth: int = canonical.DEPTH_MAX,
        max_items: int = canonical.ITEMS_MAX,
        optional: bool = False,
    ) -> None:
        super().__init__(optional)  # type: ignore[no-untyped-call]
        self._max_depth = max_depth
        self._max_items = max_items

    def toString(self, inObject: Any) -> bytes:
        """The canonical encoding."""
        return canonical.encode(inObject)

    def fromString(self, inString: bytes) -> Any:
        """The value.

        :raises ProtocolViolation: not canonical CBOR of that depth and number of items
        """
        return canonical.decode(inString, self._max_depth, self._max_items)
