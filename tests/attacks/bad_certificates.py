"""A matrix of certificates that a false provider could show, and how each must be judged.

They differ in one thing from a good one. What is wrong is in the name of the case.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudconnect.errors import (
    CertificateUntrusted,
    FingerprintMismatch,
    HostnameMismatch,
    ProviderNotTrusted,
)
from cloudconnect.transports.trust import TrustPolicy
from tests.certificates import (
    CLIENT_USE,
    EXPIRED,
    HOST,
    NOT_YET_VALID,
    Authority,
    Issued,
    build,
    self_signed,
)


@attrs.frozen
class Case:
    """What a server shows, and what its client goes by.

    :ivar error: what the client must say; None for those that are good
    """

    name: str
    shown: Issued
    trust: TrustPolicy
    error: type[ProviderNotTrusted] | None


def key_usage(**wanted: bool) -> tuple[x509.ExtensionType, bool]:
    """A critical KeyUsage with these bits."""
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names}), True


#: Names that look like the right one, or like a wildcard for it, and are not.
_WRONG_NAMES: Final = (
    "other.example.com",
    "example.com",
    "xbackup.example.com",
    "backup.example.com.evil.example",
    "backup.example.co",
    "*",
    "*.com",
    "*.*.com",
    "*.backup.example.com",
    "b*.example.com",
    "backup.*.com",
    "xn--bckup-hoa.example.com",
)


def cases(folder: Path) -> Iterator[Case]:
    """Every case; the files of authorities go to ``folder``."""
    folder.mkdir(parents=True)
    root, stranger = Authority(), Authority("Another root")
    trusted = root.write(folder / "root.pem")
    chain = TrustPolicy(HOST, ca_file=trusted)

    def bad(
        name: str,
        shown: Issued,
        error: type[ProviderNotTrusted] = CertificateUntrusted,
        trust: TrustPolicy = chain,
    ) -> Case:
        return Case(name, shown, trust, error)

    for wrong in _WRONG_NAMES:
        yield bad(f"for {wrong}", root.issue((wrong,)), HostnameMismatch)
    yield bad("its name in the common name only", build(HOST, root.root), HostnameMismatch)
    yield bad("for an address", root.issue(("192.0.2.1",)), HostnameMismatch)
    uri = root.issue((), uris=(f"https://{HOST}",))
    yield bad("its name in a URI only", uri, HostnameMismatch)
    mail = (x509.SubjectAlternativeName([x509.RFC822Name(f"admin@{HOST}")]), False)
    yield bad(
        "its name in a mail address only", root.issue((), extensions=[mail]), HostnameMismatch
    )
    address = TrustPolicy("127.0.0.1", ca_file=trusted)
    text = (x509.SubjectAlternativeName([x509.DNSName("127.0.0.1")]), False)
    as_name = root.issue((), extensions=[text])
    yield bad("an address written as a name", as_name, HostnameMismatch, address)
    yield bad("for another address", root.issue(("127.0.0.2",)), HostnameMismatch, address)
    yield bad("for a name, and not for the address", root.issue(), HostnameMismatch, address)

    yield bad("expired", root.issue(days=EXPIRED))
    yield bad("not yet valid", root.issue(days=NOT_YET_VALID))
    yield bad("for clients", root.issue(uses=CLIENT_USE))
    signing = (ExtendedKeyUsageOID.CODE_SIGNING,)
    yield bad("for signing programs", root.issue(uses=signing))
    for_certs = root.issue(extensions=[key_usage(key_cert_sign=True)])
    yield bad("its key for signing certificates only", for_certs)
    yield bad("of an unknown authority", stranger.issue())
    yield bad("of an authority with the same name", Authority().issue())
    yield bad("self-signed", self_signed())
    yield bad("signed by another key", root.issue(signing_key=stranger.root.key))
    yield bad("signed by itself in the authority's name", _own_signature(root))
    yield bad("RSA of 1024 bits", root.issue(key=rsa.generate_private_key(65537, 1024)))
    old_root = Authority("RSA root", key=rsa.generate_private_key(65537, 2048))
    by_rsa = TrustPolicy(HOST, ca_file=old_root.write(folder / "rsa.pem"))
    sha1 = _weakly_signed(old_root, _SHA1, hashes.SHA1())
    yield bad("signed with SHA-1", sha1, trust=by_rsa)
    md5 = _weakly_signed(old_root, _MD5, hashes.MD5())
    yield bad("signed with MD5", md5, trust=by_rsa)
    yield Case("signed by RSA with SHA-256", old_root.issue(), by_rsa, None)
    yield bad("with a critical extension that nobody knows", root.issue(extensions=[_UNKNOWN]))

    below = Authority("Below", root)
    yield bad("its authority not shown", attrs.evolve(below.issue(), chain=()))
    yield bad("its authority expired", Authority("Old", root, days=EXPIRED).issue())
    yield bad("its authority none", Authority("None", root, is_ca=False).issue())
    short = Authority("Short", root, path_length=0)
    yield bad("its chain longer than allowed", Authority("Long", short).issue())
    limits = x509.NameConstraints([x509.DNSName("other.example")], None)
    limited = Authority("Limited", root, extensions=[(limits, True)])
    yield bad("outside of its authority's names", limited.issue())
    usage = Authority("Usage", root, extensions=[key_usage(digital_signature=True)])
    yield bad("its authority's key not for certificates", usage.issue())

    own = self_signed()
    other = self_signed()
    pinned = TrustPolicy(HOST, fingerprints=(own.spki,))
    yield bad("another key than is pinned", other, FingerprintMismatch, pinned)
    swapped = TrustPolicy(HOST, fingerprints=(stranger.root.spki,))
    yield bad("its authority's pins swapped", root.issue(), FingerprintMismatch, swapped)
    whole = TrustPolicy(HOST, fingerprints=(own.fingerprint,))
    renewed = self_signed(key=own.key)
    yield bad("renewed, and pinned as a whole", renewed, FingerprintMismatch, whole)
    named = self_signed(("other.example.com",), key=own.key)
    yield bad("the pinned key for another name", named, HostnameMismatch, pinned)
    old = self_signed(key=own.key, days=EXPIRED)
    yield bad("the pinned key, expired", old, CertificateUntrusted, pinned)
    early = self_signed(key=own.key, days=NOT_YET_VALID)
    yield bad("the pinned key, not yet valid", early, CertificateUntrusted, pinned)
    client = self_signed(key=own.key, uses=CLIENT_USE)
    yield bad("the pinned key, for clients", client, CertificateUntrusted, pinned)
    both = TrustPolicy(HOST, ca_file=trusted, fingerprints=(own.spki,))
    yield bad("a good chain and another pin", root.issue(), FingerprintMismatch, both)
    yield bad("the pin and no good chain", own, CertificateUntrusted, both)
    yield bad("the pin, of a stranger's chain", stranger.issue(key=own.key), trust=both)

    yield Case("good by its chain", root.issue(), chain, None)
    yield Case("good by a longer chain", below.issue(), chain, None)
    yield Case("good by a wildcard", root.issue(("*.example.com",)), chain, None)
    yield Case("good for an address", root.issue(("127.0.0.1",)), address, None)
    yield Case("good by its pin", own, pinned, None)
    yield Case("renewed with the same key", renewed, pinned, None)
    yield Case("good by both", root.issue(key=own.key), both, None)
    lenient = TrustPolicy(HOST, fingerprints=(own.spki,), accept_expired=True)
    yield Case("expired, pinned, and accepted so", old, lenient, None)


_UNKNOWN: Final[tuple[x509.ExtensionType, bool]] = (
    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
    True,
)


def _own_signature(root: Authority) -> Issued:
    """It says that the authority issued it, and its own key has signed it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return root.issue(key=key, signing_key=key)


#: The names of RSA signatures with these digests; all are as long.
_SHA256, _SHA1, _MD5 = (
    bytes.fromhex("2a864886f70d0101") + last for last in (b"\x0b", b"\x05", b"\x04")
)


def _weakly_signed(root: Authority, algorithm: bytes, digest: Any) -> Issued:
    """As a good one of an RSA root, signed with an old digest: nobody issues such any more."""
    good = root.issue()
    signed = good.certificate.tbs_certificate_bytes.replace(_SHA256, algorithm)
    signature = root.root.key.sign(signed, padding.PKCS1v15(), digest)
    octets = good.certificate.public_bytes(Encoding.DER)
    octets = octets.replace(good.certificate.tbs_certificate_bytes, signed)
    octets = octets[: -len(signature)].replace(_SHA256, algorithm) + signature
    return Issued(x509.load_der_x509_certificate(octets), good.key)
