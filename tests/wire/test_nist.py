"""NIST's vectors of AES-GCM (CAVP), run through our own wrapper of it.

From PyPI's ``cryptography_vectors``, which the extra ``test`` brings.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.keys import Subkey
from cloudconnect.wire.protection import RecordCipher
from cloudconnect.wire.schedule import RecordKey


def vectors(name: str) -> Iterator[dict[str, bytes | None]]:
    """Every vector of a file with the sizes that records have; ``FAIL`` where it must not open."""
    found = importlib.util.find_spec("cryptography_vectors")
    if found is None or found.origin is None:
        raise SkipTest("cryptography_vectors is not installed")
    path = Path(found.origin).parent / "ciphers" / "AES" / "GCM" / name
    sizes: dict[str, int] = {}
    vector: dict[str, bytes | None] = {}
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("["):
            what, _, size = line.strip("[]").partition(" = ")
            sizes[what] = int(size)
        elif " =" in line:
            what, _, digits = line.partition(" =")
            vector[what] = b"" if what == "Count" else bytes.fromhex(digits.strip())
        elif line == "FAIL":
            vector["FAIL"] = None
        elif vector:
            if (sizes["Keylen"], sizes["IVlen"], sizes["Taglen"]) == (256, 96, 128):
                yield vector
            vector = {}


class NISTTests(SynchronousTestCase):
    """AES-256-GCM as records use it: 12-byte nonces, 16-byte tags."""

    def cipher(self, vector: dict[str, bytes | None]) -> RecordCipher:
        key, iv = vector["Key"], vector["IV"]
        assert key is not None and iv is not None
        return RecordCipher(RecordKey(Subkey(key), iv, b""))

    def test_sealed(self) -> None:
        """Records seal to NIST's ciphertexts and tags."""
        count = 0
        for vector in vectors("gcmEncryptExtIV256.rsp"):
            plain = vector["PT"] or b""
            out = bytearray(len(plain) + 16)
            self.cipher(vector).seal_into(0, vector["AAD"] or b"", plain, memoryview(out))
            self.assertEqual((vector["CT"] or b"") + (vector["Tag"] or b""), out)
            count += 1
        self.assertEqual(375, count)

    def test_opened(self) -> None:
        """Records open what NIST's open, and refuse what they refuse, by both ways of opening."""
        counts: Counter[str] = Counter()
        for vector in vectors("gcmDecrypt256.rsp"):
            sealed = (vector["CT"] or b"") + (vector["Tag"] or b"")
            associated = vector["AAD"] or b""
            cipher = self.cipher(vector)
            out = bytearray(b"\xee" * (len(sealed) - 16))
            if "FAIL" in vector:
                self.assertRaises(InvalidTag, cipher.open, 0, associated, sealed)
                with self.assertRaises(InvalidTag):
                    cipher.open_into(0, associated, sealed, memoryview(out))
                self.assertEqual(bytes(len(out)), out)
                counts["refused"] += 1
            else:
                self.assertEqual(vector["PT"] or b"", cipher.open(0, associated, sealed))
                cipher.open_into(0, associated, sealed, memoryview(out))
                self.assertEqual(vector["PT"] or b"", out)
                counts["opened"] += 1
        self.assertEqual({"opened", "refused"}, set(counts))
        self.assertEqual(375, sum(counts.values()))
