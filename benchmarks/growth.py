"""How a backup and a restore grow with what they are of: bytes, and files.

Two rows of sizes: one file of 1, 2, 4 and 8 GB that cannot be compressed and has no chunk twice,
and trees of 10,000, 100,000 and 500,000 small files. Each size has a fresh provider (under
``twist``) and a fresh tenant, processes of their own that talk over loopback: a first backup, a
second one of the unchanged source, and a restore of everything. For each: wall time, CPU seconds
and peak memory of both sides. ``benchmarks/size.py`` has the sides, and larger sizes.

    python benchmarks/growth.py                                   # 24 GB of disk
    python benchmarks/growth.py --data 1,2 --files 10000,50000

The last line is one JSON object, with the growth of each figure: how many times more for how many
times more, from the smallest to the largest (1: linear, or better below it).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from size import FILES_IN_FOLDER, PLACE, Provider, Tenant, age, make_data, make_tree

#: What is compared: wall seconds, and both sides' CPU seconds.
_TIMES = ("wall", "cpu")


def measure(folder: Path, files: int, gigabytes: float) -> dict[str, Any]:
    """One size: what each of three commands took."""
    home, tree, target = folder / "home", folder / "tree", folder / "restored"
    home.mkdir()
    tree.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("CLOUDCONNECT_", "XDG_"))},
        "HOME": str(home),
        "CLOUDCONNECT_HOST": "benchmark",
        "TMPDIR": str(folder),
    }
    if gigabytes:
        make_data(tree / "data", int(gigabytes * 1e9))
    else:
        make_tree(tree, files, FILES_IN_FOLDER)
    provider = Provider(folder, environment)
    tenant = Tenant(folder, provider, environment)
    rows: dict[str, Any] = {}
    steps = (
        ("connect", ("connect", PLACE)),
        ("first", ("backup", str(tree))),
        ("unchanged", ("backup", str(tree))),
        ("restore", ("restore", "latest", "--target", str(target))),
    )
    for name, words in steps:
        if name == "first":
            age(tree)
        with provider.running() as port:
            tenant.at(port)
            row = tenant.run(name, *(f"localhost:{port}" if w is PLACE else w for w in words))
        row["cpu"] = round(row["tenant_cpu"] + row["provider_cpu"], 2)
        rows[name] = row
    del rows["connect"]
    return rows


def exponent(sizes: list[float], rows: list[dict[str, Any]], step: str, figure: str) -> float:
    """The power of the size with which a figure grows, from the first to the last size."""
    first, last = rows[0][step][figure], rows[-1][step][figure]
    return round(math.log(max(last, 0.01) / max(first, 0.01)) / math.log(sizes[-1] / sizes[0]), 2)


def table(unit: str, sizes: list[float], rows: list[dict[str, Any]]) -> str:
    """One row of sizes for people."""
    lines = [
        f"| {unit} | command | wall s | CPU s, tenant; provider | peak MiB, tenant; provider |",
        "|---|---|---|---|---|",
    ]
    for size, row in zip(sizes, rows, strict=True):
        for step, took in row.items():
            lines.append(
                f"| {size:g} | {step} | {took['wall']} | {took['tenant_cpu']}; "
                f"{took['provider_cpu']} | {took['tenant_mib']:.0f}; {took['provider_mib']:.0f} |"
            )
    return "\n".join(lines)


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(word) for word in text.split(",") if word]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=numbers, default="1,2,4,8", help="GB (default 1,2,4,8)")
    parser.add_argument("--files", type=numbers, default="10000,100000,500000", help="of files")
    parser.add_argument("--directory", type=Path, help="where (default the system's)")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    }
    for unit, sizes in (("GB", arguments.data), ("files", arguments.files)):
        rows = []
        for size in sizes:
            print(f"--- {size:g} {unit}", file=sys.stderr, flush=True)
            folder = Path(tempfile.mkdtemp(prefix="cloudconnect-growth-", dir=arguments.directory))
            try:
                data, files = (size, 1) if unit == "GB" else (0, int(size))
                rows.append(measure(folder, files, data))
            finally:
                shutil.rmtree(folder)
        if not rows:
            continue
        print(table(unit, sizes, rows), flush=True)
        report[unit] = dict(zip(map(str, sizes), rows, strict=True))
        if len(sizes) > 1:
            report[f"growth with {unit}"] = {
                step: {figure: exponent(sizes, rows, step, figure) for figure in _TIMES}
                for step in rows[0]
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
