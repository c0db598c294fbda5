"""Layer 6: the key of a key slot, derived while the program is still being loaded.

What a passphrase becomes by Argon2id depends on nothing but the slot's salt and costs, which stay
the same from one command to the next. They are remembered beside a repository's heads, without
anything that would tell a right guess from a wrong one. The next command derives the key in a
thread of its own while its modules are imported, and while there is little else in its memory.
Whether it opens anything shows once the provider has said which slots there are: then the key of
another salt, or of another passphrase, is of no use, and the right one is derived as ever.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.cli.dialling import Dialled
from cloudconnect.cli.secret_files import SECRET_MAX, as_password, key_file_content, read_bounded
from cloudconnect.config.profile import Profile, state_folder, write_private
from cloudconnect.content.slots import Argon2Costs, KeySlot, stretch
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password
from cloudconnect.shown import Shown

#: The file in which salt and costs are remembered; longer ones are not read.
SLOT_FILE: Final = "slot"
SLOT_FILE_MAX: Final = 1024


class StretchAhead:
    """One call of :func:`~cloudconnect.content.slots.stretch`, made ahead of time.

    :param passphrase: or the content of a key file; owned by this object
    :param salt: of the slot
    :param costs: of the slot
    """

    def __init__(self, passphrase: Password, salt: bytes, costs: Argon2Costs) -> None:
        self._asked = (passphrase, salt, costs)
        self._made: tuple[bytes, bytes] | None = None
        self._used = False
        self._thread = threading.Thread(target=self._make, name="cloudconnect-stretch", daemon=True)
        self._thread.start()

    def stretch(self, passphrase: Password, salt: bytes, costs: Argon2Costs) -> tuple[bytes, bytes]:
        """As the function of this name; what was made ahead is given away once."""
        if not self._used and self._asked == (passphrase, salt, costs):
            self._used = True
            self._thread.join()
            made, self._made = self._made, None
            self._asked[0].forget()
            if made is not None:
                return made
        return stretch(passphrase, salt, costs)

    def _make(self) -> None:
        with contextlib.suppress(Exception):  # who asks for it gets the error
            self._made = stretch(*self._asked)


@attrs.frozen(repr=False)
class OwnProcess(Shown):
    """What the root context of a command holds that has the process for itself.

    :ivar ahead: the key that is being derived, or None
    :ivar dialled: the connection that is being opened, or None
    """

    ahead: StretchAhead | None = attrs.field(repr=False)
    dialled: Dialled | None = None


def begin(profile: Profile | None, environment: Mapping[str, str]) -> StretchAhead | None:
    """Begin, where the profile tells which passphrase and the last command which salt.

    :param profile: by which the command will go, as
        :func:`~cloudconnect.cli.foreseen.foreseen` has found it
    :return: None where they do not; whatever is wrong with them, the command will say
    """
    if profile is None or profile.encryption != "tenant":
        return None
    if not (profile.provider_id and profile.repository):
        return None
    with contextlib.suppress(UsageError, ValueError, OSError):
        ids = (bytes.fromhex(text) for text in (profile.provider_id, profile.repository))
        known = recall(state_folder(environment, *ids))
        if known is not None:
            if profile.key_file:
                return StretchAhead(key_file_content(Path(profile.key_file)), *known)
            if profile.passphrase_file:
                what = "encryption passphrase"
                octets = read_bounded(Path(profile.passphrase_file), what, SECRET_MAX)
                return StretchAhead(as_password(octets, what), *known)
    return None


def remember_slot(folder: Path, slot: KeySlot) -> None:
    """Keep salt and costs of the slot that has opened a repository, for the next command.

    :param folder: where this machine remembers what it has seen of the repository
    """
    if slot.argon2 is None or recall(folder) == (slot.salt, slot.argon2):
        return
    text = json.dumps({"salt": slot.salt.hex(), **attrs.asdict(slot.argon2)})
    with contextlib.suppress(OSError):  # a command is no worse for a disk that takes nothing
        write_private(folder / SLOT_FILE, text.encode())


def recall(folder: Path) -> tuple[bytes, Argon2Costs] | None:
    """The salt and the costs that were kept, or None where there are none that can be used."""
    try:
        with (folder / SLOT_FILE).open("rb") as file:
            fields = json.loads(file.read(SLOT_FILE_MAX))
        return bytes.fromhex(fields.pop("salt")), Argon2Costs(**fields)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
