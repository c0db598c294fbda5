"""What a command will do, as far as its profile tells."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.foreseen import VARIABLES, foreseen
from cloudconnect.config.profile import Profile, profile_path, save


class ForeseenTests(SynchronousTestCase):
    """The profile is told only where nothing else has a say."""

    def setUp(self) -> None:
        top = Path(self.mktemp()).absolute()
        top.mkdir()
        self.environment = {"HOME": str(top)}
        self.profile = Profile(provider="host", tenant="t")
        save(self.environment, "default", self.profile)
        save(self.environment, "other", Profile(provider="elsewhere", tenant="t"))

    def found(self, *arguments: str, **more: str) -> Profile | None:
        return foreseen(("backup", *arguments), {**self.environment, **more})

    def test_certain(self) -> None:
        """With options that have nothing to do with it; a variable may name the profile."""
        self.assertEqual(self.found("/home", "--job", "x", "-q"), self.profile)
        other = self.found(CLOUDCONNECT_PROFILE="other")
        assert other is not None
        self.assertEqual(other.provider, "elsewhere")

    def test_otherwise(self) -> None:
        """Not where options or variables may name another provider, repository or passphrase."""
        for word in (
            "--profile",
            "--provider=elsewhere",
            "--tenant",
            "--passphrase-file=x",
            "--key-file",
            "--kit",
            "--dry-run",
            "--help",
        ):
            self.assertIsNone(self.found(word, "x"), word)
        for name in VARIABLES:
            self.assertIsNone(self.found(**{name: "x"}), name)

    def test_unusable(self) -> None:
        """What is wrong with a profile the command will say."""
        self.assertIsNone(self.found(CLOUDCONNECT_PROFILE="none"))
        self.assertIsNone(self.found(CLOUDCONNECT_PROFILE="../../x"))
        profile_path(self.environment, "default").write_text("no TOML")
        self.assertIsNone(self.found())
