"""Logging in to an SSH server as the user's own ssh would, and what is said when that fails."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import cast

import asyncssh

from vimgvc import errors
from vimgvc.backends import sftp_url
from vimgvc.backends.sftp_errors import Lost

#: The fast ones first; the rest is what OpenSSH offers by default.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
#: Bytes a server may send before it hears of us: over far links this bounds the rate of reading.
_WINDOW = 16 << 20
#: Seconds between signs of life while nothing else is said, so that no firewall forgets the connection.
_KEEPALIVE = 15
#: After so many that were not answered the connection counts as broken.
_UNANSWERED = 8
_OF_ALL_USERS = pathlib.Path("/etc/ssh/ssh_known_hosts")


class Unreachable(Exception):
    """There is no connection to be had now; later there may be."""


class _Client(asyncssh.SSHClient):
    """Remembers the key that the server showed and nobody vouches for."""

    def __init__(self) -> None:
        self.key: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = key
        return False


async def connect(
    address: sftp_url.Address,
    environ: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109
) -> asyncssh.SSHClientConnection:
    """Raises `RemoteError` for what will not change by itself, else `Unreachable` or `Lost`."""
    client = _Client()
    try:
        options = await _options(address)
        known = _known_hosts(address, options)
    except (ValueError, OSError, asyncssh.Error) as error:  # a configuration or a key that cannot be read
        raise errors.RemoteError(address.url, "ssh", f"ssh's configuration: {error}", hint=try_ssh(address)) from error
    try:
        async with asyncio.timeout(timeout):
            return await asyncssh.connect(
                address.host,
                options=options,
                client_factory=lambda: client,
                known_hosts=known,
                **_unless_configured(options, environ),
            )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _bad_host_key(address, client, error.reason) from error
    except asyncssh.PermissionDenied as error:
        raise errors.RemoteError(
            address.url,
            "denied",
            "the server accepts none of the keys it was offered",
            hint="load the key into ssh-agent, or name it with IdentityFile in ~/.ssh/config; passwords are not asked",
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        raise _no_agreement(address, error.reason) from error
    except asyncssh.ConnectionLost as error:
        raise Lost(error.reason) from error
    except asyncssh.Error as error:
        raise Unreachable(error.reason) from error
    except TimeoutError as error:
        raise Unreachable(f"no answer within {timeout:.0f} seconds") from error
    except OSError as error:
        raise Unreachable(os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)) from error
    except ValueError as error:  # what was received makes no sense
        raise Unreachable(str(error)) from error


async def _options(address: sftp_url.Address) -> asyncssh.SSHClientConnectionOptions:
    """What the user's configuration says, less what has no place here: terminals, forwarding, questions."""
    given: dict[str, object] = {"host": address.host}
    if address.port is not None:
        given["port"] = address.port
    if address.user:
        given["username"] = address.user
    options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
        config=(),  # ~/.ssh/config, if it is there
        password_auth=False,
        kbdint_auth=False,
        agent_forwarding=False,
        x11_forwarding=False,
        command=None,
        request_pty=False,
        keepalive_interval=_KEEPALIVE,
        keepalive_count_max=_UNANSWERED,
        window=_WINDOW,
        **given,
    )
    return options


def _unless_configured(options: asyncssh.SSHClientConnectionOptions, environ: Mapping[str, str]) -> dict[str, object]:
    ours: dict[str, object] = {}
    if not options.config.get("Ciphers"):
        ours["encryption_algs"] = _CIPHERS
    if not options.config.get("IdentityAgent"):
        ours["agent_path"] = environ.get("SSH_AUTH_SOCK", "")
    return ours


def _known_hosts(address: sftp_url.Address, options: asyncssh.SSHClientConnectionOptions) -> asyncssh.SSHKnownHosts:
    """The keys that the user vouches for; none is no reason to take any."""
    named = cast("Sequence[str] | None", options.known_hosts)  # as the configuration has it
    if named is None:
        raise errors.RemoteError(
            address.url,
            "host key",
            "~/.ssh/config says not to check the key of this host (UserKnownHostsFile none)",
            hint="take that out, and put the host's key into ~/.ssh/known_hosts",
        )
    home = pathlib.Path("~/.ssh/known_hosts").expanduser()
    paths = [pathlib.Path(name).expanduser() for name in named] or [home, _OF_ALL_USERS]
    return asyncssh.read_known_hosts([str(path) for path in paths if path.is_file()])


def _bad_host_key(address: sftp_url.Address, client: _Client, reason: str) -> errors.RemoteError:
    shows = f"; it shows {client.key.get_fingerprint()}" if client.key is not None else ""
    return errors.RemoteError(
        address.url,
        "host key",
        f"the server could be somebody else: {reason[:1].lower()}{reason[1:]}{shows}",
        hint=f"compare that with the server's own key; '{_ssh(address)}' once takes a new host into ~/.ssh/known_hosts",
    )


def _no_agreement(address: sftp_url.Address, reason: str) -> errors.RemoteError:
    return errors.RemoteError(
        address.url,
        "host key",
        f"no agreement on how to talk, or a host key of another kind than ~/.ssh/known_hosts has ({reason})",
        hint=f"if the server has a new key, compare it with the server's own; '{_ssh(address)}' tells more",
    )


def try_ssh(address: sftp_url.Address) -> str:
    return f"see whether '{_ssh(address)}' works"


def _ssh(address: sftp_url.Address) -> str:
    port = "" if address.port is None else f" -p {address.port}"
    return f"ssh{port} {address.user + '@' if address.user else ''}{address.host}"
