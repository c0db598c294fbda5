"""Fuzz targets: what people, files of settings and certificates say."""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import FILETYPE_ASN1, Error, load_certificate

from cloudconnect.config import gateway, profile, provider, wan
from cloudconnect.content.kit import Kit, parse_kit
from cloudconnect.content.retention import RetentionPolicy, parse_duration
from cloudconnect.content.subkeys import EncryptionMode
from cloudconnect.errors import CloudConnectError, UsageError
from cloudconnect.keys import MasterKey
from cloudconnect.transports.hosts import parse_host, split_host_port
from cloudconnect.transports.trust import TrustPolicy, parse_fingerprint, spki_fingerprint
from cloudconnect.transports.verification import Verification
from tests.certificates import HOST, SERVER_USE, Authority, general_names, self_signed
from tests.fuzz.target import Acts, Target, act

# --- names, pins, addresses ----------------------------------------------------------------------

_PARSERS: Final[tuple[Callable[[str], Any], ...]] = (
    parse_fingerprint,
    parse_host,
    split_host_port,
    profile.split_provider,
    parse_duration,
    RetentionPolicy.parse,
)


def names(data: bytes) -> None:
    """What a person typed, or a provider's list says: a value, or an error that says what to do."""
    text = data.decode("utf-8", "replace")
    for parse in _PARSERS:
        try:
            found = parse(text)
        except UsageError:
            continue
        if parse is parse_fingerprint:
            assert parse_fingerprint(found) == found
        elif parse is parse_host:
            assert parse_host(found) == found, found


def first_names() -> Iterable[bytes]:
    yield b"SPKI-SHA256:" + b"ab" * 32
    yield b"sha256:" + b":".join([b"AB"] * 32)
    yield b"backup.example.com:6180"
    yield b"[2001:db8::1]:6180"
    yield "b\u00fccher.example".encode()
    yield b"7d"
    yield b"daily=7 weekly=4"


# --- recovery kits -------------------------------------------------------------------------------


def kit(data: bytes) -> None:
    """A recovery kit as somebody typed it."""
    try:
        found = parse_kit(data.decode("utf-8", "replace"))
    except UsageError:
        return
    assert parse_kit(found.text()).text() == found.text()


def kits() -> Iterable[bytes]:
    made = Kit(
        provider="backup.example.com:6180",
        tenant="acme",
        pins=("SPKI-SHA256:" + "ab" * 32,),
        repository=b"r" * 16,
        mode=EncryptionMode.TENANT,
        head_number=3,
        head_value=b"h" * 32,
        master=MasterKey(b"m" * 32),
    )
    yield made.text().encode()


# --- certificates --------------------------------------------------------------------------------


_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_DAY: Final = datetime.datetime(2026, 1, 1)
#: Extensions that are looked at somewhere: names, uses, constraints, and one that nobody knows.
_EXTENSIONS: Final = tuple(
    x509.ObjectIdentifier(dotted)
    for dotted in ("2.5.29.17", "2.5.29.37", "2.5.29.15", "2.5.29.30", "2.5.29.19", "1.3.6.1.4.9")
)


def certificate(data: bytes) -> None:
    """What a false server shows: nothing but an explicit decision for it makes it trusted.

    Either any bytes, or a well-signed certificate with any bytes in its name and extensions, whose
    key is even the pinned one: then it is for the host, or not trusted.
    """
    acts = Acts(data)
    if acts.number() % 2 == 0:
        octets, names = acts.rest(), b""
    else:
        octets, names = _issue(acts)
    try:
        shown = load_certificate(FILETYPE_ASN1, octets)
    except Error:
        return  # OpenSSL asks nobody about what it cannot read
    verification = Verification(TrustPolicy(HOST, fingerprints=("SPKI-SHA256:" + "ab" * 32,)))
    verification.step(None, shown, 0, 0, 1)
    assert not verification.trusted
    chained = Verification(TrustPolicy(HOST))
    chained.step(None, shown, 20, 0, 0)  # its authority is unknown
    chained.step(None, shown, 0, 0, 1)
    assert not chained.trusted
    pinned = Verification(TrustPolicy(HOST, fingerprints=(_PIN,)))
    pinned.step(None, shown, 18, 0, 0)  # it is self-signed
    pinned.step(None, shown, 0, 0, 1)
    lower = names.lower()
    assert not pinned.trusted or HOST.encode() in lower or b"*.example.com" in lower


