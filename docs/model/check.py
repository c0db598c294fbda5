"""Check the model: every property in every scenario, and every planted flaw.

    python docs/model/check.py [--short] [--jobs N] [--only TEXT]

Explores all states of each scenario, breadth first, with the rules of protocol.maude, and asks each
state about each property of properties.maude. A flaw is searched until the first state in which the
property that it must break is broken; the way there is printed in words. The last line is one line
of JSON; the exit status is 0 only when everything came out as it should.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import multiprocessing
import re
import sys
import time
from pathlib import Path
from typing import Any

from scenarios import ALL, FLAWS, FRAMES, KEYS, PROPERTIES, SCENARIOS, Flaw, Scenario

HERE = Path(__file__).resolve().parent
#: Of the runs in one process.
NUMBERS = itertools.count()
#: What the attacker has at first: an ephemeral key, a salt, a frame, a Key B and an integrity key.
AT_FIRST = "mallory, public(mallory), salt-x, junk, key-b(nobody), integrity-key(nobody)"
#: What a view switches on, and how many connections a responder accepts on a hop in it.
VIEWS = {
    FRAMES: (set(), 2),
    KEYS: ({"no-frames", "any-choice"}, 1),
    ALL: ({"any-choice"}, 2),
}
#: Switches of protocol.maude that are not flaws.
SETTINGS = ("plan-changes", "no-frames", "any-choice")

#: Terms as a reader knows them.
WORDS = [
    (r"\(none\)\.\w+|\bnone\b", "no integrity key"),
    (r"key-b\(nobody\)", "the attacker's Key B"),
    (r"integrity-key\(nobody\)", "the attacker's integrity key"),
    (r"key-a\((\w+), any-role\)", r"the one Key A of \1"),
    (r"key-a\((\w+), ([\w-]+)\)", r"Key A of \1 for the \2"),
    (r"key-b\((\w+)\)", r"Key B of \1"),
    (r"integrity-key\((\w+)\)", r"the integrity key of \1"),
    (r"ours\((\w+), ([\w-]+)\)", r"[the job manager's, \1, \2]"),
    (r"theirs\((\w+), ([\w-]+), \d+\)", r"[the \2's, \1]"),
    (r"mallory", "[the attacker's]"),
    (r"salt-x", "[a salt of the attacker's]"),
    (r"salt-[ir]\((\w+), \(?([^,()]+?)\)?, (\w+)\)", r"[a salt of \2 in \1]"),
    (r"body\((\w+), 0, (\d+)\)", r"[frame \2 of \1 to the repository]"),
    (r"body\((\w+), 1, (\d+)\)", r"[frame \2 of \1 from the repository]"),
    (r"junk", "[the attacker's own frame]"),
    (r"plan\((\w+), (\w+)\)", r"a \1, \2"),
    (r"conn(\d)", r"connection number \1"),
    (r" ~> ", ">"),
]


@dataclasses.dataclass
class Outcome:
    """What came of a scenario.

    :ivar broken: the properties that are broken somewhere, each with the way there in words
    :ivar ended: sessions that could end well
    """

    states: int
    transitions: int
    seconds: float
    broken: dict[str, list[str]]
    ended: set[str]


def switches() -> list[str]:
    """The constants that a run must set."""
    return [flaw.switch for flaw in FLAWS] + list(SETTINGS)


def module_of(name: str, scenario: Scenario, flaw: str) -> str:
    """The Maude module of one run."""
    view, callees = VIEWS[scenario.view]
    on = {flaw, *scenario.switches} | view
    callees = max(callees, scenario.connections)
    lines = [f"mod {name} is", "  including PROPERTIES ."]
    lines += [f"  eq {switch} = {str(switch in on).lower()} ." for switch in switches()]
    lines += [f"  eq lost({session}, {role}) = true ." for session, role in scenario.lost]
    lines += [f"  eq foreign({session}) = true ." for session in scenario.foreign]
    lines += ["  eq lost(S:Session, R:Role) = false [owise] ."]
    lines += ["  eq foreign(S:Session) = false [owise] ."]
    lines += [f"  eq callees = {callees} .", f"  eq callers = {scenario.connections} .", "endm"]
    return "\n".join(lines)


@functools.cache
def loaded() -> Any:
    """Maude, with the model in it."""
    import maude

    maude.init()
    for name in ("attacker", "protocol", "properties"):
        if not maude.load(str(HERE / f"{name}.maude")):
            raise SystemExit(f"{name}.maude cannot be read")
    return maude


class Exploration:
    """All states of one scenario, breadth first."""

    def __init__(self, scenario: Scenario, flaw: str) -> None:
        maude = loaded()
        name = f"RUN-{next(NUMBERS)}"
        maude.input(module_of(name, scenario, flaw))
        self._module = maude.getModule(name)
        starts = " . ".join(scenario.starts)
        first = self._module.parseTerm(f"before(({AT_FIRST}), {starts}) {scenario.things}")
        if first is None:
            raise SystemExit(f"the scenario {scenario.name!r} cannot be read")
        self._graph = maude.RewriteGraph(first)
        symbols = {str(symbol): symbol for symbol in self._module.getSymbols()}
        self._bad, self._done = symbols["bad"], symbols["done"]
        self._properties = {name: self._module.parseTerm(name) for name in PROPERTIES}
        self._sessions = {
            name: self._module.parseTerm(name) for name in scenario.sessions_that_can_end_well()
        }

    def _is(self, symbol: Any, name: Any, state: Any) -> bool:
        question = symbol.makeTerm([name, state])
        question.reduce()
        return str(question) == "true"

    def run(self, until: str = "") -> Outcome:
        """Explore.

        :param until: stop where this property is broken
        """
        began = time.monotonic()
        graph = self._graph
        broken: dict[str, list[str]] = {}
        ended: set[str] = set()
        parents = {0: -1}
        queue = [0]
        transitions = 0
        for number in queue:
            state = graph.getStateTerm(number)
            for name, term in self._properties.items():
                if name not in broken and self._is(self._bad, term, state):
                    broken[name] = self._way(parents, number)
            for name, term in self._sessions.items():
                if name not in ended and self._is(self._done, term, state):
                    ended.add(name)
            if until in broken:
                break
            index = 0
            while (following := graph.getNextState(number, index)) >= 0:
                index += 1
                if following not in parents:
                    parents[following] = number
                    queue.append(following)
            transitions += index
        return Outcome(len(queue), transitions, time.monotonic() - began, broken, ended)

    def _way(self, parents: dict[int, int], number: int) -> list[str]:
        """The steps to a state, each as a sentence with its section."""
        states = [number]
        while (number := parents[number]) >= 0:
            states.append(number)
        states.reverse()
        return [self._step(a, b) for a, b in itertools.pairwise(states)]

    def _step(self, before: int, after: int) -> str:
        wanted = self._graph.getStateTerm(after)
        label = self._graph.getRule(before, after).getLabel()
        for result, values, _context, rule in self._graph.getStateTerm(before).apply(label):
            result.reduce()
            if result == wanted:
                sections, _, sentence = rule.getMetadata().strip('"').partition("|")
                for name in set(re.findall(r"\{([^}]+)\}", sentence)):
                    sentence = sentence.replace(f"{{{name}}}", in_words(str(values.find(name))))
                return f"(section{'s' * (',' in sections)} {sections}) {sentence}"
        raise AssertionError(f"no application of {label} leads from {before} to {after}")


def in_words(text: str) -> str:
    """A term as a reader knows it."""
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text)
    return text


def explore(job: tuple[Scenario, str, str]) -> Outcome:
    """One run; in the long form in a process of its own, whose memory goes with it."""
    scenario, flaw, until = job
    return Exploration(scenario, flaw).run(until)


def tell(*lines: str) -> None:
    """Print now."""
    print("\n".join(lines), flush=True)


def way(outcome: Outcome, flaw: Flaw) -> list[str]:
    """A flaw's trace."""
    steps = outcome.broken[flaw.broken]
    lines = [f"    {number}. {step}" for number, step in enumerate(steps, 1)]
    return [*lines, f"    So {flaw.means}."]


