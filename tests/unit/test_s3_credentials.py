"""Credentials are found where Amazon's programs find them, and in the same order."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from tests.servers import http_proxy
from vimgvc import errors
from vimgvc.backends import s3_credentials, s3_sign

_NONE = {"AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def home(tmp_path: pathlib.Path) -> dict[str, str]:
    """The environment of a user with two profiles."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "# mine\n[default]\naws_access_key_id = one\naws_secret_access_key=first%(x)s\n\n"
        "[work]\naws_access_key_id = two\naws_secret_access_key = second\naws_session_token = token\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion = eu-west-1\ns3 =\n    max_concurrent_requests = 20\n"
        "[profile work]\nregion = eu-north-1\n[profile role]\nrole_arn = arn:aws:iam::1:role/x\n"
    )
    return {**_NONE, "HOME": str(tmp_path)}


def test_environment_comes_first(home: dict[str, str]) -> None:
    """Keys of the environment count before those of a profile."""
    given = {**home, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_PROFILE": "work"}
    assert s3_credentials.Source(given).get() == s3_sign.Credentials("a", "b")
    given["AWS_SESSION_TOKEN"] = "c"
    assert s3_credentials.Source(given).get() == s3_sign.Credentials("a", "b", "c")
    del given["AWS_SECRET_ACCESS_KEY"]
    with pytest.raises(errors.UsageError):
        s3_credentials.Source(given).get()


def test_profiles(home: dict[str, str], tmp_path: pathlib.Path) -> None:
    """The profile that is named, else the default one, from both files or those that are named instead."""
    assert s3_credentials.Source(home).get() == s3_sign.Credentials("one", "first%(x)s")
    assert s3_credentials.region_of_profile(home) == "eu-west-1"
    work = {**home, "AWS_PROFILE": "work"}
    assert s3_credentials.Source(work).get() == s3_sign.Credentials("two", "second", "token")
    assert s3_credentials.region_of_profile(work) == "eu-north-1"
    (tmp_path / "other").write_text("[default]\naws_access_key_id=x\naws_secret_access_key=y\n")
    other = {**home, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "other"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    assert s3_credentials.Source(other).get() == s3_sign.Credentials("x", "y")
    assert s3_credentials.region_of_profile(other) == ""


@pytest.mark.parametrize(("profile", "word"), [("nobody", "no keys"), ("role", "role_arn")])
def test_profiles_without_keys(home: dict[str, str], profile: str, word: str) -> None:
    """A profile that is not there, or leads elsewhere, is refused by name."""
    with pytest.raises(errors.UsageError, match=word) as raised:
        s3_credentials.Source({**home, "AWS_PROFILE": profile}).get()
    assert profile in raised.value.message
    assert raised.value.hint


def test_n22_a_damaged_file_is_not_quoted(home: dict[str, str], tmp_path: pathlib.Path) -> None:
    """N22: of a file that cannot be read only the name is told."""
    for content in (b"aws_secret_access_key = tops3cret", b"[default\ntops3cret", b"\xff\xfetops3cret"):
        (tmp_path / ".aws" / "credentials").write_bytes(content)
        with pytest.raises(errors.UsageError) as raised:
            s3_credentials.Source(home).get()
        assert "tops3cret" not in f"{raised.value!r} {raised.value.hint} {raised.value.__cause__!r}"


def test_none(tmp_path: pathlib.Path) -> None:
    """Where there are none, the error says how to give some."""
    with pytest.raises(errors.RemoteError) as raised:
        s3_credentials.Source({**_NONE, "HOME": str(tmp_path)}).get()
    assert (raised.value.kind, raised.value.exit_code) == ("credentials", 25)


@pytest.fixture
def service() -> Iterator[http_proxy.HttpProxy]:
    """What a machine may ask who it is."""
    with http_proxy.HttpProxy("127.0.0.1", 9) as web:
        yield web


def _document(number: int, expires: str) -> bytes:
    said = {"AccessKeyId": f"k{number}", "SecretAccessKey": "s", "Token": "t", "Expiration": expires}
    return json.dumps(said).encode()


class _Clock:
    """Stands until it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_instance(service: http_proxy.HttpProxy) -> None:
    """An instance's keys are asked for with a token, kept until shortly before they end, then asked for again."""
    service.on("PUT", "/latest/api/token", http_proxy.answer(200, b"a-token"))
    service.on("GET", "credentials/$", http_proxy.answer(200, b"my-role"))
    service.on("GET", "credentials/my-role", http_proxy.answer(200, _document(1, "2030-01-01T00:00:00Z")), times=1)
    service.on("GET", "credentials/my-role", http_proxy.answer(200, _document(2, "2030-01-02T00:00:00Z")))
    clock = _Clock(1893456000.0 - 3600)  # an hour before 2030
    environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{service.port}"}
    source = s3_credentials.Source(environ, clock)
    first = s3_sign.Credentials("k1", "s", "t")
    assert [source.get(), source.get()] == [first, first]
    assert len(service.seen) == 3
    assert service.seen[-1].headers["x-aws-ec2-metadata-token"] == "a-token"
    clock.now += 3500
    assert source.get() == s3_sign.Credentials("k2", "s", "t")
    assert source.renew(first)
    assert not source.renew(source.get())


def test_container(service: http_proxy.HttpProxy, tmp_path: pathlib.Path) -> None:
    """A container's keys come from its agent, with the token that it was given, and over no open network."""
    (tmp_path / "token").write_text("my-token\n")
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{service.port}/v2?x=y",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
    }
    service.on("GET", "/v2", http_proxy.answer(200, _document(1, "2030-01-01T00:00:00Z")))
    assert s3_credentials.Source(environ).get() == s3_sign.Credentials("k1", "s", "t")
    assert (service.seen[0].target, service.seen[0].headers["authorization"]) == ("/v2?x=y", "my-token")
    environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://store.example/v2"
    with pytest.raises(errors.UsageError, match="without encryption"):
        s3_credentials.Source(environ).get()


@pytest.mark.parametrize("answer", [b"", b"{}", b"[1]", b'{"AccessKeyId": 1}', b"<html>"])
def test_answers_that_make_no_sense(service: http_proxy.HttpProxy, answer: bytes) -> None:
    """What is no document with keys is an error."""
    service.on("GET", "", http_proxy.answer(200, answer))
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{service.port}/"}
    with pytest.raises(errors.RemoteError):
        s3_credentials.Source(environ).get()
