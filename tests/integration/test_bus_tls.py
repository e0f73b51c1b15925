"""The bus over TLS: the server proves who it is to a CA of our own, and nobody else is believed."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asof.embedded import ServerBinary, find_servers
from asof.redis_health import examine_redis
from asof.settings import HouseSettings, read_settings
from shared.bus import Subscription, client
from shared.errors import ContractError, TransientError
from tests.integration.bus_parts import Seen, run, running, service
from tests.redis_server import running_server
from tests.sentinel import Tls, free_port, watched_pair

PASSWORD = "s@fe/and sound"


@dataclass(frozen=True)
class Secured:
    port: int
    ca: Path
    other_ca: Path
    password: Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    binary = next((one for one in find_servers() if speaks_tls(one)), None)
    if binary is None:
        pytest.skip("no server with TLS on PATH: apt-get install redis-server")
    make_authority(folder / "ca")
    return Tls(binary, folder / "ca.server.pem", folder / "ca.server.key", folder / "ca.pem")


@pytest.fixture(scope="module")
def secured(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server that speaks TLS alone, asks for a password, and has a certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("secured")
    make_authority(folder / "other")
    (folder / "password").write_text(PASSWORD + "\n")
    port = free_port()
    options = [part for name, value in tls.options.items() for part in (f"--{name}", value)]
    options += ["--tls-port", str(port), "--requirepass", PASSWORD]
    with running_server(folder / "server", *options, binary=tls.binary):
        yield Secured(port, tls.ca, folder / "other.pem", folder / "password")


def speaks_tls(binary: ServerBinary) -> bool:
    answer = subprocess.run(
        [str(binary.path), "--port", "0", "--tls-port", "1"], capture_output=True, text=True, timeout=10
    )
    # Without a certificate every server ends at once; one that knows TLS says that the certificate is what it lacks.
    return "tls-cert-file" in answer.stdout + answer.stderr


def make_authority(path: Path) -> None:
    """A CA in `<path>.pem`, and a certificate for 127.0.0.1 that it has signed in `<path>.server.pem` and `.key`."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"asof test {path.name}")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(host, critical=False)
            .sign(ca_key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    Path(f"{path}.pem").write_bytes(certificate(ca_name, ca_key.public_key(), ca=True))
    Path(f"{path}.server.pem").write_bytes(certificate(name, key.public_key(), ca=False))
    Path(f"{path}.server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def url_of(secured: Secured, **given: object) -> str:
    settings = read_settings(
        HouseSettings,
        redis_url=f"rediss://127.0.0.1:{secured.port}/0",
        redis_password_file=secured.password,
        **given,
    )
    url = settings.redis()
    assert url is not None
    return url.get_secret_value()


async def test_events_travel_over_tls_with_the_settings_of_a_house(secured: Secured, tmp_path: Path) -> None:
    url = url_of(secured, redis_ca_file=secured.ca)
    seen = Seen()
    async with running(service("fetcher", tmp_path, Subscription("run-candidates", seen)), url=url):
        await client.publish(url, [run("r1")])
        assert [event.runid for event in await seen.until(1)] == ["r1"]
        assert await client.settle(url, timeout_s=60) == []
    assert {check.name for check in await examine_redis(url, expect_services=False)} >= {"redis", "clock"}


async def test_a_server_that_an_unknown_authority_signed_for_is_not_believed(secured: Secured, tmp_path: Path) -> None:
    for url in (url_of(secured, redis_ca_file=secured.other_ca), url_of(secured)):
        with pytest.raises(TransientError, match="certificate verify failed"):
            await client.publish(url, [run("r1")])


async def test_a_server_that_speaks_tls_alone_takes_nothing_in_the_clear(secured: Secured) -> None:
    with pytest.raises(TransientError):
        await client.publish(f"redis://127.0.0.1:{secured.port}/0", [run("r1")])


async def test_a_master_that_died_is_replaced_over_tls_too(tls: Tls, tmp_path: Path) -> None:
    seen = Seen()
    with watched_pair(tmp_path / "servers", tls) as pair:
        async with running(service("fetcher", tmp_path, Subscription("run-candidates", seen)), url=pair.url()):
            await client.publish(pair.url(), [run("before")])
            await seen.until(1)
            assert await client.settle(pair.url(), timeout_s=60) == []
            pair.servers[0].kill()
            async with asyncio.timeout(60):
                while True:
                    with suppress(TransientError):
                        await client.publish(pair.url(), [run("after")])
                        break
            assert {event.runid for event in await seen.until(2)} == {"before", "after"}
            assert pair.address()[1] == pair.ports[1]


def test_a_ca_file_without_tls_is_named(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    with pytest.raises(ContractError, match="does not ask for TLS"):
        read_settings(HouseSettings, redis_url="redis://h/0", redis_ca_file=ca).redis()
    with pytest.raises(ContractError, match="names no file"):
        read_settings(HouseSettings, redis_url="rediss://h/0", redis_ca_file=tmp_path / "nothing").redis()
