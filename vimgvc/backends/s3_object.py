"""What is done with the objects of a bucket: each request until it is answered, each answer checked.

An answer counts as S3's when it has what S3's has: an ETag for an object, the right document for a listing.
That a key is not there is believed when it has been said twice.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from xml.sax import saxutils

from vimgvc import errors
from vimgvc.backends import protocol, retries, s3_client, s3_sign, s3_wire, s3_xml
from vimgvc.backends.s3_client import Missing, Request, Taken

T = TypeVar("T")

#: Names in one answer of a listing, and the most in one request to delete.
PAGE = _BULK = 1000
#: More names than this in one area no repository has, but a server that never ends may send.
MAX_NAMES = 10_000_000
#: Whole objects up to this size are compared with the digest that the server names.
_MAX_COMPARED = 64 << 20
_MAX_SHORT = 64 << 10
_TAG = re.compile(r'"?([0-9a-f]{32})"?')
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
#: What the ETag of an object under such encryption is no digest of.
_ENCRYPTED = ("x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm")


class Body:
    """The bytes of a new object, not copied, with the digests that servers check them by."""

    def __init__(self, parts: Sequence[protocol.Buffer]) -> None:
        views = [memoryview(part) for part in parts]
        self.parts = [view.cast("B") for view in views if view.nbytes]
        self.size = sum(view.nbytes for view in self.parts)
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        for view in self.parts:
            sha256.update(view)
            md5.update(view)
        self.sha256, self.md5 = sha256.digest(), md5.digest()


@dataclass(slots=True)
class Doubt:
    """`there`: an object may have been made, or may still come to be, although nobody was told so."""

    there: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """`md5` is empty where the server names no such digest, `sha256` where it names no such checksum."""

    size: int
    md5: str
    sha256: str


class Objects:
    """Thread-safe. Keys are whole; `name` is what an object is called in errors."""

    def __init__(
        self, client: s3_client.Client, retrier: retries.Retrier, page: int = PAGE, max_names: int = MAX_NAMES
    ) -> None:
        self._max_names = max_names
        self._client, self._retrier, self._page_size = client, retrier, page
        self._deletes_many = True

    # --- making ----------------------------------------------------------------------------------

    def create(self, key: str, body: Body, name: str, doubt: Doubt) -> bool:
        """Make an object if the key is free, and say so.

        When the answer to an earlier try was lost, what is there is compared: it may be our own.
        """
        sha256 = base64.b64encode(body.sha256).decode()
        headers = {
            "if-none-match": "*",
            "content-type": "application/octet-stream",
            "content-md5": base64.b64encode(body.md5).decode(),
            "x-amz-checksum-sha256": sha256,
        }
        request = Request("put", "PUT", key, (), headers, body.parts, body.size, body.sha256.hex())

        def attempt() -> bool:
            earlier, doubt.there = doubt.there, True
            try:
                with self._client.ask(request, 200, 201) as reply:
                    reply.read(_MAX_SHORT)
                    made = _head(reply, 0)
            except Taken:
                mine = earlier and self._is_ours(key, body)
                doubt.there = False
                return mine
            except retries.Again as again:
                doubt.there = earlier or again.doubt
                raise
            except Missing:
                raise self._client.strange("nothing can be made") from None
            except errors.VimgvcError:
                doubt.there = earlier
                raise
            self._confirm(key, body, name, made)
            doubt.there = False
            return True

        return self._retrier.run(attempt)

    def _confirm(self, key: str, body: Body, name: str, made: Head | None) -> None:
        """See that what was put is what is there: by the digest in the answer, else by looking."""
        if made is not None and made.md5 == body.md5.hex():
            return
        there = self._head(key)
        if there is None or there.size != body.size:
            raise self._client.strange("it has not stored what it says")
        if there.md5 == body.md5.hex() or there.sha256 == base64.b64encode(body.sha256).decode():
            return
        if (made is not None and made.md5) and not self._is_ours(key, body):
            raise errors.IntegrityError(name, "the server stored something else", hint="do not use this server")

    def _is_ours(self, key: str, body: Body) -> bool:
        there = self._head(key)
        if there is None:
            raise self._client.strange("what exists is not there")
        return there.size == body.size and hashlib.sha256(self.read(key, key, 0, None)).digest() == body.sha256

    # --- reading ---------------------------------------------------------------------------------

    def size(self, key: str, name: str) -> int:
        """Raises `NotFound`."""

        def attempt() -> int:
            there = self._head(key)
            if there is not None:
                return there.size
            # An answer to HEAD has no body that tells a missing key from a missing bucket or a broken proxy.
            try:
                with self._client.ask(Request("get", "GET", key, headers={"range": "bytes=0-0"}), 200, 206, 416):
                    raise self._client.strange("it comes and goes")
            except Missing:
                raise protocol.missing(name) from None

        return self._retrier.run(attempt)

    def read(self, key: str, name: str, offset: int, length: int | None) -> bytes:
        """As `Backend.get`."""
        if length == 0 or (offset > 0 and length is None):
            size = self.size(key, name)
            if offset > size:
                raise protocol.too_short(name, size, offset)
            if length == 0 or offset == size:
                return b""
            length = size - offset
            if length > protocol.most(name):
                raise protocol.too_large(name, size)
        part = length
        whole = _Whole(self._client, name) if part is None else None

        def get() -> bytes:
            return whole.get(key) if whole else self._part(key, name, offset, part or 0)

        return self._retrier.run(self._twice(get, name))

    def reads_parts(self, key: str, content: bytes) -> bool:
        """Whether a range of an object gets that part of its `content`."""
        try:
            return self.read(key, key, 1, 3) == content[1:4]
        except errors.RemoteError as error:
            if error.kind != "ranges":
                raise
            return False

    def _twice(self, get: Callable[[], T], name: str) -> Callable[[], T]:
        said: list[Missing] = []

        def attempt() -> T:
            try:
                return get()
            except Missing as missing:
                said.append(missing)
                raise (
                    retries.Again(protocol.missing(name), at_once=True) if len(said) == 1 else protocol.missing(name)
                ) from None

        return attempt

    def _part(self, key: str, name: str, offset: int, length: int) -> bytes:
        end = offset + length
        request = Request("get", "GET", key, headers={"range": f"bytes={offset}-{end - 1}"})
        with self._client.ask(request, 200, 206, 416) as reply:
            if reply.status == 416:
                reply.read(_MAX_SHORT)
            elif reply.status == 200:
                raise self._not_a_part(reply)
            else:
                found = _RANGE.fullmatch(reply.header("content-range"))
                if found is None or int(found[1]) != offset or int(found[2]) != min(end, int(found[3])) - 1:
                    raise self._client.strange("it is about another range")
                if int(found[3]) < end:
                    raise protocol.too_short(name, int(found[3]), end)
                if reply.length not in (None, length):
                    raise self._client.strange("it is longer or shorter than it says")
                data = reply.read(length)
                if len(data) != length:
                    raise self._client.strange("it is shorter than it says")
                return data
        size = self.size(key, name)
        if size >= end:
            raise self._client.strange("it has no such range, and has it")
        raise protocol.too_short(name, size, end)

    def _not_a_part(self, reply: s3_wire.Reply) -> Exception:
        if not reply.header("etag"):
            return self._client.strange("it is no part of an object")
        return errors.RemoteError(
            self._client.url,
            "ranges",
            "the server ignores Range: it sends all of an object instead of a part",
            hint="use another server",
        )

    def _head(self, key: str) -> Head | None:
        """One try; None when it is said not to be there."""
        request = Request("head", "HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
        try:
            with self._client.ask(request, 200) as reply:
                reply.read(0)
                found = _head(reply, reply.length)
        except Missing:
            return None
        if found is None:
            raise self._client.strange("it is not about an object")
        return found

    def entries(self, prefix: str) -> Iterator[s3_xml.Entry]:
        """Every object whose key begins with `prefix`, in order. Raises rather than leave one out."""
        token, last, left = "", "", self._max_names
        while True:
            page = self._retrier.run(lambda token=token: self._page(prefix, token))  # type: ignore[misc]
            for entry in page.entries:
                if entry.key <= last:
                    raise self._listing("goes in circles")
                last = entry.key
                left -= 1
                if left < 0:
                    raise self._listing("does not end")
                yield entry
            if page.following is None:
                return
            if not page.entries:
                raise self._listing("goes in circles")
            token = page.following

    def _page(self, prefix: str, token: str) -> s3_xml.Page:
        query = [("list-type", "2"), ("prefix", prefix), ("max-keys", str(self._page_size)), ("encoding-type", "url")]
        if token:
            query.append(("continuation-token", token))
        try:
            with self._client.ask(Request("list", "GET", query=query), 200) as reply:
                return s3_xml.page(reply.read(s3_xml.MAX_DOCUMENT), prefix)
        except (s3_xml.Strange, Missing) as strange:
            raise self._client.strange(str(strange) or "there is no list") from None

    def _listing(self, what: str) -> errors.RemoteError:
        return errors.RemoteError(self._client.url, "list", f"the server's listing {what}", hint="use another server")

    # --- removing --------------------------------------------------------------------------------

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, some of which may be absent; many with one request where the server can."""
        for at in range(0, len(keys), _BULK):
            some = list(keys[at : at + _BULK])
            if len(some) > 1 and self._deletes_many:
                try:
                    self._retrier.run(lambda some=some: self._delete_many(some))  # type: ignore[misc]
                    continue
                except errors.RemoteError as error:
                    if error.kind != "refused":
                        raise
                    self._deletes_many = False
            for key in some:
                self._retrier.run(lambda key=key: self._delete_one(key))  # type: ignore[misc]

    def _delete_one(self, key: str) -> None:
        try:
            with self._client.ask(Request("delete", "DELETE", key), 200, 202, 204) as reply:
                reply.read(_MAX_SHORT)
        except Missing:
            pass  # somebody was faster

    def _delete_many(self, left: list[str]) -> None:
        """Removes from `left` what is gone."""
        names = "".join(f"<Object><Key>{saxutils.escape(key)}</Key></Object>" for key in left)
        document = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{names}</Delete>'
        request = _posted(document.encode())
        try:
            with self._client.ask(request, 200) as reply:
                refused = s3_xml.refused_deletes(reply.read(s3_xml.MAX_DOCUMENT))
        except (s3_xml.Strange, Missing) as strange:
            raise self._client.strange(str(strange) or "nothing can be deleted") from None
        refused = [(key, code) for key, code in refused if code != "NoSuchKey"]
        if not refused:
            return
        left[:] = [key for key, _ in refused]
        raise self._client.not_deleted(refused[0][1])

    def move(self, source: str, target: str) -> bool:
        """Copy an object and remove the first one; False when the target is taken. An absent source is fine."""
        return self._retrier.run(lambda: self._move(source, target))

    def _move(self, source: str, target: str) -> bool:
        there = self._head(source)
        if there is None:
            return True
        if self._head(target) is not None:
            return False
        copied_from = s3_sign.quote_path(f"/{self._client.bucket}/{source}")
        try:
            with self._client.ask(
                Request("copy", "PUT", target, headers={"x-amz-copy-source": copied_from}), 200
            ) as reply:
                s3_xml.check_copied(reply.read(_MAX_SHORT))
        except (s3_xml.Strange, Missing) as strange:
            raise self._client.strange(str(strange) or "it cannot be copied") from None
        copy = self._head(target)
        if copy is None or copy.size != there.size:
            raise self._client.strange("the copy is not what was copied")
        self._delete_one(source)
        return True


