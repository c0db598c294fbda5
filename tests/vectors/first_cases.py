"""Vectors for sections 1 and 4: the first bytes of a connection, and the Key A tunnel."""

from __future__ import annotations

from collections.abc import Iterator

from cloudconnect.wire import canonical
from tests.vectors.cases import Case, changed
from tests.vectors.talks import (
    INITIATOR,
    RESPONDER,
    ROUTE,
    GatewayTalk,
    StreamTalk,
    TunnelTalk,
    sized,
)

#: X25519 points of low order (RFC 7748, section 6.1): with them every key gives zero.
LOW_ORDER = {
    "zero": bytes(32),
    "one": bytes([1]) + bytes(31),
    "of-order-8": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
}


def preambles() -> Iterator[Case]:
    """Section 1."""
    talk = GatewayTalk()
    talk.say(INITIATOR, b"\x16")
    talk.told(INITIATOR, "tls")
    yield Case("preamble/tls", 1, "The first byte of a TLS handshake record decides alone.", talk)
    yield Case(
        "preamble/tunnel",
        1,
        "A preamble of kind 1 begins a tunnel, and is bound into its handshake.",
        TunnelTalk().begin().end(),
    )
    yield Case(
        "preamble/stream",
        1,
        "A preamble of kind 2 begins a stream, and is bound into its keys.",
        StreamTalk().begin().end(),
    )
    refused = {
        "letter": (b"G", "A first byte that is neither TLS nor the magic, as of a web browser."),
        "alert": (b"\x15", "A TLS alert does not begin a connection."),
        "data-record": (b"\x17", "A TLS record of data does not begin a connection."),
        "zero": (b"\0", "A zero byte begins nothing."),
        "second-byte": (b"CD", "The second byte of the magic is wrong; no third is waited for."),
        "third-byte": (b"CCX", "The third byte of the magic is wrong."),
        "other-version": (b"CCN2", "The magic of another version."),
        "lower-case": (b"c", "The magic in lower case."),
        "kind-0": (b"CCN1\0", "There is no kind 0; no route is waited for."),
        "kind-3": (b"CCN1\3", "There is no kind 3 in this version."),
        "kind-255": (b"CCN1\xff", "There is no kind 255."),
        "proxy-header": (b"\r\n\r\n\0\r\nQUIT\n", "A PROXY protocol header: not in this version."),
    }
    for name, (octets, shows) in refused.items():
        talk = GatewayTalk()
        talk.say(INITIATOR, octets)
        yield Case(f"preamble/{name}", 1, shows, talk, "protocol_violation")
    whole = b"CCN1\1" + ROUTE
    for size in (3, 4, 20):
        talk = GatewayTalk()
        talk.say(INITIATOR, whole[:size])
        shows = f"The bytes stop after {size} of 21."
        yield Case(f"preamble/cut-at-{size}", 1, shows, talk, "truncated")
    talk = TunnelTalk()
    talk.say(INITIATOR, changed(talk.preamble, 4, 3), sized(talk.first))
    shows = "The kind was changed to one for which the responder has no key."
    yield Case("preamble/other-kind", 1, shows, talk, "refused")
    talk = TunnelTalk()
    talk.say(INITIATOR, changed(talk.preamble, 20), sized(talk.first))
    shows = "The last byte of the route was changed on the way to a tunnel: found by its handshake."
    yield Case("preamble/route-of-tunnel", 1, shows, talk, "key_a_rejected")
    stream = StreamTalk()
    other = changed(stream.preamble, 20)
    stream.say(INITIATOR, other, stream.hello)
    welcome = stream.welcome[:32] + stream.commitment(RESPONDER, preamble=other)
    stream.say(RESPONDER, welcome)
    stream.say(INITIATOR, stream.commitment(INITIATOR))
    shows = (
        "The last byte of the route was changed on the way to a stream: both commitments differ."
    )
    yield Case("preamble/route-of-stream", 1, shows, stream, "tampered")