def _issue(acts: Acts) -> tuple[bytes, bytes]:
    """A certificate, and what its names are made of."""
    common = acts.take(acts.number() % 32 + 1).decode("latin-1").replace("\0", "x") or "x"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=_KEY.public_key(),
        serial_number=1,
        not_valid_before=_DAY,
        not_valid_after=_DAY + datetime.timedelta(days=400),
    )
    names = b""
    for oid in _EXTENSIONS:
        value = acts.piece()
        if value:
            names = names or (value if oid == _EXTENSIONS[0] else b"")
            extension = x509.UnrecognizedExtension(oid, value)
            builder = builder.add_extension(extension, bool(len(value) % 2))
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(Encoding.DER), names


_PIN: Final = spki_fingerprint(x509.load_der_x509_certificate(_issue(Acts(b""))[0]))


def certificates() -> Iterable[bytes]:
    for issued in (self_signed(), self_signed(("127.0.0.1", "*.example.com")), Authority().issue()):
        yield b"\x00" + issued.certificate.public_bytes(Encoding.DER)
    for hosts in ((HOST,), ("*.example.com", "a.b"), ("192.0.2.1",)):
        names = x509.SubjectAlternativeName(general_names(hosts)).public_bytes()
        uses = x509.ExtendedKeyUsage(SERVER_USE).public_bytes()
        yield b"\x01\x03name" + act(0, names)[1:] + act(0, uses)[1:] + bytes(8)


# --- settings ------------------------------------------------------------------------------------

_MEMORY: Final = "/dev/shm"
_FOLDER: Final = tempfile.TemporaryDirectory(
    prefix="cloudconnect-fuzz-", dir=_MEMORY if os.path.isdir(_MEMORY) else None
)
_LOADERS: Final[tuple[tuple[str, Callable[[Path], Any]], ...]] = (
    (provider.CONFIGURATION, provider.load),
    (gateway.CONFIGURATION, gateway.load),
    (wan.CONFIGURATION, wan.load),
)


def settings(data: bytes) -> None:
    """Files of settings of every kind, as somebody may have left them."""
    folder = Path(_FOLDER.name)
    for name, load in _LOADERS:
        (folder / name).write_bytes(data)
        with contextlib.suppress(CloudConnectError):
            load(folder)
    saved = folder / "cloudconnect" / "x.toml"
    saved.parent.mkdir(exist_ok=True)
    saved.write_bytes(data)
    os.chmod(saved, 0o600)
    try:
        found = profile.load({"XDG_CONFIG_HOME": _FOLDER.name}, "x")
        if found is not None:
            found.to_toml()
            found.address  # noqa: B018
    except CloudConnectError:
        pass


def first_settings() -> Iterable[bytes]:
    yield b'hosts = ["localhost"]\nadvertise = []\nlisten = "tcp:6180"\n'
    yield b'service = "127.0.0.1:6181"\nlisten = "tcp:6180"\nname = "one"\n'
    yield b'side = "target"\nservice = "127.0.0.1:6181"\nbackend = "127.0.0.1:1"\n'
    yield b'provider = "localhost:6180"\ntenant = "acme"\nfingerprints = ["SHA256:00"]\n'
    yield b"[table]\nx = 1\n"


TARGETS = (
    Target("names", names, first_names, 512),
    Target("kit", kit, kits),
    Target("certificate", certificate, certificates, 2048),
    Target("settings", settings, first_settings, 1024),
)
