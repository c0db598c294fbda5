"""Project Wycheproof's vectors, run through our own wrappers of each primitive."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.errors import KeyARejected, Tampered
from cloudconnect.keys import Subkey, hkdf, hkdf_expand, hkdf_extract
from cloudconnect.wire.noise import CipherState, x25519
from cloudconnect.wire.protection import RecordCipher
from cloudconnect.wire.schedule import RecordKey


class Vector:
    """One test of a file: its fields as attributes, octets decoded."""

    def __init__(self, group: dict[str, Any], test: dict[str, Any]) -> None:
        self.group = group
        self.result: str = test["result"]
        self.flags: list[str] = test["flags"]
        self.size: int = test.get("size", 0)
        self.octets = {
            name: bytes.fromhex(value)
            for name, value in test.items()
            if isinstance(value, str) and name not in ("result", "comment")
        }
        self.name = f"test {test['tcId']}"

    def __getitem__(self, name: str) -> bytes:
        return self.octets[name]


def vectors(name: str) -> Iterator[Vector]:
    """Every test in one of the files, or a skipped test where there are no files."""
    directory = os.environ.get("CLOUDCONNECT_VECTORS")
    if not directory:
        raise SkipTest("CLOUDCONNECT_VECTORS does not name the directory of the vectors")
    content = json.loads(Path(directory, f"wycheproof_{name}_test.json").read_text())
    for group in content["testGroups"]:
        for test in group["tests"]:
            yield Vector(group, test)


class AESGCMTests(SynchronousTestCase):
    """AES-256-GCM as records and tunnel messages use it: 12-byte nonces, 16-byte tags."""

    def test_records(self) -> None:
        """Records seal to the vectors' ciphertexts, open them, and refuse the invalid ones."""
        seen = {"valid": 0, "invalid": 0}
        for vector in vectors("aes_gcm"):
            if (vector.group["keySize"], vector.group["ivSize"]) != (256, 96):
                continue
            seen[vector.result] += 1
            cipher = RecordCipher(RecordKey(Subkey(vector["key"]), vector["iv"], b""))
            sealed = vector["ct"] + vector["tag"]
            out = bytearray(b"\xee" * len(vector["msg"]))
            if vector.result == "valid":
                made = bytearray(len(sealed))
                cipher.seal_into(0, vector["aad"], vector["msg"], memoryview(made))
                self.assertEqual(made, sealed, vector.name)
                cipher.open_into(0, vector["aad"], sealed, memoryview(out))
                self.assertEqual(out, vector["msg"], vector.name)
                self.assertEqual(cipher.open(0, vector["aad"], sealed), vector["msg"])
            else:
                with self.assertRaises(InvalidTag, msg=vector.name):
                    cipher.open_into(0, vector["aad"], sealed, memoryview(out))
                self.assertEqual(out, bytes(len(out)), vector.name)
                with self.assertRaises(InvalidTag, msg=vector.name):
                    cipher.open(0, vector["aad"], sealed)
        self.assertEqual(seen, {"valid": 39, "invalid": 27})

    def test_sequence_numbers(self) -> None:
        """A sequence number is XORed into the base: only the result of that counts."""
        seen = 0
        for vector in vectors("aes_gcm"):
            if (vector.group["keySize"], vector.group["ivSize"]) != (256, 96):
                continue
            if vector.result == "valid":
                seen += 1
                sequence = 0x0123456789ABCDEF
                base = int.from_bytes(vector["iv"], "big") ^ sequence
                key = RecordKey(Subkey(vector["key"]), base.to_bytes(12, "big"), b"")
                sealed = vector["ct"] + vector["tag"]
                self.assertEqual(
                    RecordCipher(key).open(sequence, vector["aad"], sealed), vector["msg"]
                )
        self.assertEqual(seen, 39)

    def test_tunnel_messages(self) -> None:
        """Tunnel messages do the same, where the vector's nonce is one that Noise can have."""
        seen = 0
        for vector in vectors("aes_gcm"):
            if vector.group["keySize"] != 256 or vector.group["ivSize"] != 96:
                continue
            number = int.from_bytes(vector["iv"], "big")
            sealed = vector["ct"] + vector["tag"]
            if number < 2**64 - 1:
                seen += 1
                self.assertEqual(vector.result, "valid")
                sender, receiver = (CipherState(vector["key"], number) for _ in range(2))
                self.assertEqual(sender.encrypt(vector["aad"], vector["msg"]), sealed)
                self.assertEqual(receiver.decrypt(vector["aad"], sealed), vector["msg"])
            else:
                with self.assertRaises(Tampered):
                    CipherState(vector["key"], 0).decrypt(vector["aad"], sealed)
        self.assertEqual(seen, 1)


class HKDFTests(SynchronousTestCase):
    """HKDF-SHA256, whole and in its two halves."""

    def test_vectors(self) -> None:
        """Both ways give the vectors' output, and an output that is too long is refused."""
        seen = {"valid": 0, "invalid": 0}
        for vector in vectors("hkdf_sha256"):
            seen[vector.result] += 1
            extracted = hkdf_extract(vector["salt"], vector["ikm"])
            if vector.result == "valid":
                whole = hkdf(vector["ikm"], vector["info"], vector.size, vector["salt"])
                self.assertEqual(whole, vector["okm"], vector.name)
                halves = hkdf_expand(extracted, vector["info"], vector.size)
                self.assertEqual(halves, vector["okm"], vector.name)
            else:
                with self.assertRaises(ValueError):
                    hkdf(vector["ikm"], vector["info"], vector.size, vector["salt"])
                with self.assertRaises(ValueError):
                    hkdf_expand(extracted, vector["info"], vector.size)
        self.assertEqual(seen, {"valid": 83, "invalid": 3})


class HMACTests(SynchronousTestCase):
    """HMAC-SHA256, which is what HKDF-Extract is."""

    def test_vectors(self) -> None:
        """The right tags come out, whole or cut to 16 bytes, and the wrong ones do not."""
        seen = {"valid": 0, "invalid": 0}
        for vector in vectors("hmac_sha256"):
            seen[vector.result] += 1
            tag = hkdf_extract(vector["key"], vector["msg"])[: vector.group["tagSize"] // 8]
            self.assertEqual(tag == vector["tag"], vector.result == "valid", vector.name)
        self.assertEqual(seen, {"valid": 66, "invalid": 108})


class X25519Tests(SynchronousTestCase):
    """X25519 as the handshake uses it."""

    def test_vectors(self) -> None:
        """Every point gives its secret, but those whose secret would be zero are refused."""
        agreed = refused = 0
        for vector in vectors("x25519"):
            private = X25519PrivateKey.from_private_bytes(vector["private"])
            if "ZeroSharedSecret" in vector.flags:
                self.assertEqual(vector["shared"], bytes(32))
                with self.assertRaises(KeyARejected, msg=vector.name):
                    x25519(private, vector["public"])
                refused += 1
            else:
                self.assertEqual(x25519(private, vector["public"]), vector["shared"], vector.name)
                agreed += 1
        self.assertEqual((agreed, refused), (487, 31))
