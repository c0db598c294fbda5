"""What a backup of very many files, and a repository of very many chunks, cost in memory.

The provider (under ``twist``) and each of the tenant's commands are processes of their own, which
talk over loopback. First a tree of small files is made, then it is backed up twice, and once more
after a change in each folder, looked at by a restore's dry run, and a part of it is restored. Peak
memory of a command is the kernel's
``ru_maxrss`` of its process; that of the provider is its ``VmHWM``, which is set back before each
command. The last line is one JSON object.

    python benchmarks/size.py                              # a million files
    python benchmarks/size.py --chunks 3200000 --collect   # and 200 GB of chunks in the index
    python benchmarks/size.py --flat                       # all in one folder
    python benchmarks/size.py --links 1000000              # as many hard links to them
    python benchmarks/size.py --files 1000 --image 200     # a sparse image of 200 GB
    python benchmarks/size.py --files 1000 --data 10       # 10 GB of data, all new
    python benchmarks/size.py --files 1000 --pieces 1000000    # a file of two million runs

The chunks are rows of the catalogue, a restore point that needs all of them, and a large file of
the tree that the tenant's cache of unchanged files takes for theirs. There are no packs behind
them, so nobody can read them, but backups and the collection of garbage treat them like any.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Neither side may need more, in MiB.
BOUND_MIB = 300
#: Files in a folder, and folders in a folder.
FILES_IN_FOLDER = 500
FOLDERS_IN_FOLDER = 100
#: Bytes of a file: from the one to the other.
SIZES = (100, 2000)
MIB = 1 << 20
#: Bytes of a chunk of the usual size.
CHUNK = 64 << 10
READY = re.compile(r"provider is ready on .*port=(\d+)")
#: In a command, where the provider listens.
PLACE = "PLACE"
PHRASE = b"passphrase of the benchmark\n"


# --- what is backed up ----------------------------------------------------------------------------


def make_tree(top: Path, files: int, in_folder: int) -> int:
    """Make ``files`` small files below ``top``; how many bytes they have in all."""
    pool = os.urandom(MIB)
    total = number = 0
    low, high = SIZES
    for first in range(0, files, in_folder):
        branch, leaf = divmod(first // in_folder, FOLDERS_IN_FOLDER)
        folder = top / f"branch-{branch:04}" / f"folder-{leaf:03}"
        folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for number in range(first, min(first + in_folder, files)):
            size = low + number * 7919 % (high - low)
            at = number * 104_729 % (MIB - high)
            content = b"file %d\n" % number + pool[at : at + size - 16]
            file = os.open(b"file-%07d.txt" % number, os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
            os.write(file, content)
            os.close(file)
            total += len(content)
        os.close(descriptor)
    return total


def make_links(top: Path, links: int) -> None:
    """Further names for ``links`` of the files, behind all of them."""
    number = 0
    for folder in sorted(top.glob("branch-*/*")):
        below = top / "links" / folder.parent.name / folder.name
        below.mkdir(parents=True)
        for name in os.listdir(folder):
            if number == links:
                return
            os.link(folder / name, below / name)
            number += 1


def change(top: Path) -> None:
    """Change the first file of each folder."""
    for folder in top.glob("branch-*/*"):
        with (folder / min(os.listdir(folder))).open("ab") as file:
            file.write(b"changed\n")


def make_image(path: Path, size: int) -> None:
    """A sparse file of ``size`` bytes with 64 pieces of 64 KiB in it."""
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(64):
            file.seek(number * size // 64)
            file.write(os.urandom(64 << 10))


def make_data(path: Path, size: int) -> None:
    """A file of ``size`` bytes that cannot be compressed, and has no chunk twice."""
    pool = bytearray(os.urandom(16 * MIB))
    with path.open("wb") as file:
        for number in range(0, size, len(pool)):
            for at in range(0, len(pool), 4096):  # each chunk has several of these
                pool[at : at + 8] = (number + at).to_bytes(8, "big")
            file.write(pool[: size - number])


def make_pieces(path: Path, pieces: int) -> None:
    """A file of ``pieces`` times 4 KiB of data, each with 4 KiB of nothing behind it."""
    data = [os.urandom(4096) for _ in range(256)]
    with path.open("wb") as file:
        file.truncate(pieces * 8192)
        for number in range(pieces):
            os.pwrite(file.fileno(), data[number * number % 251], number * 8192)


def age(top: Path) -> None:
    """Wait until what was made may be remembered as unchanged."""
    while time.time_ns() - top.stat().st_ctime_ns < 3_000_000_000:
        time.sleep(0.2)


# --- the two sides --------------------------------------------------------------------------------


class Provider:
    """A provider's directory and its process.

    :param folder: where it is made
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.directory = folder / "provider"
        self._environment = environment
        made = self.call(
            "init", "--host", "localhost", "--listen", "tcp:0:interface=127.0.0.1", "--json"
        )
        self.pin = made[-1]["spki"]
        self.token = self.call("tenant", "add", "acme", "--json")[-1]["token"]
        self._process: subprocess.Popen[str] | None = None

    def call(self, *words: str) -> list[dict[str, Any]]:
        """Run one of the admin's commands."""
        line = [*PROGRAM, "provider", *words, "--directory", str(self.directory)]
        done = subprocess.run(
            line, env=self._environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return [json.loads(text) for text in done.stdout.splitlines()]

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """The port, while it runs."""
        log = self.directory.parent / "provider.log"
        line = [sys.executable, "-m", "twisted", "--log-format=text", "cloudconnect-provider"]
        with log.open("a") as out:
            process = subprocess.Popen(
                [*line, "--directory", str(self.directory)], env=self._environment, stdout=out
            )
        self._process = process
        try:
            found = None
            while found is None:
                if process.poll() is not None:
                    raise SystemExit(f"the provider did not start: see {log}")
                time.sleep(0.1)
                found = READY.search(log.read_text())
            yield int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            log.unlink()

    def forget_peak(self) -> None:
        """Let the peak begin at what it needs now."""
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        """CPU seconds that it has used so far, with those of its children that have ended."""
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        ticks = stat.rpartition(")")[2].split()[11:15]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> float:
        """Its peak in MiB."""
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0.0


class Tenant:
    """Runs the tenant's commands, and measures them.

    :param folder: its home
    """

    def __init__(self, folder: Path, provider: Provider, environment: dict[str, str]) -> None:
        self._provider = provider
        token, phrase = folder / "token", folder / "passphrase"
        token.write_text(provider.token + "\n")
        phrase.write_bytes(PHRASE)
        for secret in (token, phrase):
            secret.chmod(0o600)
        self._environment = {
            **environment,
            "CLOUDCONNECT_TENANT": "acme",
            "CLOUDCONNECT_PASSWORD_FILE": str(token),
            "CLOUDCONNECT_FINGERPRINT": provider.pin,
            "CLOUDCONNECT_PASSPHRASE_FILE": str(phrase),
        }

    def at(self, port: int) -> None:
        """The provider listens there now."""
        self._environment["CLOUDCONNECT_PROVIDER"] = f"localhost:{port}"

    def run(self, name: str, *words: str) -> dict[str, Any]:
        """Run a command; what it took of both sides, with the counts of its summary."""
        self._provider.forget_peak()
        before = self._provider.cpu()
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                [*PROGRAM, *words, "--json"], env=self._environment, stdout=out
            )
            _, status, used = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{name} ended with status {process.returncode}")
            out.seek(0)
            last = {}
            for text in out:
                last = json.loads(text)
        row = {
            "tenant_mib": round(used.ru_maxrss / 1024, 1),
            "provider_mib": round(self._provider.peak(), 1),
            "wall": round(wall, 2),
            "tenant_cpu": round(used.ru_utime + used.ru_stime, 2),
            "provider_cpu": round(self._provider.cpu() - before, 2),
            **{key: last[key] for key in COUNTS if key in last},
        }
        show(name, row)
        return row

    def points(self) -> list[str]:
        """Its restore points, the oldest first."""
        done = subprocess.run(
            [*PROGRAM, "points", "--host", "benchmark", "--json"],
            env=self._environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [row["point"] for row in rows if row["message_type"] == "point"]


COUNTS = ("files", "files_unchanged", "bytes_source", "bytes_new", "bytes_sent", "bytes_received")
PROGRAM = [sys.executable, "-m", "cloudconnect"]


def show(name: str, row: dict[str, Any]) -> None:
    """One line for people."""
    print(f"{name:16} " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


# --- the index ------------------------------------------------------------------------------------


def fill_index(provider: Provider, chunks: int, file: Path, home: Path) -> dict[str, Any]:
    """A process of its own: fill the catalogue and the cache, publish a point of all chunks."""
    began = time.monotonic()
    with file.open("wb") as made:
        made.truncate(chunks * CHUNK)
    words = ["--fill", str(provider.directory), str(chunks), str(file), str(home)]
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("the index could not be filled")
    row = {
        "wall": round(time.monotonic() - began, 1),
        "process_mib": round(used.ru_maxrss / 1024, 1),
        **json.loads(told),
    }
    show("fill the index", row)
    return row


def name_of(number: int) -> bytes:
    """A chunk's id."""
    return hashlib.sha256(b"chunk %d" % number).digest()


def fill(directory: Path, chunks: int, file: Path, home: Path) -> None:
    """What that process does."""
    from cloudconnect.backup.filecache import FileCache
    from cloudconnect.backup.temporary import temporary_file
    from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
    from cloudconnect.content.description import unlock
    from cloudconnect.content.entries import Entry as File
    from cloudconnect.content.entries import EntryType
    from cloudconnect.content.points import PointRecord
    from cloudconnect.content.runs import Run, RunList
    from cloudconnect.keys import Password
    from cloudconnect.repository.packs import Entry
    from cloudconnect.repository.store import Repository

    (folder,) = (directory / "repositories").iterdir()
    ids = b"".join(sorted(name_of(number) for number in range(chunks)))
    per_pack = 512
    with Repository.open(folder) as repository:
        description, mode = repository.description, EncryptionMode.TENANT
        master = unlock(description, mode, Password(PHRASE.strip()))
        keys = RepositoryKeys(master, description.repository, mode)

        def entry(number: int, at: int) -> Entry:
            name = ids[number * 32 : number * 32 + 32]
            return Entry(name, 0, 100 + at * CHUNK, CHUNK, CHUNK, 0x11, name)

        for first in range(0, chunks, per_pack * 64):
            with repository.catalogue.writing() as connection:
                for start in range(first, min(first + per_pack * 64, chunks), per_pack):
                    end = min(start + per_pack, chunks)
                    entries = [entry(number, number - start) for number in range(start, end)]
                    name = f"packs/{start:032x}"
                    repository.catalogue.add_pack(connection, name, 32 * MIB, entries, time.time())
        record = PointRecord(
            point=os.urandom(16),
            repository=description.repository,
            session=os.urandom(16),
            job_id=os.urandom(16),
            host="elsewhere",
            job="images",
            started_ns=0,
            finished_ns=0,
            mode=description.mode,
            manifest=(ids[:32],),
            manifest_length=1,
        )
        encoded = record.encode()
        references = repository.begin_references()
        for at in range(0, len(ids), 8192 * 32):
            references.extend(ids[at : at + 8192 * 32])
        began = time.monotonic()
        repository.publish(record, encoded, keys.sign(encoded), references)
        took = {"chunks": chunks, "publish_seconds": round(time.monotonic() - began, 2)}
    runs = RunList(temporary_file)
    for number in range(chunks):
        runs.append(Run(name_of(number), 0, CHUNK))
    status, path = file.stat(), os.fsencode(file)
    numbers = (status.st_mode & 0o7777, status.st_uid, status.st_gid, "", "", status.st_mtime_ns)
    known = File(path, EntryType.FILE, *numbers, chunks * CHUNK, runs)
    (place,) = home.glob(".cache/cloudconnect/*/*")
    cache = FileCache(place, description.repository, keys.id_check)
    cache.remember_long(path, status, 1 << 62, known)
    cache.close()
    print(json.dumps(took))


# --- the command ----------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    home = folder / "home"
    home.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("CLOUDCONNECT_", "XDG_"))},
        "HOME": str(home),
        "CLOUDCONNECT_HOST": "benchmark",
        "TMPDIR": str(folder),
    }
    tree = folder / "tree"
    tree.mkdir()
    began = time.monotonic()
    in_folder = arguments.files if arguments.flat else FILES_IN_FOLDER
    source = make_tree(tree, arguments.files, in_folder)
    if arguments.links:
        make_links(tree, arguments.links)
    if arguments.image:
        make_image(tree / "image", int(arguments.image * 1e9))
    if arguments.data:
        make_data(tree / "data", int(arguments.data * 1e9))
    if arguments.pieces:
        make_pieces(tree / "pieces", arguments.pieces)
    show("make the tree", {"bytes": source, "wall": round(time.monotonic() - began, 1)})
    provider = Provider(folder, environment)
    tenant = Tenant(folder, provider, environment)
    rows: dict[str, Any] = {}

    def step(name: str, *words: str) -> dict[str, Any]:
        # Each with a provider of its own: one that runs for minutes begins to scrub and collect.
        with provider.running() as port:
            tenant.at(port)
            place = f"localhost:{port}"
            return tenant.run(name, *(place if word is PLACE else word for word in words))

    step("connect", "connect", PLACE)
    age(tree)
    rows["first"] = step("first", "backup", str(tree))
    if arguments.chunks:
        rows["fill"] = fill_index(provider, arguments.chunks, tree / "filled", home)
    rows["second"] = step("second", "backup", str(tree))
    change(tree)
    rows["changed"] = step("some changed", "backup", str(tree))
    target = ("--target", str(folder / "restored"))
    rows["dry_run"] = step("restore, dry run", "restore", "latest", *target, "--dry-run")
    first = () if arguments.flat else (str(tree / "branch-0000" / "folder-000"),)
    part = (*first, *(str(tree / name) for name in ("image", "data", "pieces")))
    kept = [path for path in part if Path(path).exists()]
    if kept:
        rows["part"] = step("restore a part", "restore", "latest", *kept, *target)
        rows["again"] = step("and again", "restore", "latest", *kept, *target)
    if arguments.look:
        with provider.running() as port:
            tenant.at(port)
            points = tenant.points()
        rows["check"] = step("check", "check", *points)
        rows["read"] = step("check, read data", "check", "--read-data", *points)
        rows["diff"] = step("diff", "diff", points[0], points[-1])
        rows["find"] = step("find", "find", "file-000*", "--host", "benchmark")
    if arguments.collect:
        with provider.running():
            rows["collect"] = collect(provider)
    return rows


