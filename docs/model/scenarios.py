"""What is run: scenarios in which every property must hold, and flaws that must be found.

A scenario is two sessions, who the attacker is besides the network and the gateways, and which of
two views is taken (README.rst says why there are two):

* *frames*: from Start to accepted frames; a responder accepts two connections; what the attacker
  makes itself, it makes with a salt and an ephemeral key of its own.
* *keys*: from Start to streams that are up; one connection; what it makes, it makes with anybody's.
* *all*: both at once.
"""

from __future__ import annotations

import dataclasses

FRAMES, KEYS, ALL = "frames", "keys", "all"

#: The properties, as the modules name them, and in words what it means that one is broken.
PROPERTIES = {
    "secret-key-a": "the attacker has a Key A that is not its own",
    "secret-key-b": "the attacker has Key B, or has read a frame",
    "secret-integrity-key": "the attacker has the integrity key",
    "agreement": "somebody is sure of a peer that differs in session, tenant, role, plan or Key B",
    "no-replay": "a first message, a connection's number or a frame was accepted twice",
    "forward-secrecy": "Key A leaked afterwards, and Key B or a frame with it",
    "no-unknown-key-share": "two ends share a key and disagree on whose it is",
    "accelerator": "somebody passed for the target mover, or a frame was taken that no mover wrote",
    "one-hop-one-key": "one record key serves two hops",
    "one-direction-one-key": "one record key serves two connections, or both directions, of a hop",
}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Two sessions and an attacker.

    :ivar starts: the Starts, as the term that `before` takes
    :ivar lost: (session, role): the attacker is this role; has its state, or poses as it on the LAN
    :ivar foreign: sessions whose tenant's side is the attacker
    :ivar things: what else is in the state at first: a Key A that will leak
    :ivar connections: that an honest initiator opens on a hop, 1 or 2
    :ivar switches: constants of protocol.maude that are true
    :ivar short: whether the short form runs it, too
    """

    name: str
    starts: tuple[str, ...]
    lost: tuple[tuple[str, str], ...] = ()
    foreign: tuple[str, ...] = ()
    things: str = "none"
    switches: tuple[str, ...] = ()
    view: str = FRAMES
    connections: int = 1
    short: bool = False

    def sessions_that_can_end_well(self) -> set[str]:
        """Those of honest tenants and movers: it must be possible that both movers take a frame."""
        sessions = {start.partition("(")[2].partition(",")[0] for start in self.starts}
        movers = {s for s, role in self.lost if role in ("source-mover", "target-mover")}
        return sessions - set(self.foreign) - movers if self.view != KEYS else set()


@dataclasses.dataclass(frozen=True)
class Flaw:
    """A change for the worse, and the property that it must break.

    :ivar asked: one of the eight that the project asked for; the others are ours
    :ivar means: what the trace comes to, in words
    """

    switch: str
    text: str
    broken: str
    scenario: Scenario
    means: str
    asked: bool = True


def _start(session: str, tenant: str, channel: str, kind: str, way: str) -> str:
    return f"start({session}, {tenant}, {channel}, plan({kind}, {way}))"


_DIRECT = _start("s1", "alice", "c1", "backup", "direct")
_WAN = _start("s1", "alice", "c1", "backup", "accelerated")
_BOB = _start("s2", "bob", "c2", "restore", "direct")
_BOB_WAN = _start("s2", "bob", "c2", "restore", "accelerated")
_AGAIN = _start("s2", "alice", "c1", "restore", "direct")
_AGAIN_WAN = _start("s2", "alice", "c1", "restore", "accelerated")
_THIRD = _start("s3", "alice", "c1", "restore", "direct")
_FALSE_ALICE = _start("s2", "alice", "c2", "restore", "direct")

_TW, _SW = ("s1", "target-wan"), ("s1", "source-wan")
_LEAK, _LEAK_WAN = "leak(s1, target-mover)", "leak(s1, target-wan)"
_LEAK_NOW = "leak-now(s1, target-mover)"


def _scenarios() -> list[Scenario]:
    both = [
        # (name, Starts, foreign, short)
        ("alice and bob, direct", (_DIRECT, _BOB), (), True),
        ("alice accelerated, bob direct", (_WAN, _BOB), (), False),
        ("alice twice on one channel", (_DIRECT, _AGAIN), (), True),
        ("alice accelerated and direct on one channel", (_WAN, _AGAIN), (), False),
        ("bob is the attacker, alice direct", (_DIRECT, _BOB), ("s2",), True),
        ("bob is the attacker, alice accelerated", (_WAN, _BOB), ("s2",), False),
        ("alice's credential leaked", (_DIRECT, _FALSE_ALICE), ("s2",), True),
        ("alice's credential leaked, she is accelerated", (_WAN, _FALSE_ALICE), ("s2",), False),
        ("three sessions: alice, bob, alice again", (_DIRECT, _BOB, _THIRD), (), False),
        ("three sessions: bob is the attacker in one", (_DIRECT, _BOB, _THIRD), ("s2",), False),
    ]
    found = [
        Scenario(f"{name}", starts, foreign=foreign, view=view, short=short)
        for name, starts, foreign, short in both
        for view in (FRAMES, KEYS)
    ]
    for name, starts, foreign, short in both[:2] + both[4:6]:
        text = f"{name}; Key A of the mover leaks after the session"
        found.append(Scenario(text, starts, foreign=foreign, things=_LEAK, short=short))
        found.append(Scenario(text, starts, foreign=foreign, things=_LEAK, view=KEYS))
        text = f"{name}; Key A of the mover leaks at any moment"
        found.append(Scenario(text, starts, foreign=foreign, things=_LEAK_NOW))
    name, starts, foreign, _ = both[5]
    text = f"{name}; Key A of the accelerator leaks after the session"
    found.append(Scenario(text, starts, foreign=foreign, things=_LEAK_WAN))
    found += [
        Scenario(
            "alice accelerated; the target accelerator is the attacker", (_WAN,), (_TW,), view=v
        )
        for v in (FRAMES, KEYS)
    ]
    found += [
        Scenario("alice and bob, both accelerated", (_WAN, _BOB_WAN)),
        Scenario("alice twice accelerated on one channel", (_WAN, _AGAIN_WAN), view=KEYS),
        Scenario(
            "both accelerated; their target accelerator is the attacker",
            (_WAN, _BOB_WAN),
            (_TW, ("s2", "target-wan")),
        ),
        Scenario(
            "both accelerated; bob and his accelerator are the attacker",
            (_WAN, _BOB_WAN),
            (_TW, ("s2", "target-wan")),
            ("s2",),
        ),
    ]
    for role, lost in (("target", (_TW,)), ("source", (_SW,))):
        text = f"bob and alice's {role} accelerator are the attacker"
        found.append(Scenario(text, (_WAN, _BOB), lost, ("s2",), short=True))
        found.append(Scenario(text, (_WAN, _BOB), lost, ("s2",), view=KEYS))
    text = "bob and both of alice's accelerators are the attacker"
    found.append(Scenario(text, (_WAN, _BOB), (_TW, _SW), ("s2",)))
    two = [
        # (name, Starts, lost, foreign)
        ("alice and bob, direct", (_DIRECT, _BOB), (), ()),
        ("bob is the attacker, alice direct", (_DIRECT, _BOB), (), ("s2",)),
        ("alice accelerated", (_WAN,), (), ()),
        ("alice accelerated; the target accelerator is the attacker", (_WAN,), (_TW,), ()),
        ("alice accelerated; the source accelerator is the attacker", (_WAN,), (_SW,), ()),
    ]
    found += [
        Scenario(f"{name}; two connections on each hop", starts, lost, foreign, connections=2)
        for name, starts, lost, foreign in two
    ]
    text = "alice accelerated; both accelerators are the attacker"
    found.append(Scenario(text, (_WAN,), (_TW, _SW), view=ALL, short=True))
    found += [
        Scenario(name, starts, lost, foreign, view=ALL)
        for name, starts, lost, foreign in two
        if lost != (_SW,)
    ]
    for role in ("target-mover", "source-mover"):
        text = f"the LAN key of alice's {role} leaked before s1, after the Start of s2"
        lost = (("s1", role),)
        found.append(Scenario(f"{text}; direct", (_DIRECT, _BOB), lost, short=True))
        found.append(Scenario(f"{text}; s1 accelerated", (_WAN, _BOB), lost))
        found.append(Scenario(f"{text}; direct", (_DIRECT, _BOB), lost, view=KEYS))
    found.append(
        Scenario(
            "alice and bob, direct; somebody behind TLS may change the plan",
            (_DIRECT, _BOB),
            switches=("plan-changes",),
            short=True,
        )
    )
    found.append(
        Scenario(
            "alice accelerated, bob direct; somebody behind TLS may change the plan",
            (_WAN, _BOB),
            switches=("plan-changes",),
        )
    )
    return found


SCENARIOS = _scenarios()

_ALICE = Scenario("alice, direct", (_DIRECT,))
_ALICE_WAN = Scenario("alice, accelerated", (_WAN,))
_ALICE_LEAK = Scenario("alice, direct; Key A leaks after the session", (_DIRECT,), things=_LEAK)
_ALICE_TW = Scenario("alice; the target accelerator is the attacker", (_WAN,), (_TW,))
#: More than is promised, and holds: two secrets at once.
_TWO = dataclasses.replace(
    _ALICE_TW,
    name="the target accelerator is the attacker, and Key A of the mover leaks",
    things=_LEAK,
    short=True,
)
SCENARIOS.append(_TWO)

FLAWS = [
    Flaw(
        "one-key-a",
        "one Key A for all roles, and one exporter",
        "accelerator",
        dataclasses.replace(_ALICE_TW, switches=("one-exporter",)),
        "alice's job manager is sure of the target mover, and speaks with the accelerator",
    ),
    Flaw(
        "no-exporter",
        "no exporter in the prologue",
        "agreement",
        _ALICE_LEAK,
        "a Key A that leaked unused is enough: the mover serves the attacker as alice",
    ),
    Flaw(
        "reusable-key-a",
        "Key A reusable",
        "no-replay",
        _ALICE,
        "the mover takes the same first message a second time",
    ),
    Flaw(
        "no-confirmation",
        "no key confirmation",
        "agreement",
        _ALICE,
        "the job manager goes on, and the mover has no Key B",
    ),
    Flaw(
        "raw-key-b",
        "Key B used raw on two hops",
        "one-hop-one-key",
        _ALICE_WAN,
        "two hops have one key, and the same nonces under it",
    ),
    Flaw(
        "plan-unbound",
        "plan not bound",
        "agreement",
        dataclasses.replace(_ALICE, switches=("plan-changes",)),
        "alice asked for a backup, and the mover was told of a restore",
    ),
    Flaw(
        "gateway-ends-tls",
        "gateway ends TLS",
        "secret-key-b",
        _ALICE,
        "the gateway has Key A and both exporters, answers the tunnel, and is given Key B",
    ),
    Flaw(
        "tags-from-key-b",
        "frame tags under a key from Key B",
        "accelerator",
        _ALICE_TW,
        "the accelerator, which holds Key B, has written a frame that the mover accepts",
    ),
    Flaw(
        "counter-per-connection",
        "frames counted for each connection, not for the stream",
        "no-replay",
        _ALICE_TW,
        "the accelerator opens a second connection and sends the same frame again",
        asked=False,
    ),
    Flaw(
        "connection-reusable",
        "a connection's number may come again",
        "no-replay",
        _ALICE_TW,
        "two streams with one number are up",
        asked=False,
    ),
    Flaw(
        "no-ephemeral",
        "no ephemeral exchange in the tunnel",
        "forward-secrecy",
        _ALICE_LEAK,
        "the recorded tunnel opens with Key A",
        asked=False,
    ),
    Flaw(
        "no-context",
        "record keys not bound to session, tenant, route and hop",
        "no-unknown-key-share",
        dataclasses.replace(_ALICE_TW, view=KEYS),
        "by its choice of salts the accelerator gives two hops one key",
        asked=False,
    ),
    Flaw(
        "one-exporter",
        "one exporter for all roles",
        "agreement",
        _TWO,
        "the accelerator's package holds the same exporter as the mover's",
        asked=False,
    ),
]
