"""The key of a key slot that is derived while the program is being loaded."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli import opening
from cloudconnect.cli.foreseen import foreseen
from cloudconnect.cli.opening import SLOT_FILE, StretchAhead, begin, recall, remember_slot
from cloudconnect.config.profile import Profile, save, state_folder
from cloudconnect.content.atrest import Argon2Costs, make_open_slot, make_slot, open_slot
from cloudconnect.content.slots import stretch
from cloudconnect.errors import WrongPassphrase
from cloudconnect.keys import MasterKey, Password

COSTS = Argon2Costs(1, 1, 8)
SALT = bytes(16)
PHRASE = b"correct horse"
PROVIDER, REPOSITORY = b"p" * 16, b"r" * 16


class Counted:
    """Stands in the place of stretch() in the module: how often it is called."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.threads: list[str] = []
        case.patch(opening, "stretch", self)

    def __call__(
        self, passphrase: Password, salt: bytes, costs: Argon2Costs
    ) -> tuple[bytes, bytes]:
        self.threads.append(threading.current_thread().name)
        return stretch(passphrase, salt, costs)


class AheadTests(SynchronousTestCase):
    """What was derived ahead is what would have been derived later."""

    def setUp(self) -> None:
        self.counted = Counted(self)
        self.ahead = StretchAhead(Password(PHRASE), SALT, COSTS)

    def test_used(self) -> None:
        """It is computed once, in a thread of its own, and given away once."""
        expected = stretch(Password(PHRASE), SALT, COSTS)
        self.assertEqual(self.ahead.stretch(Password(PHRASE), SALT, COSTS), expected)
        self.assertEqual(self.counted.threads, ["cloudconnect-stretch"])
        self.assertEqual(self.ahead.stretch(Password(PHRASE), SALT, COSTS), expected)
        self.assertEqual(self.counted.threads[1:], [threading.current_thread().name])

    def test_another(self) -> None:
        """Another passphrase, salt or cost gets its own key; what is right is still there then."""
        for asked in (
            (Password(b"another"), SALT, COSTS),
            (Password(PHRASE), b"s" * 16, COSTS),
            (Password(PHRASE), SALT, Argon2Costs(2, 1, 8)),
        ):
            self.assertEqual(self.ahead.stretch(*asked), stretch(*asked))
        self.ahead.stretch(Password(PHRASE), SALT, COSTS)
        self.assertEqual(self.counted.threads.count("cloudconnect-stretch"), 1)
        self.assertEqual(len(self.counted.threads), 4)

    def test_slot(self) -> None:
        """It opens the slot, and what was derived of a wrong passphrase does not."""
        master = MasterKey.generate()
        slot = make_slot(master, REPOSITORY, Password(PHRASE), costs=COSTS)
        for phrase in (PHRASE, b"wrong"):
            ahead = StretchAhead(Password(phrase), slot.salt, COSTS)
            if phrase == PHRASE:
                opened = open_slot(slot, REPOSITORY, Password(phrase), ahead.stretch)
                self.assertEqual(opened, master)
            else:
                wrong = Password(phrase)
                self.assertRaises(
                    WrongPassphrase, open_slot, slot, REPOSITORY, wrong, ahead.stretch
                )

    def test_failed(self) -> None:
        """What went wrong ahead of time goes wrong again for who asks, and is told there."""
        gone = Password(PHRASE)
        gone.forget()
        ahead = StretchAhead(gone, SALT, COSTS)
        ahead._thread.join()
        self.assertIsNone(ahead._made)
        expected = stretch(Password(PHRASE), SALT, COSTS)
        self.assertEqual(self.ahead.stretch(Password(PHRASE), SALT, COSTS), expected)

    def test_secret(self) -> None:
        """Neither the passphrase nor the key is in what is printed of it."""
        shown = repr(opening.OwnProcess(self.ahead)) + repr(self.ahead)
        self.assertNotIn(PHRASE.decode(), shown)
        self.assertNotIn("ahead=", shown)


