"""What an S3 URL may say, and what it means."""

from __future__ import annotations

import pytest

from vimgvc import errors
from vimgvc.backends import registry, s3_url

_AMAZON = "https://s3.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "bucket", "prefix", "endpoint"),
    [
        ("s3://disks", "disks", "", _AMAZON),
        ("S3://disks/", "disks", "", _AMAZON),
        ("s3://disks/a/b c/", "disks", "a/b c", _AMAZON),
        ("s3://disks/a%20b", "disks", "a b", _AMAZON),
        ("s3://disks/a?region=eu-west-1", "disks", "a", "https://s3.eu-west-1.amazonaws.com"),
        ("s3://disks?endpoint=https://Store.example/", "disks", "", "https://store.example"),
        ("s3://disks?endpoint=https://store.example:443", "disks", "", "https://store.example"),
        ("s3://disks?endpoint=https%3A%2F%2Fstore.example%3A8443", "disks", "", "https://store.example:8443"),
        ("s3://disks?endpoint=http://127.0.0.1:9000", "disks", "", "http://127.0.0.1:9000"),
        ("s3://disks?endpoint=http://[::1]:9000", "disks", "", "http://[::1]:9000"),
    ],
)
def test_meaning(url: str, bucket: str, prefix: str, endpoint: str) -> None:
    """A URL means a bucket, a prefix and an endpoint; its canonical form means the same in any environment."""
    found = s3_url.parse(url, {})
    assert (found.bucket, found.prefix, found.endpoint) == (bucket, prefix, endpoint)
    elsewhere = {"AWS_ENDPOINT_URL_S3": "https://other.example", "AWS_REGION": "xx"}
    assert s3_url.parse(found.url, elsewhere) == found
    assert s3_url.parse(found.url, elsewhere).url == found.url


def test_n23_endpoint() -> None:
    """N23: the URL's endpoint counts, whatever the environment says; without one the environment's is in the name."""
    environ = {"AWS_ENDPOINT_URL": "https://general.example"}
    assert s3_url.parse("s3://disks", environ).endpoint == "https://general.example"
    environ["AWS_ENDPOINT_URL_S3"] = "https://special.example:444"
    found = s3_url.parse("s3://disks", environ)
    assert found.endpoint == "https://special.example:444"
    assert "special.example:444" in found.url
    assert s3_url.parse("s3://disks?endpoint=https://said.example", environ).endpoint == "https://said.example"


_OTHER_HOSTS = ["store.example", "10.0.0.1", "127.0.0.1.example", "localhost.example", "[2001:db8::1]"]


@pytest.mark.parametrize("host", _OTHER_HOSTS)
def test_n21_plain_http(host: str) -> None:
    """N21: without encryption only this machine is reached, unless the URL says that it may be."""
    for url, environ in (
        (f"s3://disks?endpoint=http://{host}", {}),
        ("s3://disks", {"AWS_ENDPOINT_URL_S3": f"http://{host}"}),
    ):
        with pytest.raises(errors.UsageError) as raised:
            s3_url.parse(url, environ)
        assert "insecure=1" in raised.value.hint
    assert s3_url.parse(f"s3://disks?insecure=1&endpoint=http://{host}", {}).insecure


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:tops3cret@disks/a",
        "s3://tops3cret@disks/a",
        "s3://disks/a?endpoint=https://u:tops3cret@store.example",
        "s3://disks/a?endpoint=https%3A%2F%2Fu%3Atops3cret%40store.example",
        "s3://disks/a?secret_access_key=tops3cret",
        "s3://disks/a?X-Amz-Signature=tops3cret",
        "s3://disks/a?tops3cret=x",
        "s3://disks/a?tops3cret",
        "s3://disks/a#tops3cret",
        "s3://disks/a?region=tops3cret!",
    ],
)
def test_n22_credentials(url: str) -> None:
    """N22: a URL with what may be credentials is refused, and they are in no word of the answer."""
    with pytest.raises(errors.UsageError) as raised:
        registry.open_backend(url, environ={})
    shown = raised.value.message + raised.value.hint
    assert ("tops3cret" in shown) == ("region" in url)  # a region is no secret
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///a",
        "s3://ab",
        "s3://-ab-/x",
        "s3://disks:80/x",
        "s3://disks/a//b",
        "s3://disks/../b",
        "s3://disks/./b",
        "s3://disks/a%00b",
        "s3://disks/a%0Ab",
        "s3://disks/a\nb",
        "s3://disks/" + "a" * 300,
        "s3://disks?endpoint=ftp://host",
        "s3://disks?endpoint=https://host/path",
        "s3://disks?endpoint=https://host:x",
        "s3://disks?endpoint=https://[::1",
        "s3://disks?endpoint=https://host?x=y",
        "s3://disks?endpoint=https://a&endpoint=https://b",
        "s3://disks?style=other",
        "s3://disks?insecure=yes",
        "s3://disks?unknown=1",
    ],
)
def test_refused(url: str) -> None:
    """What is no S3 URL is a mistake in the command line, with the form of one in the hint."""
    with pytest.raises(errors.UsageError) as raised:
        s3_url.parse(url, {})
    assert raised.value.hint
