"""Three states of one disk: `python -m benchlib.rewind_made FOLDER BYTES`.

`then` is full of pages of a database; of `runs` 1 % is other in pieces of 256 KiB, of `pages` in pages of 8 KiB.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np

from benchlib import synthetic

RUN, SHARE = 256 << 10, 0.01


def make(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for piece in synthetic.Pages(np.random.default_rng(21)).stream(size):
            file.write(piece.data)


def change(before: Path, path: Path, run: int) -> None:
    """A copy of which a share was written anew, in pieces of `run` bytes anywhere."""
    shutil.copyfile(before, path)
    rng = np.random.default_rng(run)
    places = path.stat().st_size // run
    fresh = synthetic.Pages(rng)
    with path.open("r+b") as file:
        for place in np.sort(rng.choice(places, int(places * SHARE), replace=False)).tolist():
            numbers = np.arange(run // synthetic.PAGE, dtype=np.uint64) + np.uint64(place)
            os.pwrite(file.fileno(), fresh.make(numbers).data, place * run)


def main(folder: Path, size: int) -> None:
    make(folder / "then.img", size)
    change(folder / "then.img", folder / "runs.img", RUN)
    change(folder / "then.img", folder / "pages.img", synthetic.PAGE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
