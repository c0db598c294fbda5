"""What the collection of garbage costs: time of each step, and the memory of its whole process.

A repository is made whose catalogue says that it holds so many blobs of the usual size (3.2 million
are 200 GB), in packs that are not there: nobody reads their bytes. One restore point needs all of
them, a thousand need 3,000 each. It is collected twice, each time by a process of its own: once
with everything needed, and once, two days later, when the large point is gone and more than half of
the blobs with it. The last line is one JSON object.

    python benchmarks/collect.py
    python benchmarks/collect.py --blobs 200000 --points 100
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.points import PointRecord
from cloudconnect.keys import MasterKey
from cloudconnect.repository.packs import ENTRY_SIZE, PACK_SIZE
from cloudconnect.repository.points import insert_point, point_values
from cloudconnect.repository.references import references_name
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import packs_table, points_table

#: The process may not need more, in MiB.
BOUND_MIB = 300
CHUNK = 64 << 10
REPOSITORY = b"r" * 16
MASTER = MasterKey(b"m" * 32)
LARGE = b"L" * 16
BEGAN = 1_700_000_000.0
DAY = 86400.0
ROWS = 20_000
COLUMNS = (
    "id",
    "pack",
    '"offset"',
    "stored_length",
    "plain_length",
    "coding",
    "kind",
    "digest",
    "damaged",
    "condemned",
)


def blob_id(number: int, blobs: int) -> bytes:
    """Ids in the order of their numbers, random otherwise."""
    tail = hashlib.sha256(number.to_bytes(8, "big")).digest()
    return (number * ((1 << 64) // blobs)).to_bytes(8, "big")[:4] + tail[:28]


def pack_of(number: int, packs: int) -> int:
    """A pack's blobs lie all over the index."""
    return number * 2_654_435_761 % packs + 1


def make(directory: Path, blobs: int, points: int, references: int) -> None:
    """Make the repository."""
    packs = max(2, blobs * (CHUNK + ENTRY_SIZE) // PACK_SIZE)
    description = describe(MASTER, REPOSITORY, EncryptionMode.TENANT, ())
    with Repository.create(directory, description, clock=lambda: BEGAN) as repository:
        catalogue = repository.catalogue
        each = blobs // packs
        with catalogue.writing() as connection:
            rows = [
                {
                    "name": f"packs/{number:032x}",
                    "size": (each + 1) * (CHUNK + ENTRY_SIZE),
                    "blobs": each + 1,
                    "plain_length": each * CHUNK,
                    "arrival_time": BEGAN,
                }
                for number in range(1, packs + 1)
            ]
            connection.execute(sa.insert(packs_table), rows)
        marks = ", ".join("?" * len(COLUMNS))
        insert = f"INSERT INTO blobs ({', '.join(COLUMNS)}) VALUES ({marks})"
        for start in range(0, blobs, ROWS):
            numbers = range(start, min(blobs, start + ROWS))
            with catalogue.writing() as connection:
                rows_of = [row(number, blobs, packs) for number in numbers]
                connection.exec_driver_sql(insert, rows_of)
        chosen = random.Random(1)
        for number in range(points):
            ids = (blob_id(chosen.randrange(blobs // 2) * 2, blobs) for _ in range(references))
            publish(repository, number.to_bytes(16, "big"), ids)
        publish(repository, LARGE, (blob_id(number, blobs) for number in range(blobs)))


def row(number: int, blobs: int, packs: int) -> tuple[Any, ...]:
    """The row of a blob; those with odd numbers lie in packs of their own."""
    pack = pack_of(number // 2, packs // 2) * 2 - number % 2
    return blob_id(number, blobs), pack, 115, CHUNK, CHUNK, 0x10, 0, bytes(32), 0, 0


def publish(repository: Repository, point: bytes, ids: Iterator[bytes]) -> None:
    """A restore point that needs ``ids``, without asking whether they are there."""
    keys = RepositoryKeys(MASTER, REPOSITORY, EncryptionMode.TENANT)
    record = PointRecord(
        point=point,
        repository=REPOSITORY,
        session=b"s" * 16,
        job_id=b"j" * 16,
        host="host",
        job="job",
        started_ns=1,
        finished_ns=2,
        mode=EncryptionMode.TENANT,
        manifest=(),
        manifest_length=0,
    )
    digest, count = hashlib.sha256(), 0

    def parts() -> Iterator[bytes]:
        nonlocal count
        for name in ids:
            digest.update(name)
            count += 1
            yield name

    repository.store.put(references_name(point), parts())
    encoded = record.encode()
    values = point_values(record, encoded, keys.sign(encoded), count, digest.digest(), BEGAN)
    repository.store.put(f"points/{point.hex()}", [b"not looked at"])
    with repository.catalogue.writing() as connection:
        insert_point(connection, values)


def collect(directory: Path, days: float) -> None:
    """Collect once, in this process, and print its figures."""
    steps: dict[str, float] = {}
    last = ["begin", time.perf_counter()]

    def progress(step: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if step != last[0]:
            steps[str(last[0])] = now - float(last[1])
            last[:] = [step, now]

    before = peak_mib()
    with Repository.open(directory, clock=lambda: BEGAN + days * DAY, lease=False) as repository:
        began, busy = time.perf_counter(), time.process_time()
        result = repository.collect(progress)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
    progress("end", 0, 0)
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "cpu_seconds": round(busy, 1),
                "steps": {name: round(value, 1) for name, value in steps.items()},
                "points": result.points,
                "blobs": result.blobs,
                "condemned": result.condemned,
                "deleted": result.deleted,
                "packs_removed": result.packs_removed,
                "notes": len(result.notes),
                "rss_mib_begin": round(before),
                "rss_mib": round(peak_mib()),
            }
        )
    )


def peak_mib() -> float:
    """The most memory that this process has needed so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def collected(directory: Path, days: float) -> dict[str, Any]:
    """A collection in a process of its own."""
    command = [sys.executable, __file__, "--inside", str(directory), "--days", str(days)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def main() -> None:
    """Make, collect twice, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blobs", type=int, default=3_200_000)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--references", type=int, default=3000)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--days", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        collect(options.inside, options.days)
        return
    with tempfile.TemporaryDirectory(prefix="cloudconnect-") as folder:
        directory = Path(folder) / "repository"
        began = time.perf_counter()
        make(directory, options.blobs, options.points, options.references)
        made = time.perf_counter() - began
        size = (directory / "catalogue.sqlite").stat().st_size
        print(f"made {options.blobs} blobs, {size >> 20} MiB of catalogue, in {made:.0f} s")
        needed = collected(directory, 0.0)
        print("everything needed:", json.dumps(needed))
        where = points_table.c.point == LARGE.hex()
        with (
            Repository.open(directory, lease=False) as repository,
            repository.catalogue.writing() as connection,
        ):
            connection.execute(sa.update(points_table).where(where).values(state="withdrawn"))
        half = collected(directory, 2.0)
        print("more than half not needed:", json.dumps(half))
    peak = max(needed["rss_mib"], half["rss_mib"])
    figures = {
        "blobs": options.blobs,
        "catalogue_mib": size >> 20,
        "needed": needed,
        "half": half,
        "peak_rss_mib": peak,
        "bound_mib": BOUND_MIB,
        "good": peak < BOUND_MIB,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
