"""Layer 5: a provider's certificate over the years: looked at, renewed, replaced, and its next key.

The next key is made, and its pin announced, before it is used (``DIRECTORY/tls/next-key.pem``):
tenants that check the pin note it in time, and the change shuts nobody out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from cloudconnect.config.certificates import make_server_certificate
from cloudconnect.config.profile import write_private
from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.transports.hosts import is_address, names_in
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.trust import certificate_fingerprint, spki_fingerprint


@attrs.frozen
class Shown:
    """What there is to say of a certificate.

    :ivar spki: fingerprint of its public key
    :ivar fingerprint: of the whole certificate
    :ivar names: host names and addresses that it is for, as text
    :ivar begins: seconds since 1970
    :ivar ends: likewise
    :ivar self_signed: whether no authority has signed it
    """

    spki: str
    fingerprint: str
    names: str
    begins: float
    ends: float
    self_signed: bool


def shown(certificate: x509.Certificate) -> Shown:
    """Look at a certificate."""
    return Shown(
        spki_fingerprint(certificate),
        certificate_fingerprint(certificate),
        names_in(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        certificate.issuer == certificate.subject,
    )


def next_key_path(settings: ProviderSettings) -> Path:
    """Where the next key lies as long as it is announced."""
    return settings.directory / "tls" / "next-key.pem"


def next_pin(settings: ProviderSettings) -> str | None:
    """The pin of the next key, or None where there is none.

    :raises UsageError: the file cannot be used
    """
    path = next_key_path(settings)
    return _pin(_load(path)) if path.exists() else None


def prepare_next(settings: ProviderSettings, key: Path | None = None) -> str:
    """Make the next key, or take the one in ``key``; its pin. One that is there already stays.

    :raises UsageError: ``key`` is none, or another one is announced already
    """
    path, known = next_key_path(settings), next_pin(settings)
    if key is not None:
        given = _load(key)
        if known is not None and known != _pin(given):
            raise UsageError(
                f"another key is announced already: {known}. Use it, or remove {path} first"
            )
        known = known or _keep_key(path, given)
    return known or _keep_key(path, ec.generate_private_key(ec.SECP256R1()))


def next_request(settings: ProviderSettings) -> bytes:
    """A request for a certificate of the next key, PEM, to send to an authority.

    :raises NotFound: there is no next key
    """
    if next_pin(settings) is None:
        raise NotFound("there is no next key yet: make it with provider certificate next")
    key = _load(next_key_path(settings))
    names: list[x509.GeneralName] = []
    for host in settings.hosts:
        if is_address(host):
            import ipaddress

            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        else:
            names.append(x509.DNSName(host))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, settings.hosts[0][:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = request.add_extension(x509.SubjectAlternativeName(names), False)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def renew(settings: ProviderSettings, days: int, use_next: bool = False) -> Shown:
    """Make the provider's self-signed certificate again, for the hosts of ``provider.toml``.

    :param use_next: for the next key, which so becomes the key; else for the one that it has
    :raises UsageError: the certificate is an authority's, or not in the provider's own folder
    :raises NotFound: there is no next key
    """
    certificate, key = _own_files(settings)
    if not shown(settings.identity.certificates()[0]).self_signed:
        raise UsageError(
            "an authority has signed this certificate: have it renewed there, and then run "
            "cloudconnect provider certificate import"
        )
    if use_next:
        if next_pin(settings) is None:
            raise NotFound("there is no next key yet: make it with provider certificate next")
        made = _made_beside(settings, days)
        _replace(settings, made, _load(next_key_path(settings)))
        next_key_path(settings).unlink()
    else:
        made = _made_beside(settings, days, key)
        write_private(certificate, made)
    return shown(settings.identity.certificates()[0])


def import_certificate(
    settings: ProviderSettings, certificate: Path, key: Path | None, force: bool = False
) -> Shown:
    """Use the certificate in a file from now on.

    :param key: its key; None: the one that the provider has, or its next one
    :param force: also where tenants were not told of the key
    :raises UsageError: certificate and key do not belong together, the certificate has expired or
        is for none of the provider's hosts, or its key was not announced
    """
    _own_files(settings)
    found = ServerIdentity(str(certificate), str(key or certificate)).certificates()
    new, old = shown(found[0]), shown(settings.identity.certificates()[0])
    announced = next_pin(settings)
    if new.ends < time.time():
        raise UsageError(f"{certificate} has expired already")
    if new.spki not in (old.spki, announced) and not force:
        raise UsageError(
            f"{certificate} is for a key that tenants were not told of, {new.spki}: who checks the "
            "fingerprint would be shut out. Announce it first (cloudconnect provider certificate "
            "next --key F), or say --force"
        )
    if key is None:
        if new.spki not in (old.spki, announced):
            raise UsageError("name the certificate's key with --key")
        own = settings.directory / settings.key
        key = own if new.spki == old.spki else next_key_path(settings)
    ServerIdentity(str(certificate), str(key)).install(SSL.Context(SSL.TLS_METHOD))
    _replace(settings, certificate.read_bytes(), _load(key))
    if new.spki == announced:
        next_key_path(settings).unlink(missing_ok=True)
    return new


# --- files ---------------------------------------------------------------------------------------


def _own_files(settings: ProviderSettings) -> tuple[Path, Path]:
    paths = [settings.directory / name for name in (settings.certificate, settings.key)]
    for path in paths:
        if not path.resolve().is_relative_to(settings.directory.resolve()):
            raise UsageError(
                f"{path} is not in the provider's folder: whoever keeps it renews it; the running "
                "provider notices"
            )
    return paths[0], paths[1]


def _made_beside(settings: ProviderSettings, days: int, key: Path | None = None) -> bytes:
    """A self-signed certificate in PEM, for ``key`` or the next key."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=settings.directory, prefix=".tls-") as folder:
        source = key or next_key_path(settings)
        write_private(Path(folder) / "key.pem", source.read_bytes())
        made = make_server_certificate(settings.hosts, folder, days, keep_key=True)
        return Path(made.certificate_path).read_bytes()


def _replace(settings: ProviderSettings, certificate: bytes, key: Any) -> None:
    """Put a pair in the place of the old one, of which copies stay until the next time.

    Key first: a running provider that sees only one of the two new keeps both old ones.
    """
    paths = _own_files(settings)
    for path in paths:
        write_private(path.with_name(f"previous-{path.name}"), path.read_bytes())
    write_private(paths[1], _pem(key))
    write_private(paths[0], certificate)


def _keep_key(path: Path, key: Any) -> str:
    write_private(path, _pem(key))
    return _pin(key)


def _pem(key: Any) -> bytes:
    octets: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return octets


def _pin(key: Any) -> str:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public)
    return f"SPKI-SHA256:{digest.finalize().hex()}"


def _load(path: Path) -> Any:
    try:
        return load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    except (ValueError, TypeError):  # without their text: it is a key
        raise UsageError(f"{path} does not hold a private key that is not encrypted") from None