class RememberTests(SynchronousTestCase):
    """Salt and costs are kept, and nothing else of a slot."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.slot = make_slot(MasterKey.generate(), REPOSITORY, Password(PHRASE), costs=COSTS)

    def test_there_and_back(self) -> None:
        """What was remembered last is recalled."""
        self.assertIsNone(recall(self.folder))
        remember_slot(self.folder, self.slot)
        self.assertEqual(recall(self.folder), (self.slot.salt, COSTS))
        remember_slot(self.folder, attrs.evolve(self.slot, salt=SALT))
        self.assertEqual(recall(self.folder), (SALT, COSTS))

    def test_nothing_to_guess_with(self) -> None:
        """Nothing that tells a right guess from a wrong one is written; others cannot read it."""
        remember_slot(self.folder, self.slot)
        octets = (self.folder / SLOT_FILE).read_bytes()
        for secret in (self.slot.wrapped, self.slot.commitment):
            self.assertNotIn(secret, octets)
            self.assertNotIn(secret.hex().encode(), octets)
        self.assertEqual(stat.S_IMODE((self.folder / SLOT_FILE).stat().st_mode), 0o600)

    def test_open_slot(self) -> None:
        """There is nothing to remember of a slot that needs no passphrase."""
        remember_slot(self.folder, make_open_slot(MasterKey.generate()))
        self.assertIsNone(recall(self.folder))

    def test_unusable(self) -> None:
        """What is no salt with costs within bounds is as good as nothing."""
        remember_slot(self.folder, self.slot)
        good = (self.folder / SLOT_FILE).read_text()
        huge = good.replace('"memory_kib": 8', '"memory_kib": 1073741824')
        for text in ("", "[]", "{}", "null", good[:-1], good.replace("salt", "pepper"), huge):
            (self.folder / SLOT_FILE).write_text(text)
            self.assertIsNone(recall(self.folder), text)

    def test_no_room(self) -> None:
        """A folder that cannot be written is no error."""
        blocked = Path(self.mktemp())
        blocked.write_text("a file")
        remember_slot(blocked, self.slot)
        self.assertIsNone(recall(blocked))


class BeginTests(SynchronousTestCase):
    """It begins only where it is sure of what will be asked."""

    def setUp(self) -> None:
        top = Path(self.mktemp()).absolute()
        top.mkdir()
        self.environment = {"HOME": str(top)}
        self.phrase = top / "phrase"
        self.phrase.write_bytes(PHRASE + b"\n")
        self.profile = Profile(
            provider="host",
            tenant="t",
            encryption="tenant",
            passphrase_file=str(self.phrase),
            provider_id=PROVIDER.hex(),
            repository=REPOSITORY.hex(),
        )
        save(self.environment, "default", self.profile)
        slot = make_slot(MasterKey.generate(), REPOSITORY, Password(PHRASE), costs=COSTS)
        self.salt = slot.salt
        self.folder = state_folder(self.environment, PROVIDER, REPOSITORY)
        remember_slot(self.folder, slot)

    def begun(self, *arguments: str, **more: str) -> StretchAhead | None:
        environment = {**self.environment, **more}
        return begin(foreseen(("backup", *arguments), environment), environment)

    def test_begins(self) -> None:
        """With the profile's passphrase, as the command will read it, or its key file."""
        counted = Counted(self)
        for phrase, key_file in ((PHRASE, ""), (PHRASE + b"\n", str(self.phrase))):
            save(self.environment, "default", attrs.evolve(self.profile, key_file=key_file))
            ahead = self.begun("/home")
            assert ahead is not None
            ahead.stretch(Password(phrase), self.salt, COSTS)
        self.assertEqual(counted.threads, ["cloudconnect-stretch"] * 2)

    def test_unknown(self) -> None:
        """Not without a salt, a profile, a passphrase file, or in another encryption mode."""
        for changes in (
            {"encryption": "provider"},
            {"passphrase_file": ""},
            {"passphrase_file": str(self.phrase) + "-gone"},
            {"repository": "no digits"},
            {"provider_id": ""},
        ):
            save(self.environment, "default", attrs.evolve(self.profile, **changes))
            self.assertIsNone(self.begun(), changes)
        save(self.environment, "default", self.profile)
        self.assertIsNone(self.begun("--kit=x"))
        os.unlink(self.folder / SLOT_FILE)
        self.assertIsNone(self.begun())
