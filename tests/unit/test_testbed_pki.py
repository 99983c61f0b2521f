# SPDX-License-Identifier: Apache-2.0
"""The certificate of the test bed is good for every address that someone reaches it by."""

from __future__ import annotations

import ssl
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.testbed.pki import Pki, write_pki

pytestmark = pytest.mark.uncounted


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return write_pki(tmp_path_factory.mktemp("bed") / "pki")


def verify(pki: Pki, subject: x509.IPAddress | x509.DNSName) -> list[x509.Certificate]:
    """Return the chain from the serving certificate to the authority."""
    authority = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    leaf = x509.load_pem_x509_certificate(pki.server_cert.read_bytes())
    return PolicyBuilder().store(Store([authority])).build_server_verifier(subject).verify(leaf, [])


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(x509.IPAddress(IPv4Address("127.0.0.1")), id="loopback"),
        pytest.param(x509.IPAddress(IPv4Address("10.0.2.2")), id="host of a QEMU guest"),
        pytest.param(x509.IPAddress(IPv4Address("10.96.0.1")), id="kubernetes Service"),
        pytest.param(x509.DNSName("localhost"), id="localhost"),
        pytest.param(x509.DNSName("kubernetes.default.svc"), id="Service name"),
    ],
)
def test_serving_certificate_is_good_for(pki: Pki, subject: x509.IPAddress | x509.DNSName) -> None:
    chain = verify(pki, subject)

    assert chain[-1] == x509.load_pem_x509_certificate(pki.ca.read_bytes())


def test_serving_certificate_passes_the_strict_checks_that_python_3_13_made_the_default(pki: Pki) -> None:
    client_context = ssl.create_default_context(cafile=str(pki.ca))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pki.server_cert, pki.server_key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server):  # hello, and the server's answer with its certificate
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()

    client.do_handshake()  # verifies, or raises SSLCertVerificationError

    assert client.getpeercert()


def test_serving_certificate_is_not_good_for_other_addresses(pki: Pki) -> None:
    with pytest.raises(VerificationError):
        verify(pki, x509.IPAddress(IPv4Address("10.0.2.3")))


def test_private_keys_are_readable_by_their_owner_only(pki: Pki) -> None:
    assert [path.stat().st_mode & 0o777 for path in (pki.server_key, pki.service_account_key)] == [0o600, 0o600]


def test_private_key_of_the_authority_is_written_nowhere(pki: Pki) -> None:
    assert {path.name for path in pki.ca.parent.iterdir()} == {path.name for path in pki}
