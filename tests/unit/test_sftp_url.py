"""What an SFTP URL means, and which are refused before anything is connected."""

from __future__ import annotations

import pytest

from vimgvc import errors
from vimgvc.backends import registry, sftp_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("sftp://host/a/b", ("", "host", None, b"/a/b")),
        ("sftp://me@host:2222/a/", ("me", "host", 2222, b"/a")),
        ("sftp://me@host//a//b", ("me", "host", None, b"/a/b")),
        ("sftp://host/~/a/b", ("", "host", None, b"a/b")),
        ("sftp://host/a%20b%25%ff", ("", "host", None, b"/a b%\xff")),
        ("sftp://HOST.Example.org/a", ("", "host.example.org", None, b"/a")),
        ("sftp://[fe80::1%25eth0]:22/a", ("", "fe80::1%eth0", 22, b"/a")),
        ("sftp://[::1]/a", ("", "::1", None, b"/a")),
        ("sftp://some%40domain@host/a", ("some@domain", "host", None, b"/a")),
    ],
)
def test_meaning(url: str, address: tuple[str, str, int | None, bytes]) -> None:
    """Each part is where it belongs; what the address prints means the same again."""
    parsed = sftp_url.parse(url)
    assert parsed == sftp_url.Address(*address)
    assert sftp_url.parse(parsed.url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "sftp://",
        "sftp:///a",
        "sftp://host",
        "sftp://host/",
        "sftp://host/~",
        "sftp://host/~/",
        "sftp://host:port/a",
        "sftp://host:99999/a",
        "sftp://host/a?x=y",
        "sftp://host/a#x",
        "sftp://host/a%00b",
        "sftp://host/a\nb",
        "sftp://[::1/a",
        "sftp://-oProxyCommand=x/a",
        "sftp://host$(id)/a",
        "sftp://host;id/a",
        "sftp://ho%20st/a",
        "sftp://-x@host/a",
        "sftp://a;b@host/a",
        f"sftp://host/{'a' * 5000}",
    ],
)
def test_refused(url: str) -> None:
    """What is no address of a directory, or could be read as an option or a command by a shell, is refused."""
    with pytest.raises(errors.UsageError) as raised:
        registry.open_backend(url, environ={})
    assert raised.value.hint


@pytest.mark.parametrize("url", ["sftp://me:secret@host/a", "sftp://:secret@host/a", "sftp://me:secret@host:x/a"])
def test_n22_password(url: str) -> None:
    """N22: a password in a URL is refused, and in no message."""
    with pytest.raises(errors.UsageError) as raised:
        registry.open_backend(url, environ={})
    assert "secret" not in f"{raised.value.message}{raised.value.hint}"
