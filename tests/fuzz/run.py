"""`tools/fuzz` runs this below atheris: `run.py TARGET CORPUS [libFuzzer's options]`."""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Any


def main(name: str, corpus: str, options: list[str]) -> None:
    # Not among the project's dependencies: tools/fuzz installs it apart.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["vimgvc"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    folder = pathlib.Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, corpus], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