def collect(provider: Provider) -> dict[str, Any]:
    """Collect garbage in the running provider, through the admin's command."""
    provider.forget_peak()
    began = time.monotonic()
    told = provider.call("gc", "--json")[-1]
    row = {
        "provider_mib": round(provider.peak(), 1),
        "wall": round(time.monotonic() - began, 1),
        **{key: value for key, value in told.items() if type(value) is int and value},
    }
    show("collect", row)
    return row


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["--fill"]:
        directory, chunks, file, home = sys.argv[2:]
        fill(Path(directory), int(chunks), Path(file), Path(home))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000, help="(default a million)")
    parser.add_argument("--chunks", type=int, default=0, help="rows in the index before (3200000)")
    parser.add_argument("--flat", action="store_true", help="all files in one folder")
    parser.add_argument("--links", type=int, default=0, help="hard links to them")
    parser.add_argument("--image", type=float, default=0, help="GB of a sparse image in the tree")
    parser.add_argument("--data", type=float, default=0, help="GB of a file without any holes")
    parser.add_argument("--pieces", type=int, default=0, help="of a file with as many holes")
    parser.add_argument("--look", action="store_true", help="also check, diff and find")
    parser.add_argument("--collect", action="store_true", help="collect garbage at the end")
    parser.add_argument("--directory", type=Path, help="where (default the system's)")
    parser.add_argument("--keep", action="store_true", help="do not remove what was made")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cloudconnect-size-", dir=arguments.directory))
    try:
        rows = measure(arguments, folder)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    peaks = {
        side: max(row.get(f"{side}_mib", 0) for row in rows.values())
        for side in ("tenant", "provider")
    }
    report = {
        "files": arguments.files,
        "chunks": arguments.chunks,
        "rows": rows,
        "peaks_mib": peaks,
        "within": max(peaks.values()) <= BOUND_MIB,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
