"""Makes the vectors: the files in the folders beside this module.

They are the same at each run, and a test compares. To write them again after a change::

    python -m tests.vectors.generate

in the root of the repository. A vector that is published does not change its meaning: what was
wrong is replaced under another name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.vectors import first_cases, frame_cases, stream_cases

HERE = Path(__file__).resolve().parent


def vectors() -> Iterator[dict[str, Any]]:
    """All vectors."""
    for module in (first_cases, stream_cases, frame_cases):
        for case in module.cases():
            yield case.as_json()


def text(vector: dict[str, Any]) -> str:
    """A vector as its file has it: one line for each thing that was said, or is to be read."""
    lines = []
    for name, value in vector.items():
        if name == "bytes":
            lines.append(f'"bytes": {listed(value)}')
        elif name == "outcome":
            events, error = listed(value["events"]), json.dumps(value["error"])
            lines.append(f'"outcome": {{"error": {error}, "events": {events}}}')
        elif isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value[key])}" for key in value)
            lines.append(f"{json.dumps(name)}: {{\n{inner}\n }}")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def listed(values: list[Any]) -> str:
    """A list with one member to a line."""
    inner = ",\n".join(f"  {json.dumps(value)}" for value in values)
    return f"[\n{inner}\n ]" if values else "[]"


def files(root: Path = HERE) -> dict[str, str]:
    """The text of each vector's file, by its name."""
    return {
        path.relative_to(root).with_suffix("").as_posix(): path.read_text("ascii")
        for path in sorted(root.glob("*/*.json"))
    }


def write() -> int:
    """Write all files anew, and return how many."""
    made = list(vectors())
    names = [vector["name"] for vector in made]
    if len(set(names)) != len(names):
        raise ValueError(f"twice: {sorted({name for name in names if names.count(name) > 1})}")
    for folder in {name.partition("/")[0] for name in [*files(), *names]}:
        shutil.rmtree(HERE / folder, ignore_errors=True)
    for vector in made:
        path = HERE / f"{vector['name']}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(vector), "ascii")
    return len(made)


if __name__ == "__main__":
    print(write(), "vectors")
