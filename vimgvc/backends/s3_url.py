"""What an S3 URL says: `s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&style=virtual&insecure=1]`.

It never says who the user is: credentials come from the environment, and a URL with any is refused
without being shown (N22). Plain http reaches this machine only, unless `insecure=1` allows more (N21).
Where the URL names no endpoint, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL does, and without these it is
Amazon's for the region. What a place is called afterwards always has the endpoint in it, so that what
was noted of a place, or of a remote, does not move with the environment (N23).
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from vimgvc import errors

#: As specs/places.md shows it to users.
FORM = "s3://BUCKET/PREFIX?endpoint=https://HOST"
#: When neither the URL nor the user's configuration names one.
DEFAULT_REGION = "us-east-1"

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9 !._~=@+,()'*-]{1,255}")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_KEYS = ("endpoint", "region", "style", "insecure")
_MAX_URL = 4096


@dataclass(frozen=True, slots=True)
class Address:
    """`prefix` has no slash at either end and may be empty; `region` is empty when the URL has none."""

    bucket: str
    prefix: str
    endpoint: str
    region: str
    virtual: bool = False
    insecure: bool = False

    @property
    def origin(self) -> str:
        """Where requests go: the endpoint, or the bucket's own host there."""
        return self.endpoint.replace("://", f"://{self.bucket}.", 1) if self.virtual else self.endpoint

    @property
    def url(self) -> str:
        """The address in its one canonical form, with the endpoint."""
        said = {"endpoint": self.endpoint}
        if self.region:
            said["region"] = self.region
        if self.virtual:
            said["style"] = "virtual"
        if self.insecure:
            said["insecure"] = "1"
        path = f"/{urllib.parse.quote(self.prefix)}" if self.prefix else ""
        return f"s3://{self.bucket}{path}?{urllib.parse.urlencode(said, safe=':/[]')}"


def parse(url: str, environ: Mapping[str, str]) -> Address:
    """What `url` means in `environ`. Raises `UsageError`, whose message shows no part that may be secret."""
    parts = _split(url)
    said = _options(parts.query)
    bucket, prefix = parts.netloc, urllib.parse.unquote(parts.path).strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise _refused(f"not the name of a bucket: {bucket!r}")
    if prefix and not all(_is_segment(segment) for segment in prefix.split("/")):
        raise _refused(f"not a prefix for names in a bucket: {prefix!r}")
    region = said.get("region", "")
    if region and not _REGION.fullmatch(region):
        raise _refused(f"not a region: {region!r}")
    insecure = said.get("insecure", "0") == "1"
    endpoint = _endpoint(said, environ, region)
    if endpoint.startswith("http://") and not (insecure or is_loopback(_split_endpoint(endpoint).hostname or "")):
        raise errors.UsageError(
            f"{endpoint} would be reached without encryption: anybody on the way could change what is sent",
            hint="use https://, or add insecure=1 to the URL",
        )
    return Address(bucket, prefix, endpoint, region, said.get("style") == "virtual", insecure)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, whatever a name server says."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> urllib.parse.SplitResult:
    if len(url) > _MAX_URL or not url.isprintable():
        raise _refused("not a URL")
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        raise _refused("not a URL") from None
    if "@" in parts.netloc or parts.fragment or "#" in url:
        raise _with_credentials()
    return parts


def _options(query: str) -> dict[str, str]:
    """The options of a URL; what is not known may be a secret, and is not repeated."""
    try:
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise _refused("what follows the question mark is not a list of options") from None
    said = dict(pairs)
    if len(said) != len(pairs):
        raise _refused("an option is there twice")
    if unknown := set(said) - set(_KEYS):
        if any(re.search("key|secret|token|password|credential|signature", name, re.IGNORECASE) for name in unknown):
            raise _with_credentials()
        raise _refused("it has an option that does not exist", hint=f"known are {', '.join(_KEYS)}")
    if said.get("style", "path") not in ("path", "virtual") or said.get("insecure", "0") not in ("0", "1"):
        raise _refused("style is path or virtual, insecure is 0 or 1")
    return said


def _endpoint(said: Mapping[str, str], environ: Mapping[str, str], region: str) -> str:
    given = said.get("endpoint") or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if not given:
        return f"https://s3.{region or environ_region(environ) or DEFAULT_REGION}.amazonaws.com"
    parts = _split_endpoint(given)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    shown = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port not in (None, 443 if scheme == "https" else 80) else ""
    if scheme not in ("http", "https") or not _HOST.fullmatch(shown) or parts.query or parts.path.strip("/"):
        raise errors.UsageError("the endpoint is not an address like https://HOST", hint=f"the form is {FORM}")
    return f"{scheme}://{shown}{port}"


def environ_region(environ: Mapping[str, str]) -> str:
    """The region that the environment names, or nothing."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""


def _split_endpoint(endpoint: str) -> urllib.parse.SplitResult:
    parts = _split(endpoint)
    try:
        _ = parts.port
    except ValueError:
        raise _refused("the endpoint's port is not a number") from None
    return parts


def _is_segment(segment: str) -> bool:
    return _SEGMENT.fullmatch(segment) is not None and segment not in (".", "..")


def _refused(reason: str, *, hint: str = f"the form is {FORM}") -> errors.UsageError:
    return errors.UsageError(f"the S3 URL cannot be used: {reason}", hint=hint)


def _with_credentials() -> errors.UsageError:
    return errors.UsageError(
        "a URL must not hold credentials: it is shown, logged and seen by other users",
        hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )
