"""Layer 6: the recovery kit as a page for paper, and where it goes."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Final

from cloudconnect.cli.console import Console, local_time
from cloudconnect.cli.line import Line
from cloudconnect.config.profile import write_private
from cloudconnect.content.atrest import EncryptionMode, RepositoryDescription
from cloudconnect.content.heads import Chain
from cloudconnect.content.kit import Kit
from cloudconnect.keys import MasterKey
from cloudconnect.wire.login import split_login

#: What the kit is worth, by who can read the repository anyway.
_WORTH: Final = {
    EncryptionMode.TENANT: """\
Whoever has this text and a login of the tenant can READ EVERY BACKUP, and
nobody can read one without it or the encryption passphrase. Keep it where it is
safe from both fire and curiosity, such as on paper in a safe; not on the
machine that is backed up, and not with the provider.""",
    EncryptionMode.PROVIDER: """\
Encryption is "provider": the provider holds the keys and can read everything,
and so can whoever has the tenant's login. This text keeps nobody out. What it is
worth: it finds the provider and the repository again, and shows whether the
repository is the one that it was made for.""",
    EncryptionMode.NONE: """\
Encryption is "none": whoever gets at the provider's disks, or has the tenant's
login, can read everything. This text keeps nobody out. What it is worth: it
finds the provider and the repository again, and shows whether the repository is
the one that it was made for.""",
}


def kit_of(line: Line, description: RepositoryDescription, master: MasterKey, chain: Chain) -> Kit:
    """The recovery kit of the repository on this line.

    :param master: its newest master key
    :param chain: how far its chain of heads has come
    """
    host, port = line.settings.address
    known = line.settings.profile.fingerprints
    # Where the provider was trusted by its authority there are none: the one that it has shown.
    spki = any(pin.upper().startswith("SPKI-") for pin in known)
    pins = known if spki else (*known, line.manager.presented)
    return Kit(
        provider=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        tenant=split_login(line.settings.tenant)[0],
        pins=tuple(pins),
        repository=description.repository,
        mode=description.mode,
        head_number=chain.number,
        head_value=chain.value,
        master=master,
    )


def kit_page(kit: Kit, now: float) -> str:
    """The page: what it is, the kit itself, and the key as a QR code.

    :param now: seconds since 1970
    """
    release = importlib.metadata.version("cloudconnect")
    further = "."
    if kit.mode is EncryptionMode.TENANT:
        further = """, then cloudconnect key add.
Make a new kit after "cloudconnect key rotate --new-master\"."""
    return f"""\
CLOUDCONNECT RECOVERY KIT of tenant {kit.tenant} at {kit.provider}, {local_time(now)}

{_WORTH[kit.mode]}

On an empty machine, with a login password that the provider has just set:

    python3 -m pip install cloudconnect=={release}
    cloudconnect restore latest --target DIR --host H --job J \\
        --kit kit.txt --password-file F

kit.txt is this text, or the lines from BEGIN to END typed from paper: a
mistyped character is found, and its line or group named. H and J are the
machine and the job that the backup was made of. To go on with backups:
cloudconnect connect --kit kit.txt --password-file F{further}

{kit.text()}
The key once more, for a camera:

{_code(kit.groups())}
"""


def _code(text: str) -> str:
    """A QR code of half blocks, dark on light paper."""
    import segno

    rows = [list(row) for row in segno.make(text, error="m", micro=False).matrix]
    width = len(rows[0])
    if len(rows) % 2:
        rows.append([0] * width)
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    return "\n".join(
        "    " + "".join(blocks[upper & 1, lower & 1] for upper, lower in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    )


def save_kit(path: Path, page: str, console: Console) -> None:
    """Write the page, readable by nobody else on this machine, and say what it is."""
    write_private(path, page.encode())
    console.note(
        f"The recovery kit is in {path}: whoever has it and the login can read every backup. Move "
        "it to a safe place that is not this machine"
    )
