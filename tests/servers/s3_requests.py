"""Single S3 requests, signed by hand: what tests ask a server beside the program, and the oracle of its answers.

Signature version 4: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import http.client
import re
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Client:
    endpoint: str
    access: str
    secret: str
    region: str = "us-east-1"
    host: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", urllib.parse.urlsplit(self.endpoint).netloc)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`path` begins with the bucket, without a slash."""
        where = "/" + urllib.parse.quote(path, safe="/~")
        asked = urllib.parse.urlencode(sorted((query or {}).items()), quote_via=urllib.parse.quote, safe="~")
        signed = self._sign(method, where, asked, hashlib.sha256(body).hexdigest(), headers or {})
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, f"{where}?{asked}" if asked else where, body, signed)
            answer = connection.getresponse()
            said = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, said, answer.read())
        finally:
            connection.close()

    def make_bucket(self, name: str) -> None:
        answer = self.request("PUT", name)
        assert answer.status == 200, answer

    def keys(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """The keys that begin so, and their sizes; at most a thousand."""
        answer = self.request("GET", bucket, {"list-type": "2", "prefix": prefix})
        assert answer.status == 200, answer
        text = answer.body.decode()
        found = zip(re.findall(r"<Key>(.*?)</Key>", text), re.findall(r"<Size>(\d+)</Size>", text), strict=True)
        return {key: int(size) for key, size in found}

    def _sign(self, method: str, path: str, query: str, digest: str, extra: Mapping[str, str]) -> dict[str, str]:
        now = dt.datetime.fromtimestamp(time.time(), dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.host, "x-amz-content-sha256": digest, "x-amz-date": now}
        headers |= {name.lower(): value for name, value in extra.items()}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"Credential={self.access}/{scope},SignedHeaders={names},Signature={signature}"
        return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
