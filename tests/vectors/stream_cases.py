"""Vectors for sections 5 and 6: the Key B stream's handshake, records, keys and ends."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cloudconnect.wire.records import RecordType
from tests.vectors.cases import Case, changed
from tests.vectors.talks import INITIATOR, RESPONDER, SALTS, MiddleTalk, StreamTalk

DATA, REKEY, END, ABORT, PING, PONG = RecordType
MIB = 1 << 20
GIB = 1 << 30


def hellos() -> Iterator[Case]:
    """Section 5."""
    for number in (0, 1, 0xFFFFFFFF):
        shows = f"Connection {number}; both directions end at once."
        talk = StreamTalk(number).begin().end()
        yield Case(f"hello/connection-{number}", 5, shows, talk)
    talk = StreamTalk(context=b"another program").begin().data(INITIATOR, b"hello").end()
    shows = "A stream of another program: a context of its own, and no preamble."
    yield Case("hello/other-program", 5, shows, talk)
    shows = "An empty context."
    yield Case("hello/empty-context", 5, shows, StreamTalk(context=b"").begin().end())
    talk = StreamTalk(3, used=(0, 1, 2)).begin().end()
    yield Case("hello/unused", 5, "A number that was not used before, among such that were.", talk)
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    record = talk.sealers[INITIATOR].seal(DATA, b"at once")
    talk.say(INITIATOR, talk.commitment(INITIATOR) + record)
    talk.told(INITIATOR, "begin", talk.hello[32:].hex())
    talk.told(INITIATOR, "data", b"at once".hex())
    shows = "The first record comes in one piece with begin."
    yield Case("hello/record-behind-begin", 5, shows, talk.end())

    told = {
        "session": b"\x54" * 16,
        "tenant": b"alicf",
        "hop": b"source-mover>target-wan",
        "connection": 4,
        "salts": SALTS[RESPONDER] + SALTS[INITIATOR],
    }
    for name, value in told.items():
        talk = StreamTalk()
        talk.say(INITIATOR, talk.preamble, talk.hello)
        talk.say(RESPONDER, SALTS[RESPONDER] + talk.commitment(RESPONDER, **{name: value}))
        shows = f"The responder takes another {name}."
        if name == "salts":
            shows = "The responder takes the salts in the wrong order."
        yield Case(f"hello/responder-{name}", 5, shows, talk, "tampered")
        talk = StreamTalk()
        talk.say(INITIATOR, talk.preamble, talk.hello)
        talk.say(RESPONDER, talk.welcome)
        talk.say(INITIATOR, talk.commitment(INITIATOR, **{name: value}))
        shows = shows.replace("responder", "initiator")
        yield Case(f"hello/initiator-{name}", 5, shows, talk, "tampered")
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, SALTS[RESPONDER] + talk.commitment(RESPONDER, bytes(32)))
    yield Case("hello/responder-key", 5, "The responder holds another Key B.", talk, "tampered")
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    talk.say(INITIATOR, talk.commitment(INITIATOR, bytes(32)))
    yield Case("hello/initiator-key", 5, "The initiator holds another Key B.", talk, "tampered")
    talk = StreamTalk(context=b"one program")
    talk.say(INITIATOR, talk.hello)
    talk.say(RESPONDER, SALTS[RESPONDER] + talk.commitment(RESPONDER, context=b"another"))
    yield Case("hello/responder-context", 5, "The contexts differ.", talk, "tampered")

    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, SALTS[RESPONDER] + talk.commitment(RESPONDER, direction=0))
    shows = "The responder commits to the key of the other direction."
    yield Case("hello/responder-direction", 5, shows, talk, "tampered")
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    talk.say(INITIATOR, talk.welcome[32:])
    shows = "The responder's commitment comes back to it."
    yield Case("hello/commitment-reflected", 5, shows, talk, "tampered")
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, changed(talk.welcome, 0))
    shows = "The responder's salt was changed on the way."
    yield Case("hello/welcome-salt", 5, shows, talk, "tampered")
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, changed(talk.welcome, 63))
    shows = "The last byte of the responder's commitment was changed."
    yield Case("hello/welcome-commitment", 5, shows, talk, "tampered")
    for name, at in {"salt": 0, "connection": 35}.items():
        talk = StreamTalk()
        hello = changed(talk.hello, at)
        salts = hello[:32] + SALTS[RESPONDER]
        number = int.from_bytes(hello[32:], "big")
        talk.say(INITIATOR, talk.preamble, hello)
        answer = talk.commitment(RESPONDER, salts=salts, connection=number)
        talk.say(RESPONDER, SALTS[RESPONDER] + answer)
        talk.say(INITIATOR, talk.commitment(INITIATOR))
        shows = f"The {name} in hello was changed on the way, and the responder has answered to it."
        yield Case(f"hello/hello-{name}", 5, shows, talk, "tampered")
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    talk.say(INITIATOR, changed(talk.commitment(INITIATOR), 0))
    shows = "The first byte of the initiator's commitment was changed."
    yield Case("hello/begin-commitment", 5, shows, talk, "tampered")

    talk = StreamTalk(3, used=(3,))
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    talk.say(INITIATOR, talk.commitment(INITIATOR))
    shows = "The initiator proves the key, and its number was used before."
    yield Case("hello/used", 5, shows, talk, "replayed")
    talk = StreamTalk(3, used=(3,))
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    talk.say(INITIATOR, changed(talk.commitment(INITIATOR), 0))
    shows = "A used number from somebody who does not prove the key: that is not a replay."
    yield Case("hello/used-unproved", 5, shows, talk, "tampered")

    shows = "The bytes stop within hello."
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello[:35])
    yield Case("hello/cut-in-hello", 5, shows, talk, "truncated")
    shows = "The bytes stop within welcome."
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome[:63])
    yield Case("hello/cut-in-welcome", 5, shows, talk, "truncated")
    shows = "The bytes stop within begin."
    talk = StreamTalk()
    talk.say(INITIATOR, talk.preamble, talk.hello)
    talk.say(RESPONDER, talk.welcome)
    talk.say(INITIATOR, talk.commitment(INITIATOR)[:31])
    yield Case("hello/cut-in-begin", 5, shows, talk, "truncated")


def good_records() -> Iterator[Case]:
    """Section 6: what is as it should be."""
    talk = StreamTalk().begin().data(INITIATOR, b"x").end()
    yield Case("records/one-byte", 6, "The smallest DATA.", talk)
    talk = StreamTalk().begin().data(RESPONDER, b"hello").end()
    yield Case("records/data-back", 6, "DATA from the responder.", talk)
    talk = StreamTalk().begin().data(INITIATOR, bytes(100), b"b", b"c" * 17).end()
    yield Case("records/several", 6, "Each record takes the next sequence number.", talk)
    talk = StreamTalk().begin()
    talk.record(INITIATOR, PING, b"12345678")
    talk.record(RESPONDER, PONG, b"12345678")
    yield Case("records/ping-pong", 6, "PING, and its answer.", talk.end())
    talk = StreamTalk().begin().data(INITIATOR, b"before")
    talk.record(INITIATOR, PING, bytes(8))
    talk.data(INITIATOR, b"behind")
    shows = "A PING takes a sequence number; END does not count it."
    yield Case("records/ping-between", 6, shows, talk.end())
    for code in (0, 0xFFFF):
        talk = StreamTalk().begin().data(INITIATOR, b"this counts")
        talk.record(INITIATOR, ABORT, code.to_bytes(2, "big"))
        shows = f"ABORT with code {code}: what came before it is good."
        yield Case(f"records/abort-{code}", 6, shows, talk, "aborted", valid=True)
    talk = StreamTalk().begin()
    talk.record(INITIATOR, ABORT, bytes(2))
    talk.say(INITIATOR, b"whatever")
    shows = "Bytes behind ABORT are not looked at."
    yield Case("records/behind-abort", 6, shows, talk, "aborted")
    talk = StreamTalk().begin()
    octets = b"".join(talk.sealers[INITIATOR].seal(DATA, part) for part in (b"ab", b"cd"))
    for part in (octets[:3], octets[3:20], octets[20:30], octets[30:]):
        talk.say(INITIATOR, part)
    talk.told(INITIATOR, "data", b"ab".hex())
    talk.told(INITIATOR, "data", b"cd".hex())
    shows = "Records that arrive in other pieces than they were sent in."
    yield Case("records/pieces", 6, shows, talk.end())
    for sequence in (0xFF, 0xFFFFFFFF):
        middle = MiddleTalk(sequence=sequence).data(INITIATOR, b"a", b"b").end(INITIATOR)
        shows = f"The sequence numbers {sequence} and {sequence + 1}."
        yield Case(f"records/sequence-{sequence}", 6, shows, middle)
    middle = MiddleTalk(sequence=(1 << 64) - 1).end(INITIATOR)
    yield Case("records/last-sequence", 6, "The last sequence number of all.", middle)


def bad_records() -> Iterator[Case]:
    """Section 6: what is wrong in a record."""
    forged = {
        "type-0": (0, b"", {}, "There is no type 0."),
        "type-7": (7, b"", {}, "There is no type 7."),
        "flags": (DATA, b"hello", {"flags": 1}, "This version has no flags."),
        "high-flag": (DATA, b"hello", {"flags": 0x80}, "This version has no flags, high ones too."),
        "epoch-ahead": (DATA, b"hello", {"epoch": 1}, "An epoch to which no REKEY has led."),
        "empty-data": (DATA, b"", {}, "DATA without payload."),
        "rekey-payload": (REKEY, b"x", {}, "REKEY with payload."),
        "end-15": (END, bytes(15), {}, "END with 15 bytes."),
        "end-17": (END, bytes(17), {}, "END with 17 bytes."),
        "abort-1": (ABORT, bytes(1), {}, "ABORT with one byte."),
        "abort-3": (ABORT, bytes(3), {}, "ABORT with three bytes."),
        "ping-7": (PING, bytes(7), {}, "PING with seven bytes."),
        "ping-9": (PING, bytes(9), {}, "PING with nine bytes."),
        "pong-0": (PONG, b"", {}, "PONG without payload."),
        "sequence-ahead": (DATA, b"hello", {"sequence": 1}, "Sealed with the next number."),
    }
    for name, (kind, payload, fields, shows) in forged.items():
        talk = StreamTalk().begin()
        talk.say(INITIATOR, talk.forge(INITIATOR, kind, payload, **fields))
        end = " Its tag is good." if name != "sequence-ahead" else ""
        yield Case(f"records/{name}", 6, shows + end, talk, "tampered")
    for name, length in {"length-0": 0, "length-15": 15, "length-over": MIB + 17}.items():
        talk = StreamTalk().begin()
        talk.say(INITIATOR, struct.pack(">BBHI", DATA, 0, 0, length))
        shows = f"DATA of {length} bytes with its tag: refused before anything else of it has come."
        yield Case(f"records/{name}", 6, shows, talk, "tampered")
    parts = {
        "type": (0, 2, "The type was changed: DATA became END."),
        "to-epoch": (3, 1, "The epoch was changed."),
        "to-length": (7, 1, "The length was changed: one byte less."),
        "to-ciphertext": (8, 1, "The first byte of the ciphertext was changed."),
        "to-tag": (-1, 0x80, "The last bit of the tag was changed."),
    }
    for name, (at, mask, shows) in parts.items():
        talk = StreamTalk().begin()
        size = 16 if name == "type" else 5
        record = talk.sealers[INITIATOR].seal(DATA, b"x" * size)
        talk.say(INITIATOR, changed(record, at, mask))
        yield Case(f"records/changed-{name.removeprefix('to-')}", 6, shows, talk, "tampered")
    talk = StreamTalk().begin()
    ping = talk.sealers[INITIATOR].seal(PING, bytes(8))
    talk.say(INITIATOR, changed(ping, 0, PING ^ PONG))
    yield Case(
        "records/ping-to-pong", 6, "A PING became a PONG: the type is covered.", talk, "tampered"
    )

    talk = StreamTalk().begin()
    one, two = (talk.sealers[INITIATOR].seal(DATA, part) for part in (b"one", b"two"))
    talk.say(INITIATOR, two, one)
    yield Case("records/swapped", 6, "Two records change places.", talk, "tampered")
    talk = StreamTalk().begin().data(INITIATOR, b"one")
    talk.say(INITIATOR, bytes.fromhex(talk.bytes[-1][1]))
    yield Case("records/repeated", 6, "A record comes twice.", talk, "tampered")
    talk = StreamTalk().begin()
    talk.sealers[INITIATOR].seal(DATA, b"lost")
    talk.say(INITIATOR, talk.sealers[INITIATOR].seal(DATA, b"next"))
    yield Case("records/left-out", 6, "A record is missing.", talk, "tampered")
    talk = StreamTalk().begin()
    talk.say(RESPONDER, talk.sealers[INITIATOR].seal(DATA, b"hello"))
    shows = "The initiator's record comes back to it."
    yield Case("records/reflected", 6, shows, talk, "tampered")
    talk = StreamTalk(4).begin()
    record = talk.sealers[INITIATOR].seal(DATA, b"hello")
    talk = StreamTalk(3).begin()
    talk.say(INITIATOR, record)
    shows = "A record of another connection of this session."
    yield Case("records/other-connection", 6, shows, talk, "tampered")
    for cut in (1, 7, 8, 28):
        talk = StreamTalk().begin().data(INITIATOR, b"one").end(RESPONDER)
        talk.say(INITIATOR, talk.sealers[INITIATOR].seal(DATA, b"hello")[:cut])
        shows = f"The bytes stop {cut} bytes into a record of 29."
        yield Case(f"records/cut-at-{cut}", 6, shows, talk, "truncated")


def rekeys() -> Iterator[Case]:
    """Section 6: epochs."""
    talk = StreamTalk().begin().data(INITIATOR, b"one").rekey(INITIATOR).data(INITIATOR, b"two")
    yield Case(
        "rekey/once", 6, "REKEY between two DATA; the sequence starts at 0 again.", talk.end()
    )
    talk = StreamTalk().begin().rekey(INITIATOR, INITIATOR).data(INITIATOR, b"epoch 2").end()
    yield Case("rekey/twice", 6, "Two REKEY in a row lead to epoch 2.", talk)
    talk = StreamTalk().begin().rekey(INITIATOR, RESPONDER, RESPONDER)
    talk.data(INITIATOR, b"epoch 1").data(RESPONDER, b"epoch 2").end()
    yield Case("rekey/both", 6, "Each direction has epochs of its own.", talk)
    talk = StreamTalk().begin().end(INITIATOR).rekey(INITIATOR)
    talk.record(INITIATOR, PONG, bytes(8))
    yield Case("rekey/behind-end", 6, "REKEY may follow END.", talk.end(RESPONDER))
    middle = MiddleTalk(epoch=65534).data(INITIATOR, b"a").rekey(INITIATOR).data(INITIATOR, b"b")
    yield Case("rekey/to-last", 6, "REKEY into the last epoch.", middle.end(INITIATOR))
    middle = MiddleTalk(epoch=256).data(INITIATOR, b"a").end(INITIATOR)
    yield Case("rekey/epoch-256", 6, "An epoch that takes two bytes.", middle)
    middle = MiddleTalk(used=(64 * GIB) - 3, octets=(64 * GIB) - 3, number=MIB)
    middle.data(INITIATOR, b"xyz").end(INITIATOR)
    yield Case("rekey/full-epoch", 6, "An epoch with exactly 64 GiB of payload.", middle)
    middle = MiddleTalk(used=64 * GIB, octets=64 * GIB, number=MIB).rekey(INITIATOR)
    middle.data(INITIATOR, b"xyz").end(INITIATOR)
    yield Case(
        "rekey/fresh-epoch", 6, "REKEY makes room again; END counts over all epochs.", middle
    )

    middle = MiddleTalk(used=(64 * GIB) - 3, octets=(64 * GIB) - 3, number=MIB)
    middle.say(INITIATOR, middle.sealers[INITIATOR].seal(DATA, b"wxyz"))
    shows = "An epoch with more than 64 GiB of payload: properly sealed, and not allowed."
    yield Case("rekey/overfull-epoch", 6, shows, middle, "protocol_violation")
    middle = MiddleTalk(epoch=65535)
    middle.say(INITIATOR, middle.forge(INITIATOR, REKEY, b""))
    yield Case("rekey/out-of-last", 6, "REKEY in the last epoch.", middle, "tampered")
    talk = StreamTalk().begin().rekey(INITIATOR)
    record = StreamTalk().begin().sealers[INITIATOR].seal(DATA, b"old key")
    talk.say(INITIATOR, record)
    yield Case(
        "rekey/old-epoch", 6, "A record of the epoch before, behind REKEY.", talk, "tampered"
    )
    talk = StreamTalk().begin().rekey(INITIATOR)
    old = StreamTalk().begin()
    talk.say(INITIATOR, old.forge(INITIATOR, DATA, b"old key", epoch=1))
    shows = "A record that says the new epoch and has the old key."
    yield Case("rekey/old-key", 6, shows, talk, "tampered")
    talk = StreamTalk().begin().rekey(INITIATOR)
    talk.say(INITIATOR, talk.forge(INITIATOR, DATA, b"one", sequence=1))
    shows = "A sequence number that was not set back to 0."
    yield Case("rekey/sequence-goes-on", 6, shows, talk, "tampered")
    talk = StreamTalk().begin()
    talk.sealers[INITIATOR].rekey()
    talk.say(INITIATOR, talk.sealers[INITIATOR].seal(DATA, b"one"))
    yield Case("rekey/left-out", 6, "The REKEY is missing.", talk, "tampered")
    talk = StreamTalk().begin().rekey(INITIATOR)
    talk.say(INITIATOR, bytes.fromhex(talk.bytes[-1][1]))
    yield Case("rekey/repeated", 6, "The REKEY comes twice.", talk, "tampered")
    talk = StreamTalk().begin().data(INITIATOR, b"one")
    talk.say(INITIATOR, changed(talk.sealers[INITIATOR].rekey(), -1))
    yield Case("rekey/changed", 6, "The tag of a REKEY was changed.", talk, "tampered")
    talk = StreamTalk().begin().rekey(INITIATOR).end(RESPONDER)
    yield Case("rekey/cut-behind", 6, "The bytes stop behind a REKEY.", talk, "truncated")


def ends() -> Iterator[Case]:
    """Section 6: END."""
    talk = StreamTalk().begin().data(INITIATOR, b"one", b"two!").rekey(INITIATOR)
    talk.data(INITIATOR, b"three").end()
    yield Case("end/totals", 6, "END counts bytes and DATA records over all epochs.", talk)
    talk = StreamTalk().begin().end(RESPONDER).data(INITIATOR, b"still here").end(INITIATOR)
    yield Case("end/half-closed", 6, "One direction has ended, the other goes on.", talk)
    for kind in (PING, PONG):
        talk = StreamTalk().begin().end(INITIATOR)
        talk.record(INITIATOR, kind, b"87654321")
        shows = f"{kind.name} may follow END."
        yield Case(f"end/then-{kind.name.lower()}", 6, shows, talk.end(RESPONDER))
    talk = StreamTalk().begin().end(INITIATOR)
    talk.record(INITIATOR, ABORT, b"\0\1")
    yield Case("end/then-abort", 6, "ABORT may follow END.", talk, "aborted", valid=True)

    wrong = {
        "bytes-short": ((4, 1), "END counts one byte too few."),
        "bytes-over": ((6, 1), "END counts one byte too many."),
        "records-short": ((5, 0), "END counts one record too few."),
        "records-over": ((5, 2), "END counts one record too many."),
        "swapped": ((1, 5), "Bytes and records have changed places."),
        "zero": ((0, 0), "END counts nothing, and there was something."),
    }
    for name, (totals, shows) in wrong.items():
        talk = StreamTalk().begin().data(INITIATOR, b"hello")
        talk.say(INITIATOR, talk.forge(INITIATOR, END, struct.pack(">QQ", *totals)))
        yield Case(f"end/{name}", 6, shows, talk, "tampered")
    talk = StreamTalk().begin().end(INITIATOR)
    talk.say(INITIATOR, talk.forge(INITIATOR, DATA, b"more"))
    yield Case("end/then-data", 6, "DATA behind END.", talk, "tampered")
    talk = StreamTalk().begin().end(INITIATOR)
    talk.say(INITIATOR, talk.forge(INITIATOR, END, bytes(16)))
    yield Case("end/then-end", 6, "A second END.", talk, "tampered")
    talk = StreamTalk().begin().data(INITIATOR, b"hello")
    talk.say(INITIATOR, changed(talk.sealers[INITIATOR].end(), 8))
    yield Case("end/changed", 6, "The totals were changed on the way.", talk, "tampered")

    talk = StreamTalk().begin()
    yield Case("end/none", 6, "The bytes stop behind the handshake.", talk, "truncated")
    talk = StreamTalk().begin().data(INITIATOR, b"hello").end(RESPONDER)
    yield Case("end/missing", 6, "The bytes stop between two records: no end.", talk, "truncated")
    talk = StreamTalk().begin().data(INITIATOR, b"hello").end(INITIATOR)
    yield Case("end/one-only", 6, "Only one direction has ended.", talk, "truncated")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from hellos()
    yield from good_records()
    yield from bad_records()
    yield from rekeys()
    yield from ends()
