"""Documents of an S3 server that are not what they should be."""

from __future__ import annotations

import pytest

from vimgvc.backends import s3_xml


@pytest.mark.parametrize("encoding", ["MTF-8", "idna", "utf-7", "x" * 1000])
def test_n7_an_encoding_that_nobody_knows(encoding: str) -> None:
    """N7: a page in an encoding that is not known, or that is none of text, is no page."""
    document = f'<?xml version="1.0" encoding="{encoding}"?><ListBucketResult></ListBucketResult>'
    with pytest.raises(s3_xml.Strange):
        s3_xml.page(document.encode(), "")
