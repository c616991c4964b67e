"""Empty places in an S3 server, and backends that look at them."""

from __future__ import annotations

import contextlib
import json
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.servers import http_proxy, rgw, s3_requests
from vimgvc.backends import probe, retries, s3, s3_wire

#: Enough tries to get over what a test does, in little time.
QUICK = retries.Patience(tries=4, total=20.0, first=0.01, longest=0.05)
#: For tests of stalls.
SHORT = s3_wire.Times(stall=2.0, connect=2.0)


class Remembered:
    """A `probe.Memory` in a dict: places of one server need not be tried for each test."""

    def __init__(self) -> None:
        self.answers: dict[str, probe.Answer] = {}

    def recall(self, url: str) -> probe.Answer | None:
        return self.answers.get(url)

    def note(self, url: str, answer: probe.Answer) -> None:
        self.answers[url] = answer


class Tried(Remembered):
    """Believes of every place that it is safe."""

    def recall(self, url: str) -> probe.Answer | None:
        return probe.Answer(exclusive_create=True, ranges=True, removes=True, durable=True)


@dataclass(frozen=True, slots=True)
class Server:
    client: s3_requests.Client
    bucket: str

    @classmethod
    def of(cls, facts: Mapping[str, str]) -> Server:
        client, bucket = s3_requests.Client(**facts), f"vimgvc-{secrets.token_hex(8)}"
        client.make_bucket(bucket)
        return cls(client, bucket)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.client.access,
            "AWS_SECRET_ACCESS_KEY": self.client.secret,
            "AWS_REGION": self.client.region,
        }

    def place(self, endpoint: str = "") -> Place:
        """One with nothing in it."""
        return Place(self, f"p{secrets.token_hex(8)}", endpoint or self.client.endpoint)

    @contextlib.contextmanager
    def through_proxy(self) -> Iterator[tuple[Place, http_proxy.HttpProxy]]:
        parts = urllib.parse.urlsplit(self.client.endpoint)
        with http_proxy.HttpProxy(parts.hostname or "", parts.port or 80) as wire:
            yield self.place(f"http://127.0.0.1:{wire.port}"), wire


@dataclass(frozen=True, slots=True)
class Place:
    server: Server
    prefix: str
    endpoint: str

    @property
    def url(self) -> str:
        return f"s3://{self.server.bucket}/{self.prefix}?endpoint={self.endpoint}"

    def backend(
        self,
        memory: probe.Memory | None = None,
        *,
        times: s3_wire.Times = s3_wire.TIMES,
        page: int = 1000,
        environ: Mapping[str, str] | None = None,
    ) -> s3.S3Backend:
        """One that has not asked anything yet; without a `memory` it believes that the place is safe."""
        environ = self.server.environ if environ is None else environ
        memory = memory or Tried()
        return s3.connect(self.url, environ=environ, memory=memory, patience=QUICK, times=times, page=page)

    def keys(self, below: str = "") -> dict[str, int]:
        """What is there: keys below the prefix, and sizes."""
        start = f"{self.prefix}/{below}"
        found = self.server.client.keys(self.server.bucket, start)
        return {key[len(start) :]: size for key, size in found.items()}

    def content(self, key: str) -> bytes:
        answer = self.server.client.request("GET", f"{self.server.bucket}/{self.prefix}/{key}")
        assert answer.status == 200, answer
        return answer.body

    def put(self, key: str, content: bytes) -> None:
        """Whatever is there."""
        answer = self.server.client.request("PUT", f"{self.server.bucket}/{self.prefix}/{key}", body=content)
        assert answer.status == 200, answer


def allow(server: Server, *actions: str) -> dict[str, str]:
    """Let the other user do this in the bucket, and nothing else; the environment of that user."""
    bucket = f"arn:aws:s3:::{server.bucket}"
    return allow_each(server, {action: [bucket, f"{bucket}/*"] for action in actions})


def allow_each(server: Server, rights: dict[str, list[str]]) -> dict[str, str]:
    """The same, by action with the resources that it is allowed for."""
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam:::user/other"]},
            "Action": [f"s3:{action}"],
            "Resource": resources,
        }
        for action, resources in rights.items()
    ]
    # what another user puts is that user's: the owner of the bucket has to be allowed as well
    bucket = f"arn:aws:s3:::{server.bucket}"
    owner = {"AWS": ["arn:aws:iam:::user/vimgvc"]}
    statements.append({"Effect": "Allow", "Principal": owner, "Action": ["s3:*"], "Resource": [bucket, f"{bucket}/*"]})
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements}).encode()
    answer = server.client.request("PUT", server.bucket, {"policy": ""}, policy)
    assert answer.status in (200, 204), answer
    return {**server.environ, "AWS_ACCESS_KEY_ID": rgw.OTHER}