class _Whole:
    """Reads whole objects, and compares them with the digest that the server names, if it is one.

    Two reads that are equal are believed although they differ from it: then it is another digest.
    """

    def __init__(self, client: s3_client.Client, name: str) -> None:
        self._client, self._name = client, name
        self._before: bytes | None = None

    def get(self, key: str) -> bytes:
        with self._client.ask(Request("get", "GET", key), 200) as reply:
            found = _head(reply, reply.length)
            if found is None:
                raise self._client.strange("it is not an object")
            if found.size > protocol.most(self._name):
                raise protocol.too_large(self._name, found.size)
            data = reply.read(found.size)
        if len(data) != found.size:
            raise self._client.strange("it is shorter than it says")
        compared = found.md5 and found.size <= _MAX_COMPARED and self._before != data
        if compared and hashlib.md5(data, usedforsecurity=False).hexdigest() != found.md5:
            self._before = data
            raise retries.Again(
                errors.IntegrityError(self._name, "arrives with other bytes each time it is read"), at_once=True
            )
        return data


def _head(reply: s3_wire.Reply, size: int | None) -> Head | None:
    """What an answer about an object says; None when it is not S3's."""
    tag = reply.header("etag")
    if not tag or size is None:
        return None
    md5 = _TAG.fullmatch(tag)
    is_digest = md5 is not None and not any(reply.header(name) for name in _ENCRYPTED)
    return Head(size, md5[1] if md5 and is_digest else "", reply.header("x-amz-checksum-sha256"))


def _posted(document: bytes) -> Request:
    body = Body([document])
    headers: Mapping[str, str] = {
        "content-md5": base64.b64encode(body.md5).decode(),
        "content-type": "application/xml",
    }
    return Request(
        "delete",
        "POST",
        query=[("delete", "")],
        headers=headers,
        parts=body.parts,
        size=body.size,
        digest=body.sha256.hex(),
    )
