"""Who may do what, over which way, and that nobody learns the secrets."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import ipaddress
import pathlib
import socket
import ssl
import urllib.parse
from collections.abc import Iterator

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers import http_proxy, proxy, s3_places
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import protocol, s3_url
from vimgvc.cli import main
from vimgvc.repo import places

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server

_NAME = backend.pack(1)


def test_n24_append_only_credentials(rgw: s3_places.Server, tmp_path: pathlib.Path) -> None:
    """N24: who may not delete can do everything else, is known for it, and is told which right is missing."""
    place, memory = rgw.place(), places.Places(tmp_path)
    there = place.backend(memory, environ=s3_places.allow(rgw, "PutObject", "GetObject", "ListBucket"))
    assert there.put(_NAME, [b"kept"])
    assert not there.put(_NAME, [b"other"])
    assert (there.get(_NAME), there.size(_NAME), backend.names(there.list("packs"))) == (b"kept", 4, [_NAME])
    there.sync()
    answer = memory.recall(there.url)
    assert answer is not None
    assert (answer.exclusive_create, answer.removes) == (True, False)
    assert not there.capabilities.removes
    for names in ([_NAME], [_NAME, backend.pack(2)]):
        with pytest.raises(errors.RemoteError, match="may not delete") as raised:
            there.delete_all(names)
        assert "s3:DeleteObject" in raised.value.hint
    assert there.get(_NAME) == b"kept"


def _run(*arguments: str) -> tuple[int, str]:
    """Exit code and all words."""
    with contextlib.redirect_stdout(io.StringIO()) as words, contextlib.redirect_stderr(words):
        code = main.run(list(arguments))
    return code, words.getvalue()


def test_n24_a_host_that_only_adds(
    rgw: s3_places.Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """N24: with a write key and rights below inbox/ only, a host delivers, and can do nothing else."""
    place = rgw.place()
    monkeypatch.chdir(tmp_path)
    for name, value in {**rgw.environ, "VIMGVC_REPOSITORY": place.url, "VIMGVC_PASSWORD": "correct horse"}.items():
        monkeypatch.setenv(name, value)
    image = np.random.default_rng(seed).bytes(2 << 20)
    pathlib.Path("db.img").write_bytes(image)
    for arguments in (
        ("init", "--kdf-memory", "64MiB"),
        ("key", "add", "--write-only", "web1.key", "--label", "web1"),
        ("commit", "db.img"),
    ):
        code, words = _run(*arguments)
        assert code == 0, words
    below = f"arn:aws:s3:::{rgw.bucket}/{place.prefix}"
    rights = {
        "ListBucket": [f"arn:aws:s3:::{rgw.bucket}"],
        "GetObject": [f"{below}/config", f"{below}/keys/*", f"{below}/inbox/*", f"{below}/probe/*"],
        "PutObject": [f"{below}/inbox/*", f"{below}/probe/*"],
    }
    with monkeypatch.context() as host:
        for name, value in s3_places.allow_each(rgw, rights).items():
            host.setenv(name, value)
        host.delenv("VIMGVC_PASSWORD")
        host.setenv("HOME", str(tmp_path / "host"))
        code, words = _run("--key-file", "web1.key", "commit", "db.img")
        assert code == 0, words
        assert _run("--key-file", "web1.key", "log")[0] == 12
        host.setenv("VIMGVC_PASSWORD", "correct horse")
        code, words = _run("commit", "db.img", "--allow-empty")  # who knows the passphrase lacks the right
        assert code == 25, words
    code, words = _run("admit")
    assert (code, words.startswith("admitted")) == (0, True), words
    code, words = _run("restore", "web1/db", "back.img")
    assert code == 0, words
    assert pathlib.Path("back.img").read_bytes() == image
    assert not [name for name in place.keys() if name.startswith("inbox/") and not name.endswith("/done")]  # noqa: SIM118


@pytest.mark.parametrize(
    ("actions", "right"),
    [
        (("GetObject", "ListBucket"), "s3:PutObject"),
        (("PutObject", "ListBucket"), "s3:GetObject"),
        (("PutObject", "GetObject"), "s3:ListBucket"),
    ],
)
def test_n24_missing_rights(rgw: s3_places.Server, actions: tuple[str, ...], right: str) -> None:
    """N24: whatever right is missing is named."""
    place = rgw.place()
    place.put(_NAME, b"x")
    there = place.backend(environ=s3_places.allow(rgw, *actions))

    def use() -> None:
        list(there.list("packs"))
        there.put(backend.pack(2), [b"x"])
        there.get(_NAME)

    with pytest.raises(errors.RemoteError) as raised:
        use()
    assert right in raised.value.hint
    assert raised.value.kind == "denied"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "not-the-secret-of-anybody"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_n8_n22_wrong_credentials(rgw: s3_places.Server, change: dict[str, str], word: str) -> None:
    """N8, N22: credentials that are not accepted are told with what to check, and never shown."""
    environ = {**rgw.environ, **change}
    with pytest.raises(errors.RemoteError) as raised:
        rgw.place().backend(environ=environ).get(_NAME)
    assert word in raised.value.hint
    shown = f"{raised.value!r} {raised.value.hint} {raised.value.__cause__!r}"
    assert environ["AWS_SECRET_ACCESS_KEY"] not in shown
    assert rgw.client.secret not in shown


def test_n22_no_secret_in_any_request(rgw: s3_places.Server) -> None:
    """N22: the secret signs, and is in no request; nor is it in what the objects show of themselves."""
    with rgw.through_proxy() as (place, wire):
        there = place.backend()
        there.put(_NAME, [b"x"])
        list(there.list("packs"))
        assert not any(rgw.client.secret.encode() in request.wire + request.body for request in wire.seen)
        assert rgw.client.secret not in repr(vars(there))
        assert rgw.client.secret not in there.url


def test_n23_proxies_of_the_environment(rgw: s3_places.Server) -> None:
    """N23: what goes to this machine without encryption goes through no proxy, whatever the environment says."""
    with proxy.Proxy("127.0.0.1", 9) as elsewhere:
        address = f"http://127.0.0.1:{elsewhere.port}"
        environ = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), address)
        there = rgw.place().backend(environ={**rgw.environ, **environ})
        there.put(_NAME, [b"x"])
        assert elsewhere.carried == []


class _Encrypted(proxy.Proxy):
    """In front of a server, with a certificate of its own making for 127.0.0.1."""

    def __init__(self, host: str, port: int, folder: pathlib.Path) -> None:
        super().__init__(host, port)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vimgvc tests")])
        now = dt.datetime.fromtimestamp(1_700_000_000, dt.UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=20_000))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = folder / "certificate.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret = folder / "key.pem"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        secret.write_bytes(key.private_bytes(*form))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, secret)

    def serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(client, server_side=True) as plain:
            super().serve(plain)


@pytest.fixture
def encrypted(rgw: s3_places.Server, tmp_path: pathlib.Path) -> Iterator[tuple[s3_places.Place, _Encrypted]]:
    parts = urllib.parse.urlsplit(rgw.client.endpoint)
    with _Encrypted(parts.hostname or "", parts.port or 80, tmp_path) as wire:
        yield rgw.place(f"https://127.0.0.1:{wire.port}"), wire


def test_n21_certificates(rgw: s3_places.Server, encrypted: tuple[s3_places.Place, _Encrypted]) -> None:
    """N21: a certificate of nobody that is trusted is refused at once, unless the user trusts it by file."""
    place, wire = encrypted
    with pytest.raises(errors.RemoteError, match="certificate is not valid") as raised:
        place.backend().get(_NAME)
    assert "AWS_CA_BUNDLE" in raised.value.hint
    assert len(wire.carried) == 0
    environ = {**rgw.environ, "AWS_CA_BUNDLE": str(wire.certificate)}
    blob = bytes(range(256)) * 5000
    with contextlib.closing(place.backend(environ=environ)) as there:
        assert there.put(_NAME, [blob])
        assert there.get(_NAME) == blob
        assert backend.names(there.list("packs")) == [_NAME]
    with pytest.raises(errors.UsageError):
        place.backend(environ={**rgw.environ, "AWS_CA_BUNDLE": str(wire.certificate) + ".not"})


def test_n23_encrypted_connections_pass_through_proxies(rgw: s3_places.Server) -> None:
    """N23: a proxy sees of an encrypted connection where it goes, and nothing of a request; no_proxy is honoured."""
    with http_proxy.HttpProxy("127.0.0.1", 9) as web:
        web.on("CONNECT", "", http_proxy.answer(403))
        environ = {**rgw.environ, "https_proxy": f"http://user:word@127.0.0.1:{web.port}"}
        place = s3_places.Place(rgw, "p", "https://store.invalid:8443")
        with pytest.raises(errors.RemoteError):
            place.backend(environ=environ).get(_NAME)
        assert {(request.method, request.target) for request in web.seen} == {("CONNECT", "store.invalid:8443")}
        assert not any("AWS4" in str(request.headers) for request in web.seen)
        web.forget()
        with pytest.raises(errors.RemoteError, match="no such host"):
            place.backend(environ={**environ, "no_proxy": "other, .invalid"}).get(_NAME)
        assert web.seen == []


def test_dead_host(rgw: s3_places.Server) -> None:
    """A host that does not answer is told so, after a few tries."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for endpoint in (f"http://127.0.0.1:{port}", "https://store.invalid"):
        with pytest.raises(errors.RemoteError) as raised:
            s3_places.Place(rgw, "p", endpoint).backend().get(protocol.CONFIG)
        assert (raised.value.kind, raised.value.exit_code) == ("unreachable", 25)
        assert raised.value.hint


def test_virtual_hosts(rgw: s3_places.Server) -> None:
    """With style=virtual the bucket is part of the host, for who is asked and for what is signed."""
    address = s3_url.parse("s3://disks/a?style=virtual&endpoint=https://store.example:444", {})
    assert address.origin == "https://disks.store.example:444"
    assert s3_url.parse(address.url, {}) == address
