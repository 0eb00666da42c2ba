"""TLS with a certificate that was given."""

import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from certificates import certificate
from edge import PREDICT, Edge, running_edge
from modelyard_serving.gateway.listener import Certificate


@dataclass
class Secure:
    edge: Edge
    certificate: Certificate

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.edge.gateway.port}{PREDICT}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate.chain))

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.edge.token('predict:tumor')}"}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, serve_app) -> Iterator[Secure]:
    given = certificate(tmp_path_factory.mktemp("certificate"))
    with running_edge(tmp_path_factory.mktemp("gateway"), serve_app, certificate=given) as edge:
        yield Secure(edge, given)


def test_callers_who_trust_the_certificate_are_answered(secure: Secure) -> None:
    assert httpx.post(secure.url, headers=secure.headers, verify=secure.trust).status_code == 200


def test_nothing_is_answered_in_the_clear(secure: Secure) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.post(secure.url.replace("https", "http"), headers=secure.headers)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_both_protocols_are_spoken(secure: Secure, protocol: str) -> None:
    context = secure.trust
    context.set_alpn_protocols([protocol])
    connection = context.wrap_socket(secure_socket(secure), server_hostname="127.0.0.1")
    with connection:
        assert connection.selected_alpn_protocol() == protocol
        assert connection.version() == "TLSv1.3"


def test_what_is_older_than_tls_1_2_is_refused(secure: Secure) -> None:
    context = secure.trust
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # that it is old is what is tested
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with secure_socket(secure) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def secure_socket(secure: Secure) -> socket.socket:
    return socket.create_connection(("127.0.0.1", secure.edge.gateway.port), timeout=10)


def test_a_gateway_that_has_no_certificate_any_more_speaks_plain_http_again(tmp_path: Path, serve_app) -> None:
    with running_edge(tmp_path, serve_app, certificate=certificate(tmp_path)) as edge:
        edge.tell(certificate=None)
        assert edge.post(PREDICT, "predict:tumor").status_code == 200
