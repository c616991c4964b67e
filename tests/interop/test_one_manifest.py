"""What is committed is the disk, not its container: in whatever format it comes, it is the same tree."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests import programs, repos
from vimgvc.backends import memory
from vimgvc.images import registry
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

pytestmark = pytest.mark.slow

_SIZE = 48 << 20
_CONTAINERS: dict[str, list[str]] = {
    "raw": [],
    "qcow2": [],
    "vmdk": [],
    "vdi": [],
    "vpc": ["-o", "force_size=on"],
    "vhdx": [],
    "qed": [],
    "parallels": [],
    "qcow2 compressed": ["-c", "-o", "compression_type=zstd,cluster_size=256k"],
    "vmdk stream": ["-o", "subformat=streamOptimized"],
}


def test_one_disk_in_ten_containers(tmp_path: pathlib.Path) -> None:
    """Ten containers of one disk have one manifest; all but the first cost less than a thousandth of the disk."""
    raw = tmp_path / "raw"
    rng = np.random.default_rng(3)
    with raw.open("wb") as file:
        file.truncate(_SIZE)
        for start in range(0, _SIZE, 4 << 20):
            file.seek(start + int(rng.integers(0, 2048)) * 512)
            file.write(rng.bytes(2 << 20))
            file.write(b"text " * 100_000)
    place = memory.MemoryBackend()
    repo = repos.create(place)
    manifests, stored = {}, []
    for name, options in _CONTAINERS.items():
        form, image = name.split()[0], tmp_path / name
        if name != "raw":
            programs.qemu_img("convert", "-f", "raw", "-O", form, *options, raw, image)
        opened = registry.open_image(image)
        request = repository.CommitRequest(name.replace(" ", "-"), name, "tester", "here", allow_empty=False)
        result = repo.commit([ingest.Source("disk", opened.reader, opened.container)], request)
        opened.reader.close()
        manifests[name] = result.commit.disks[0].manifest
        stored.append(sum(len(blob) for blob in place._blobs.values()))
        if name != "raw":
            image.unlink()
    assert len(set(manifests.values())) == 1, manifests
    assert stored[-1] - stored[0] < _SIZE / 1000, stored
