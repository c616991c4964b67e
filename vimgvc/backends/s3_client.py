"""Requests to one bucket: signed, tried again when that may help, and their failures in our own words.

A failure is one of four: it may pass (`retries.Again`: 429, 5xx, a lost connection, an answer that is not
S3's), the key is not there (`Missing`), the name is taken (`Taken`), or it stays (`VimgvcError`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.backends import retries, s3_credentials, s3_sign, s3_url, s3_wire, s3_xml

_MAX_ERROR = 64 << 10
_MAX_PAUSE = 60.0
#: Codes of answers that would be another one a moment later, whatever their status is.
_PASSING = frozenset(
    (
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    )
)
_PASSING_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
_ENDED = frozenset(("ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException"))
_FULL = frozenset(
    ("QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "XMinioStorageFull", "ServiceQuotaExceeded")
)
_NOT_ACCEPTED = {
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID, or the profile",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY, or the profile",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "InvalidToken": "check AWS_SESSION_TOKEN, or get new credentials",
    **dict.fromkeys(_ENDED, "get new credentials"),
}
#: The right that each kind of request needs, by the name that policies give it.
RIGHTS = {
    "put": "s3:PutObject",
    "get": "s3:GetObject",
    "head": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "copy": "s3:GetObject and s3:PutObject",
}


class Missing(Exception):
    """There is no such key."""


class Taken(Exception):
    """The key exists, and was to be made."""


@dataclass(frozen=True, slots=True)
class Request:
    """`what` is one of `RIGHTS`; `key` is within the bucket, and empty for the bucket itself."""

    what: str
    method: str
    key: str = ""
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[memoryview] = ()
    size: int = 0
    digest: str = s3_sign.EMPTY


@dataclass(slots=True)
class _Refusal:
    """What an answer that is an error says; `code` is empty where it is not S3's own."""

    status: int
    code: str
    region: str
    pause: float


