"""The keys of a block cache."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.keys import (
    CacheKey,
    CacheKeys,
    NodeKey,
    make_keys,
    open_keys,
    read_node_key,
)
from cloudconnect.errors import UsageError

NODE = NodeKey(bytes(range(32)))
NAME = b"n" * 32


class CacheKeysTests(SynchronousTestCase):
    """What is derived."""

    def test_apart(self) -> None:
        """Tenants, salts, names and features have nothing in common."""
        key = CacheKey(bytes(32))
        one, other = CacheKeys(key, "acme"), CacheKeys(key, "acne")
        self.assertNotEqual(one.masked(NAME), other.masked(NAME))
        self.assertNotEqual(one.masked_feature(1), other.masked_feature(1))
        self.assertNotEqual(one.masked_feature(1), one.masked_feature(2))
        self.assertNotEqual(one.associated(NAME), other.associated(NAME))
        sealed = {
            cipher.encrypt(bytes(12), b"same", None)
            for keys in (one, other)
            for cipher in (keys.cipher(bytes(32)), keys.cipher(bytes(31) + b"1"))
        }
        self.assertEqual(len(sealed), 4)

    def test_bounds(self) -> None:
        """Masked features fit SQLite's integers."""
        keys = CacheKeys(CacheKey.generate(), "acme")
        for feature in range(200):
            self.assertTrue(0 <= keys.masked_feature(feature) < 1 << 63)


class WrappedTests(SynchronousTestCase):
    """The cache key at rest."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_there_and_back(self) -> None:
        """The same node key and tenant open it."""
        made = make_keys(self.directory, "acme", NODE)
        opened = open_keys(self.directory, "acme", NODE)
        assert opened is not None
        self.assertEqual(opened.masked(NAME), made.masked(NAME))

    def test_not_opened(self) -> None:
        """Another node key, another tenant, changed bytes and none at all."""
        self.assertIsNone(open_keys(self.directory, "acme", NODE))
        make_keys(self.directory, "acme", NODE)
        self.assertIsNone(open_keys(self.directory, "acme", NodeKey(bytes(32))))
        self.assertIsNone(open_keys(self.directory, "acne", NODE))
        path = self.directory / "key"
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            self.assertIsNone(open_keys(self.directory, "acme", NODE))
        path.write_bytes(whole[:-1])
        self.assertIsNone(open_keys(self.directory, "acme", NODE))

    def test_random(self) -> None:
        """Each cache has a key of its own, which is not the node's."""
        one = make_keys(self.directory, "acme", NODE)
        (self.directory / "key").unlink()
        other = make_keys(self.directory, "acme", NODE)
        self.assertNotEqual(one.masked(NAME), other.masked(NAME))
        self.assertNotIn(NODE.reveal(), (self.directory / "key").read_bytes())


class NodeKeyTests(SynchronousTestCase):
    """The file with the node key."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_made_once(self) -> None:
        """It is made where it is missing, for its owner only, and then stays."""
        self.assertRaises(UsageError, read_node_key, self.path)
        key = read_node_key(self.path, make=True)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(read_node_key(self.path, make=True), key)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    def test_there(self) -> None:
        """Where there is one nothing is written: its folder may be read-only."""
        made = read_node_key(self.path, make=True)
        before = self.path.parent.stat().st_mtime_ns
        self.assertEqual(made, read_node_key(self.path, make=True))
        self.assertEqual(before, self.path.parent.stat().st_mtime_ns)

    def test_refused(self) -> None:
        """Another size, a link, or a file that others may read."""
        for size in (0, 31, 33):
            self.path.write_bytes(bytes(size))
            self.path.chmod(0o600)
            self.assertRaises(UsageError, read_node_key, self.path)
        self.path.write_bytes(bytes(32))
        self.path.chmod(0o640)
        self.assertRaises(UsageError, read_node_key, self.path)
        self.path.chmod(0o600)
        link = self.path.with_name("link")
        link.symlink_to(self.path)
        self.assertRaises(UsageError, read_node_key, link)
        self.assertNotIn("00", repr(read_node_key(self.path)))
