"""cloop (compressed loop device): 128 bytes of script, two numbers, a table of 8 bytes a block; big-endian.

Field table: specs/foreign-formats.md, "cloop".
"""

from __future__ import annotations

import struct

from vimgvc.images.gates import judge

_MAGIC = b"#!/bin/sh\n#V2.0 Format\n"
_TABLE = 136
_MAX_BLOCK = 64 << 20


def check(j: judge.Judge, tables: bool) -> judge.Facts:  # noqa: FBT001 - one form for all gates
    head = j.read(0, _TABLE, "the header")
    j.among("the magic", head[: len(_MAGIC)], [_MAGIC])
    block, blocks = struct.unpack_from(">II", head, 128)
    j.multiple("the block size", j.between("the block size", block, 512, _MAX_BLOCK), 512)
    j.between("the number of blocks", blocks, 0, (512 << 20) // 8 - 1)
    j.inside("the table of blocks", _TABLE, (blocks + 1) * 8)
    if tables:
        _check_table(j, blocks, block)
        j.count(blocks * block)
    return judge.Facts("cloop", blocks * block, {"format": "cloop", "block_size": block}, unit=block)


def _check_table(j: judge.Judge, blocks: int, block: int) -> None:
    import numpy as np

    last = np.full(1, _TABLE + (blocks + 1) * 8, np.uint64)
    for number, piece in enumerate(j.table(_TABLE, (blocks + 1) * 8, "the table of blocks")):
        offsets = piece.view(">u8").astype("<u8")
        if int(offsets.max()) > j.size:
            raise j.damaged(f"a block at {int(offsets.max())} lies behind the end of the file")
        chain = np.concatenate([last, offsets])
        if (chain[1:] < chain[:-1]).any():
            raise j.damaged("its blocks are not in order, or lie in the table")
        steps = np.diff(chain)[0 if number else 1 :]
        # zlib makes what it cannot compress a little longer
        if steps.size and int(steps.max()) > block + (block >> 4) + 4096:
            raise j.refuse("a compressed block's length", int(steps.max()), f"little more than {block}")
        last = offsets[-1:]
