"""The worked example of specs/qcow2.md, read by the package."""

from __future__ import annotations

import doctest
import pathlib
import re

from tests.suites import reader
from vimgvc.disk import extents, memory
from vimgvc.images import qcow2

_SPEC = pathlib.Path(__file__).parents[2] / "specs" / "qcow2.md"


def test_package_reads_the_example() -> None:
    """The image of the example is, to the package, the disk of the example, with its holes and zeros."""
    examples = re.findall(r"^```python-example\n(.*?)^```$", _SPEC.read_text(), re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(examples[:2]), {}, "qcow2.md", str(_SPEC), 0)
    assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    disk = qcow2.Qcow2Reader(memory.MemoryDisk.of(test.globs["image"]), "example")
    assert reader.read(disk.pread_into, 0, disk.size) == test.globs["disk"]
    hole, zero, data = extents.Kind.HOLE, extents.Kind.ZERO, extents.Kind.DATA
    kinds = [(item.length, item.kind) for item in disk.extents(0, disk.size)]
    assert kinds == [(512, data), (512, hole), (512, zero), (612, data)]
