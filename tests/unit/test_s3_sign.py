"""Signatures are those of Amazon's own examples.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib

import pytest

from vimgvc.backends import s3_sign

_CREDENTIALS = s3_sign.Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
_HOST = {"host": "examplebucket.s3.amazonaws.com"}
_NOW = 1369353600.0  # 2013-05-24


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        (
            "GET",
            "test.txt",
            [],
            {"range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "test$file.text",
            [],
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "",
            [("lifecycle", "")],
            {},
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "",
            [("prefix", "J"), ("max-keys", "2")],
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_examples(
    *, method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes, signature: str
) -> None:
    """The published signature comes out for each published request."""
    digest = hashlib.sha256(body).hexdigest()
    signed = s3_sign.sign(
        method,
        "/" + s3_sign.quote_path(path),
        s3_sign.quote_query(query),
        {**_HOST, **headers},
        digest,
        credentials=_CREDENTIALS,
        region="us-east-1",
        now=_NOW,
    )
    assert signed["authorization"].endswith(f"Signature={signature}")
    assert signed["x-amz-date"] == "20130524T000000Z"


def test_tokens_are_signed() -> None:
    """A session's token goes along, and is signed; no representation shows it, nor the secret."""
    credentials = s3_sign.Credentials("a", "s3cret", "t0ken")
    signed = s3_sign.sign("GET", "/", "", _HOST, s3_sign.EMPTY, credentials=credentials, region="r", now=_NOW)
    assert signed["x-amz-security-token"] == "t0ken"
    assert "x-amz-security-token" in signed["authorization"]
    assert "s3cret" not in repr(credentials) + str(signed)
    assert "t0ken" not in repr(credentials)
