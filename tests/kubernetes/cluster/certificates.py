"""A throw-away authority, the API server's certificate, and the key that signs service accounts' tokens."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey
LIFETIME = timedelta(days=2)


def write_certificates(folder: Path) -> None:
    """ca.crt, server.crt, server.key, accounts.key and accounts.pub."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("hearth tests")
    own = _certificate(issuer, issuer, authority, authority)
    own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (folder / "ca.crt").write_bytes(own.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM))
    names = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    )
    served = _certificate(_name("kube-apiserver"), issuer, server, authority).add_extension(names, False)
    (folder / "server.crt").write_bytes(served.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM))
    _write_key(folder / "server.key", server)
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write_key(folder / "accounts.key", accounts)
    public = accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "accounts.pub").write_bytes(public)


def write_own_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of a node's agent, signed by nobody else: API servers ask for no more."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("virtual node")
    own = _certificate(name, name, key, key).sign(key, hashes.SHA256())
    (folder / "node.crt").write_bytes(own.public_bytes(Encoding.PEM))
    _write_key(folder / "node.key", key)
    return folder / "node.crt", folder / "node.key"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: Key, authority: Key) -> x509.CertificateBuilder:
    moment = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(hours=1))
        .not_valid_after(moment + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
    )


def _write_key(file: Path, key: Key | rsa.RSAPrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
