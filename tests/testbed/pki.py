# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys of one control plane, made at every start and thrown away with its folder.

* Nothing here is ever committed, and the authority's private key is never written at all.
* Key identifiers and usages are set: Python 3.13 verifies strictly (RFC 5280) by default.

Sources: "PKI certificates and requirements" of the Kubernetes documentation; RFC 5280.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_IPS: Final = ("127.0.0.1", "10.0.2.2", "10.96.0.1")
"""Loopback; the host as seen from a QEMU guest with user networking; the ``kubernetes`` Service."""

SERVER_NAMES: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)

LIFETIME: Final = timedelta(days=30)
"""Longer than anyone leaves a test bed running."""

CLOCK_SKEW: Final = timedelta(hours=1)
"""A guest's clock may be behind ours."""


class Pki(NamedTuple):
    """Paths of the files that ``write_pki`` made."""

    ca: Path
    server_cert: Path
    server_key: Path
    service_account_key: Path
    service_account_pub: Path


def write_pki(folder: Path) -> Pki:
    """Make an authority, a serving certificate and the service-account key pair in `folder`, which is created."""
    folder.mkdir(mode=0o700)
    pki = Pki(*(folder / name for name in ("ca.crt", "server.crt", "server.key", "sa.key", "sa.pub")))
    ca_key, server_key, service_account_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    ca = _authority(ca_key)
    pki.ca.write_bytes(_pem(ca))
    pki.server_cert.write_bytes(_pem(_serving_certificate(server_key.public_key(), ca, ca_key)))
    write_private(pki.server_key, _private_pem(server_key))
    write_private(pki.service_account_key, _private_pem(service_account_key))
    pki.service_account_pub.write_bytes(
        service_account_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return pki


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else could read at any moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("test-bed-ca")
    return (
        _certificate(name, name, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _serving_certificate(
    key: ec.EllipticCurvePublicKey, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVER_NAMES]
    names += [x509.IPAddress(IPv4Address(address)) for address in SERVER_IPS]
    return (
        _certificate(_name("kube-apiserver"), ca.subject, key, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