def handshakes() -> Iterator[Case]:
    """Section 4, up to the second message."""
    answer = canonical.encode({"versions": [1], "limits": {}})
    yield Case(
        "tunnel/payload",
        4,
        "The second message carries versions and limits.",
        TunnelTalk(answer).begin().end(),
    )
    told = {
        "session": b"\x54" * 16,
        "tenant": b"alicf",
        "role": b"target-wan",
        "exporter": b"\x66" * 32,
        "agreed": b"\x62" * 32,
    }
    for name, value in told.items():
        talk = TunnelTalk(**{name: value})
        talk.say(INITIATOR, talk.preamble, sized(talk.first))
        shows = f"The initiator was told another {name} than the responder."
        yield Case(f"tunnel/other-{name}", 4, shows, talk, "key_a_rejected")
    talk = TunnelTalk(tenant=b"alic", role=b"etarget-mover")
    talk.say(INITIATOR, talk.preamble, sized(talk.first))
    shows = "Tenant and role are the same bytes when joined: their lengths tell them apart."
    yield Case("tunnel/other-split", 4, shows, talk, "key_a_rejected")
    talk = TunnelTalk(key_a=bytes(32))
    talk.say(INITIATOR, talk.preamble, sized(talk.first))
    yield Case("tunnel/other-key", 4, "The initiator holds another Key A.", talk, "key_a_rejected")

    for name, at in {"point": 0, "high-bit": 31, "first-tag": 32, "last-tag": 47}.items():
        talk = TunnelTalk()
        first = changed(talk.first, at, 0x80)
        talk.say(INITIATOR, talk.preamble, sized(first))
        shows = f"Byte {at} of the first message was changed."
        if name == "high-bit":
            shows += " X25519 ignores that bit, the handshake's hash does not."
        yield Case(f"tunnel/first-{name}", 4, shows, talk, "key_a_rejected")
    for size in (0, 47, 49, 65535):
        talk = TunnelTalk()
        talk.say(INITIATOR, talk.preamble, size.to_bytes(2, "big"))
        shows = f"A first message of {size} bytes: refused by its length, before it has come."
        yield Case(f"tunnel/first-of-{size}", 4, shows, talk, "key_a_rejected")
    for cut in (1, 2, 49):
        talk = TunnelTalk()
        talk.say(INITIATOR, talk.preamble, sized(talk.first)[:cut])
        shows = f"The bytes stop {cut} bytes into the first message and its length."
        yield Case(f"tunnel/first-cut-at-{cut}", 4, shows, talk, "truncated")
    for name, point in LOW_ORDER.items():
        talk = TunnelTalk()
        talk.say(INITIATOR, talk.preamble, sized(talk.with_point(point)))
        shows = "The initiator's point has a low order, and its tag is good: the result is zero."
        yield Case(f"tunnel/first-{name}", 4, shows, talk, "key_a_rejected")

    for name, at in {"point": 5, "high-bit": 31, "tag": 40, "payload": 48}.items():
        talk = TunnelTalk(b"payload")
        talk.say(INITIATOR, talk.preamble, sized(talk.first))
        second = (
            changed(talk.answer(), min(at, 47), 0x80) if at < 48 else changed(talk.answer(), 33)
        )
        talk.say(RESPONDER, sized(second))
        shows = f"The {name.replace('-', ' ')} of the second message was changed."
        yield Case(f"tunnel/second-{name}", 4, shows, talk, "key_a_rejected")
    for size in (47, 48 + 4097):
        talk = TunnelTalk()
        talk.say(INITIATOR, talk.preamble, sized(talk.first))
        talk.say(RESPONDER, size.to_bytes(2, "big"))
        shows = f"A second message of {size} bytes: refused by its length, before it has come."
        yield Case(f"tunnel/second-of-{size}", 4, shows, talk, "key_a_rejected")
    talk = TunnelTalk()
    talk.say(INITIATOR, talk.preamble, sized(talk.first))
    talk.say(RESPONDER, sized(bytes(48)))
    shows = "The responder's point is zero."
    yield Case("tunnel/second-zero", 4, shows, talk, "key_a_rejected")
    talk = TunnelTalk()
    talk.say(INITIATOR, talk.preamble, sized(talk.first))
    talk.say(RESPONDER, sized(talk.first))
    shows = "The first message comes back as the second one."
    yield Case("tunnel/second-reflected", 4, shows, talk, "key_a_rejected")
    talk = TunnelTalk()
    talk.say(INITIATOR, talk.preamble, sized(talk.first))
    talk.say(RESPONDER, sized(talk.answer())[:-1])
    shows = "The bytes stop within the second message."
    yield Case("tunnel/second-cut", 4, shows, talk, "truncated")