class Client:
    """Thread-safe. `region` signs; `url` is what the place is called in messages."""

    def __init__(
        self,
        address: s3_url.Address,
        region: str,
        wire: s3_wire.Wire,
        source: s3_credentials.Source,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = address.url
        self.bucket = address.bucket
        self._region, self._wire, self._source, self._clock = region, wire, source, clock
        self._host = address.origin.partition("://")[2]
        self._base = "/" if address.virtual else f"/{address.bucket}/"

    @contextlib.contextmanager
    def ask(self, request: Request, *expected: int) -> Iterator[s3_wire.Reply]:
        """The answer to one try, with a status of `expected`. Raises as the head of this module says."""
        credentials = self._source.get()
        target, headers = self._signed(request, credentials)
        try:
            with self._wire.ask(request.method, target, headers, request.parts) as reply:
                if reply.status in expected:
                    yield reply
                    return
                refusal = self._refusal(reply, head=request.method == "HEAD")
        except s3_wire.Broken as broken:
            raise self._broken(broken) from None
        if refusal.code in _ENDED and self._source.renew(credentials):
            raise retries.Again(self._denied(request, refusal), at_once=True)
        raise self._failure(request, refusal)

    def strange(self, detail: str) -> retries.Again:
        """An answer that is not what S3 says."""
        return retries.Again(
            errors.RemoteError(
                self.url,
                "answer",
                f"the server's answer makes no sense: {detail}",
                hint="is there a login page or a broken proxy on the way? check the endpoint",
            )
        )

    def not_deleted(self, code: str) -> Exception:
        """What it means that a server did not delete one of many."""
        return self._failure(Request("delete", "POST"), _Refusal(200, code or "InternalError", "", 0.0))

    def _signed(self, request: Request, credentials: s3_sign.Credentials) -> tuple[str, dict[str, str]]:
        path = s3_sign.quote_path(self._base + request.key) if request.key else self._base.rstrip("/") or "/"
        query = s3_sign.quote_query(request.query)
        headers = {"host": self._host, **request.headers}
        if request.method in ("PUT", "POST"):
            headers["content-length"] = str(request.size)
        signed = s3_sign.sign(
            request.method,
            path,
            query,
            headers,
            request.digest,
            credentials=credentials,
            region=self._region,
            now=self._clock(),
        )
        return f"{path}?{query}" if query else path, signed

    def _refusal(self, reply: s3_wire.Reply, *, head: bool) -> _Refusal:
        code, region = "", reply.header("x-amz-bucket-region")
        if not head:
            with contextlib.suppress(s3_xml.Strange):
                code, said = s3_xml.error(reply.read(_MAX_ERROR))
                region = region or said
        after = reply.header("retry-after")
        pause = min(float(after), _MAX_PAUSE) if after.isascii() and after.isdecimal() else 0.0
        return _Refusal(reply.status, code, region, pause)

    def _broken(self, broken: s3_wire.Broken) -> Exception:
        if self._wire.closed:
            return errors.Interrupted("interrupted", hint="run the same command again to continue")
        if broken.kind == "answer":
            return self.strange(broken.detail)
        hints = {
            "unreachable": "check the endpoint, and that this machine is online",
            "certificate": "a private authority's certificates are taken from the file that AWS_CA_BUNDLE names",
        }
        hint = hints.get(broken.kind, "run the same command again to continue")
        final = errors.RemoteError(self.url, broken.kind, broken.detail, hint=hint)
        return final if broken.kind == "certificate" else retries.Again(final, doubt=broken.sent)

    def _failure(self, request: Request, refusal: _Refusal) -> Exception:
        """What an error answer means for whoever asked."""
        status, code = refusal.status, refusal.code
        if code in _FULL or status == 507:
            return errors.NoSpace(f"{self.url} is full or over quota", hint="free some space there, or raise the quota")
        if status == 412:
            return Taken()
        if status == 404:
            return self._absent(request, code)
        if code in _PASSING or status in _PASSING_STATUS or (status == 409 and request.what == "put"):
            final = self._said(
                f"the server cannot answer now ({code or status})", hint="run the same command again later"
            )
            return retries.Again(final, pause=refusal.pause)
        if status in (301, 302, 307, 308) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
            hint = f"add region={refusal.region} to the URL" if refusal.region else "check endpoint and region"
            return self._said(f"the bucket {self.bucket} is in another region or at another address", hint=hint)
        if status in (401, 403) or code in ("AccessDenied", *_NOT_ACCEPTED):
            return self._denied(request, refusal)
        if not code and request.method != "HEAD":
            return self.strange(f"status {status}")
        return self._said(
            f"the server refuses ({code or status})", hint="run the same command with --verbose to see more"
        )

    def _absent(self, request: Request, code: str) -> Exception:
        if code == "NoSuchBucket":
            return errors.RemoteError(
                self.url,
                "NoSuchBucket",
                f"there is no bucket {self.bucket}",
                hint="make it with your provider's tools first, or check its name",
            )
        if code in ("NoSuchKey", "NoSuchObject") or request.method == "HEAD":
            return Missing()
        return self.strange(f"status 404{f' ({code})' if code else ''}")

    def _denied(self, request: Request, refusal: _Refusal) -> errors.RemoteError:
        if refusal.code in _NOT_ACCEPTED:
            message = f"the credentials are not accepted ({refusal.code})"
            return errors.RemoteError(self.url, refusal.code, message, hint=_NOT_ACCEPTED[refusal.code])
        right = RIGHTS[request.what]
        return errors.RemoteError(
            self.url,
            "denied",
            f"the credentials may not {request.what} there ({refusal.code or refusal.status})",
            hint=f"they lack the right {right}",
        )

    def _said(self, message: str, *, hint: str) -> errors.RemoteError:
        return errors.RemoteError(self.url, "refused", message, hint=hint)
