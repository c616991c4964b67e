"""Whose requests these are: environment, the user's AWS profile, or what the machine is told it is.

The order is that of Amazon's programs: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the profile
AWS_PROFILE (else `default`) of ~/.aws/credentials and ~/.aws/config; a container's credentials; an
instance's (https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html). Only keys
themselves are taken from a profile; one that refers to a role, a sign-on or a program is refused by name.
No message has more of a secret than the name of the place where it was looked for.
"""

from __future__ import annotations

import calendar
import configparser
import json
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping

from vimgvc import errors
from vimgvc.backends import s3_sign, s3_url, s3_wire

#: Credentials that end sooner than this are asked for again, in seconds.
_MARGIN = 300.0
_METADATA, _CONTAINER = "http://169.254.169.254", "http://169.254.170.2"
#: Hosts besides this machine that may be asked for a container's credentials without encryption.
_CONTAINER_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")
_TIMES = s3_wire.Times(stall=2.0, connect=1.0)
_MAX_ANSWER = 64 << 10
_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "credential_process", "web_identity_token_file")
_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class Source:
    """Credentials that are valid now. Thread-safe."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._environ, self._clock = environ, clock
        self._lock = threading.Lock()
        self._now: tuple[s3_sign.Credentials, float] | None = None

    def get(self) -> s3_sign.Credentials:
        """Raises `UsageError` or `RemoteError` where there are none."""
        with self._lock:
            if self._now is None or self._now[1] - self._clock() < _MARGIN:
                self._now = self._find()
            return self._now[0]

    def renew(self, old: s3_sign.Credentials) -> bool:
        """Look again because a server says that `old` have ended; whether there are others now."""
        with self._lock:
            if self._now is None or self._now[0] == old:
                self._now = self._find()
            return self._now[0] != old

    def _find(self) -> tuple[s3_sign.Credentials, float]:
        """The first that there are, and until when."""
        environ = self._environ
        if access := environ.get("AWS_ACCESS_KEY_ID"):
            secret = environ.get("AWS_SECRET_ACCESS_KEY")
            if not secret:
                raise errors.UsageError("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not", hint=_HINT)
            return s3_sign.Credentials(access, secret, environ.get("AWS_SESSION_TOKEN", "")), float("inf")
        if (found := from_profile(environ)) is not None:
            return found, float("inf")
        if (document := _from_container(environ) or _from_instance(environ)) is not None:
            return _parse(document, self._clock())
        raise errors.RemoteError("S3", "credentials", "there are no credentials", hint=_HINT)


def from_profile(environ: Mapping[str, str]) -> s3_sign.Credentials | None:
    """The keys of the user's profile; None when there is no profile that was asked for. Raises `UsageError`."""
    name, said = _profile(environ)
    if "aws_access_key_id" in said and "aws_secret_access_key" in said:
        token = said.get("aws_session_token", "")
        return s3_sign.Credentials(said["aws_access_key_id"], said["aws_secret_access_key"], token)
    indirect = [one for one in _INDIRECT if one in said]
    if indirect:
        raise errors.UsageError(
            f"the AWS profile '{name}' has no keys but {indirect[0]}, which vimgvc does not follow",
            hint=f'eval "$(aws configure export-credentials --profile {name} --format env)"',
        )
    if environ.get("AWS_PROFILE"):
        raise errors.UsageError(
            f"the AWS profile '{name}' has no keys", hint="check AWS_PROFILE and ~/.aws/credentials"
        )
    return None


def region_of_profile(environ: Mapping[str, str]) -> str:
    """The region of the user's profile, or nothing."""
    return _profile(environ)[1].get("region", "")


def _profile(environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The profile's name, and what both files say of it; the one with secrets counts where both do."""
    name = environ.get("AWS_PROFILE") or "default"
    home = environ.get("HOME", "")
    files = (
        (environ.get("AWS_CONFIG_FILE") or f"{home}/.aws/config", name if name == "default" else f"profile {name}"),
        (environ.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/.aws/credentials", name),
    )
    said: dict[str, str] = {}
    for path, section in files:
        if path.startswith("/"):
            said |= _section(pathlib.Path(path), section)
    return name, said


def _section(path: pathlib.Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(default_section="\0", strict=False, comment_prefixes=("#", ";"))
    try:
        parser.read_string(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    except (configparser.Error, UnicodeDecodeError):
        raise errors.UsageError(f"{path} is not a file of AWS profiles", hint="check the file") from None
    return {key: value.strip() for key, value in parser.items(name)} if parser.has_section(name) else {}


def _from_container(environ: Mapping[str, str]) -> bytes | None:
    """What the agent of a container answers, where there is one."""
    relative, full = (environ.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL"))
    if not relative and not full:
        return None
    url = urllib.parse.urlsplit(f"{_CONTAINER}{relative}" if relative else full or "")
    host = url.hostname or ""
    if url.scheme != "https" and not (s3_url.is_loopback(host) or host in _CONTAINER_HOSTS):
        raise errors.UsageError(
            "credentials would be asked for without encryption", hint="check AWS_CONTAINER_CREDENTIALS_FULL_URI"
        )
    headers = {}
    if token := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        headers["authorization"] = token
    if file := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        try:
            headers["authorization"] = pathlib.Path(file).read_text().strip()
        except OSError as error:
            raise errors.from_os_error(error, file) from error
    return _ask(f"{url.scheme}://{url.netloc}", "GET", f"{url.path}?{url.query}" if url.query else url.path, headers)


def _from_instance(environ: Mapping[str, str]) -> bytes | None:
    """What an instance's own service answers (version 2 of it only); None where there is none."""
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    base = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _METADATA
    token = _ask(base, "PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": "21600"})
    if token is None:
        return None
    headers = {"x-aws-ec2-metadata-token": token.decode("latin-1").strip()}
    folder = "/latest/meta-data/iam/security-credentials/"
    role = _ask(base, "GET", folder, headers)
    return _ask(base, "GET", folder + urllib.parse.quote(role.decode().split("\n")[0]), headers) if role else None


def _ask(base: str, method: str, target: str, headers: Mapping[str, str]) -> bytes | None:
    """The body of a good answer; None without one."""
    wire = s3_wire.Wire(base, {}, _TIMES)
    try:
        host = {"host": urllib.parse.urlsplit(base).netloc, "content-length": "0"}
        with wire.ask(method, target, host | dict(headers)) as reply:
            return reply.read(_MAX_ANSWER) if reply.status == 200 else None
    except s3_wire.Broken:
        return None
    finally:
        wire.close()


def _parse(document: bytes, now: float) -> tuple[s3_sign.Credentials, float]:
    try:
        said = json.loads(document)
        found = s3_sign.Credentials(said["AccessKeyId"], said["SecretAccessKey"], said.get("Token") or "")
        ends = calendar.timegm(time.strptime(said["Expiration"], "%Y-%m-%dT%H:%M:%SZ"))
    except (ValueError, KeyError, TypeError):
        raise errors.RemoteError("S3", "credentials", "the machine's credentials cannot be read", hint=_HINT) from None
    # asked for again in a minute where they are about to end, not with each request
    return found, max(ends, now + _MARGIN + 60)
