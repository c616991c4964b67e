"""What a difference costs: `PYTHONPATH=tools python -m benchlib.differ FOLDER [WINDOWS]`.

Makes two commits of a disk of 1 TiB in FOLDER (`differ_made`; 32,768 windows if not said), runs `vimgvc diff` three
times, and prints one line of JSON: the median of its time, its processor time, the most memory.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys

from benchlib import child

TIMES = 3


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    windows = sys.argv[2] if len(sys.argv) > 2 else "32768"
    subprocess.run([sys.executable, "-m", "benchlib.differ_made", str(folder), windows], check=True)
    program = pathlib.Path(sys.executable).with_name("vimgvc")
    words = [str(program), "-r", str(folder / "repository"), "--key-file", str(folder / "key"), "diff", "vm~1", "vm"]
    environment = {**os.environ, "HOME": str(folder)}
    runs = [child.measure(words, cwd=folder, env=environment, log=folder / "log") for _ in range(TIMES)]
    told = {
        "told": runs[0].output.strip(),
        "seconds": round(statistics.median(run.seconds for run in runs), 2),
        "processor_seconds": round(statistics.median(run.cpu_seconds for run in runs), 2),
        "peak_mib": max(run.peak_bytes for run in runs) >> 20,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