def messages() -> Iterator[Case]:
    """Section 4, behind the handshake."""
    yield Case(
        "tunnel/data-to-responder",
        4,
        "One message from the initiator.",
        TunnelTalk().begin().data(INITIATOR, b"hello").end(),
    )
    yield Case(
        "tunnel/data-to-initiator",
        4,
        "One message from the responder.",
        TunnelTalk().begin().data(RESPONDER, b"hello").end(),
    )
    yield Case(
        "tunnel/several",
        4,
        "Each direction counts its messages for itself.",
        TunnelTalk()
        .begin()
        .data(INITIATOR, b"one", b"two")
        .data(RESPONDER, b"1")
        .data(INITIATOR, b"three")
        .end(),
    )
    yield Case(
        "tunnel/half-closed",
        4,
        "One direction has ended, the other goes on.",
        TunnelTalk().begin().end(INITIATOR).data(RESPONDER, b"still here").end(RESPONDER),
    )
    talk = TunnelTalk().begin()
    together = talk.seal(INITIATOR, b"ab") + talk.seal(INITIATOR, b"cd")
    for part in (together[:1], together[1:25], together[25:]):
        talk.say(INITIATOR, part)
    talk.told(INITIATOR, "data", b"ab".hex())
    talk.told(INITIATOR, "data", b"cd".hex())
    shows = "Messages that arrive in other pieces than they were sent in."
    yield Case("tunnel/pieces", 4, shows, talk.end())

    for name, at in {"length": 1, "ciphertext": 2, "tag": -1}.items():
        talk = TunnelTalk().begin()
        talk.say(INITIATOR, changed(talk.seal(INITIATOR, b"hello"), at), bytes(32))
        shows = f"The {name} of a message was changed."
        yield Case(f"tunnel/message-{name}", 4, shows, talk, "tampered")
    talk = TunnelTalk().begin().data(INITIATOR, b"zero")
    one, two = talk.seal(INITIATOR, b"one"), talk.seal(INITIATOR, b"two")
    talk.say(INITIATOR, two, one)
    yield Case("tunnel/swapped", 4, "Two messages change places.", talk, "tampered")
    talk = TunnelTalk().begin()
    one = talk.seal(INITIATOR, b"one")
    talk.say(INITIATOR, one)
    talk.told(INITIATOR, "data", b"one".hex())
    talk.say(INITIATOR, one)
    yield Case("tunnel/repeated", 4, "A message comes twice.", talk, "tampered")
    talk = TunnelTalk().begin()
    talk.seal(INITIATOR, b"lost")
    talk.say(INITIATOR, talk.seal(INITIATOR, b"next"))
    yield Case("tunnel/left-out", 4, "A message is missing.", talk, "tampered")
    talk = TunnelTalk().begin()
    talk.say(RESPONDER, talk.seal(INITIATOR, b"hello"))
    shows = "The initiator's message comes back to it."
    yield Case("tunnel/reflected", 4, shows, talk, "tampered")
    talk = TunnelTalk().begin()
    talk.say(INITIATOR, talk.seal(INITIATOR, b"hello", ad=b"x"))
    shows = "A message that was sealed with associated data: there is none in this protocol."
    yield Case("tunnel/associated-data", 4, shows, talk, "tampered")
    for size in (0, 15):
        talk = TunnelTalk().begin()
        talk.say(INITIATOR, size.to_bytes(2, "big"))
        shows = f"A message of {size} bytes has no room for a tag: refused by its length."
        yield Case(f"tunnel/message-of-{size}", 4, shows, talk, "tampered")
    talk = TunnelTalk().begin().end(INITIATOR)
    talk.say(INITIATOR, talk.seal(INITIATOR, b"more"))
    yield Case("tunnel/after-end", 4, "A message behind the end.", talk, "tampered")
    talk = TunnelTalk().begin().end(INITIATOR)
    talk.say(INITIATOR, talk.seal(INITIATOR, b""))
    yield Case("tunnel/second-end", 4, "A second end.", talk, "tampered")
    talk = TunnelTalk().begin()
    talk.say(INITIATOR, changed(talk.seal(INITIATOR, b""), 2))
    yield Case("tunnel/end-changed", 4, "The tag of the end was changed.", talk, "tampered")

    shows = "The bytes stop behind the handshake."
    yield Case("tunnel/no-end", 4, shows, TunnelTalk().begin(), "truncated")
    shows = "Only one direction has ended."
    talk = TunnelTalk().begin().end(INITIATOR)
    yield Case("tunnel/one-end", 4, shows, talk, "truncated")
    shows = "The bytes stop between two messages: that is not an end."
    talk = TunnelTalk().begin().data(INITIATOR, b"hello").end(RESPONDER)
    yield Case("tunnel/cut-between", 4, shows, talk, "truncated")
    for cut in (1, 10):
        talk = TunnelTalk().begin().end(RESPONDER)
        talk.say(INITIATOR, talk.seal(INITIATOR, b"hello")[:cut])
        shows = f"The bytes stop {cut} bytes into a message and its length."
        yield Case(f"tunnel/cut-at-{cut}", 4, shows, talk, "truncated")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from preambles()
    yield from handshakes()
    yield from messages()
