"""Writes specs/vectors, or with --check says whether it is what this would write.

PYTHONPATH=tools python -m vectors [--check]
"""

from __future__ import annotations

import pathlib
import sys

from vectors import collections, deliveries, forgotten, keyslots, nodes, objects, packs, pins, promises, texts

DIRECTORY = pathlib.Path(__file__).parents[2] / "specs" / "vectors"


def texts_by_name() -> dict[str, str]:
    made = [
        vector
        for module in (texts, keyslots, nodes, packs, objects, collections, forgotten, pins, promises, deliveries)
        for vector in module.vectors()
    ]
    found = {vector.name: vector.text() for vector in made}
    assert len(found) == len(made), "two vectors of one name"
    return found


def main(*, check: bool) -> int:
    wanted = {f"{name}.txt": text for name, text in texts_by_name().items()}
    found = {path.name: path.read_text() for path in DIRECTORY.glob("*.txt")}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    for name in wrong:
        print(f"{'differs' if check else 'written' if name in wanted else 'removed'}: {name}")
        if not check:
            (DIRECTORY / name).unlink(missing_ok=True)
            if name in wanted:
                (DIRECTORY / name).write_text(wanted[name])
    print(f"{len(wanted)} vectors")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