def check(short: bool, jobs: int, only: str) -> dict[str, Any]:
    """Run everything and say what came of it; the result is the last line."""
    began = time.monotonic()
    scenarios = [s for s in SCENARIOS if (s.short or not short) and only in s.name]
    flaws = [flaw for flaw in FLAWS if only in flaw.switch]
    runs = [(scenario, "", "") for scenario in scenarios]
    runs += [(flaw.scenario, flaw.switch, flaw.broken) for flaw in flaws]
    held = dict.fromkeys(PROPERTIES, True)
    states = 0
    wrong: list[str] = []
    found: dict[str, Any] = {}
    with multiprocessing.get_context("spawn").Pool(
        jobs, maxtasksperchild=None if short else 1
    ) as pool:
        outcomes = pool.imap(explore, runs)
        if scenarios:
            tell("Every property in every scenario", "")
        for scenario, outcome in zip(scenarios, outcomes, strict=False):
            states += outcome.states
            late = scenario.sessions_that_can_end_well() - outcome.ended
            hold = len(PROPERTIES) - len(outcome.broken)
            verdict = f"{hold} of {len(PROPERTIES)} properties hold"
            if late:
                verdict += f"; NEVER ENDS WELL: {', '.join(sorted(late))}"
            tell(
                f"* {scenario.name} ({scenario.view})",
                f"    {verdict}; {outcome.states} states, {outcome.transitions} transitions, "
                f"{outcome.seconds:.1f} s",
            )
            for name, steps in outcome.broken.items():
                held[name] = False
                tell(f"    BROKEN {name}: {PROPERTIES[name]}")
                tell(*(f"    {number}. {step}" for number, step in enumerate(steps, 1)))
            if late or outcome.broken:
                wrong.append(scenario.name)
        if flaws:
            tell("", "Every planted flaw", "")
        for flaw, outcome in zip(flaws, outcomes, strict=True):
            states += outcome.states
            name = flaw.switch or "two secrets at once"
            tell(f"* {name}: {flaw.text} ({flaw.scenario.name})")
            if flaw.broken in outcome.broken:
                steps = len(outcome.broken[flaw.broken])
                tell(f"    breaks {flaw.broken} in {steps} steps, {outcome.states} states:")
                tell(*way(outcome, flaw))
                found[name] = {"breaks": flaw.broken, "steps": steps, "states": outcome.states}
            else:
                tell(f"    NOT FOUND: {flaw.broken} holds in all of {outcome.states} states")
                wrong.append(name)
    return {
        "form": "short" if short else "long",
        "scenarios": len(scenarios),
        "states": states,
        "properties_held": sum(held.values()),
        "properties": len(held),
        "flaws_found": len(found),
        "flaws": len(flaws),
        "found": found,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Check the model of the key exchange.")
    parser.add_argument("--short", action="store_true", help="under a minute")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--only", default="", help="only what has this in its name")
    options = parser.parse_args()
    result = check(options.short, options.jobs, options.only)
    tell("", json.dumps(result))
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
