"""A Debian disk and its later versions: debootstrap, then apt inside the mounted disk. Needs root and loop devices.

v1  a fresh installation with a kernel, an OpenSSH server and Python: 0.9 GiB in an 8 GiB ext4
v2  nginx, PostgreSQL, git and gcc installed from the release, with what they depend on
v3  a handful of packages upgraded from the security archive, and git installed again
u1  a second machine: the tree of v1, laid out by mke2fs in another order with other parameters
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchlib import machine, synthetic

SIZE = "8G"
RELEASE = "bookworm"
BASE = "linux-image-amd64,openssh-server,python3,vim,curl,ca-certificates,rsyslog,sudo,man-db,less,htop,locales"
PROGRAMS = {"debootstrap": "debootstrap", "mke2fs": "e2fsprogs", "mount": "mount", "unshare": "util-linux"}

INSTALL = "apt-get update; apt-get -y install nginx postgresql git gcc"
# Installing git again changes something even on the day after a point release, with nothing to upgrade.
UPGRADE = """
echo 'deb {security} {release}-security main' >> /etc/apt/sources.list
apt-get update
apt-get -y install --only-upgrade nginx openssl curl git tzdata openssh-server
apt-get -y purge git
apt-get -y install git
"""

# Everything is mounted in a mount namespace of its own, so nothing stays behind whatever happens.
INSIDE = r"""
set -eu
disk=$1 mnt=$2
mount -o loop "$disk" "$mnt"
mount --bind /dev "$mnt/dev"
mount -t proc proc "$mnt/proc"
cp /etc/resolv.conf "$mnt/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' > "$mnt/usr/sbin/policy-rc.d"   # installed services must not start
chmod 755 "$mnt/usr/sbin/policy-rc.d"
chroot "$mnt" env DEBIAN_FRONTEND=noninteractive LC_ALL=C sh -ec "$3"
rm "$mnt/usr/sbin/policy-rc.d"
umount "$mnt/proc" "$mnt/dev" "$mnt"
"""

# mke2fs creates files in the order a directory gives them; ext4 orders them by a hash with the
# filesystem's seed. So a copy on a filesystem with another seed comes out in another order.
SHUFFLE = r"""
set -eu
disk=$1 new=$2 mnt=$3 scratch=$4
mkdir "$mnt/old" "$mnt/copy"
mount -o loop,ro "$disk" "$mnt/old"
mke2fs -q -t ext4 -E hash_seed=7b0d5ac6-4f63-4f3e-9a6b-1f0d8c7e2a91 "$scratch" 8G
mount -o loop "$scratch" "$mnt/copy"
cp -a "$mnt/old/." "$mnt/copy/"
echo second > "$mnt/copy/etc/hostname"
od -An -tx1 -N16 /dev/urandom | tr -d ' \n' > "$mnt/copy/etc/machine-id"
rmdir "$mnt/copy/lost+found"
mke2fs -q -t ext4 -G 4 -i 8192 -U c2a5b0f4-7d31-4a0e-8a3a-6d6a0f5f3b12 \
    -E hash_seed=0d8f2c51-93a7-4b1d-b0c4-5e3a7f6d2e84 -L second -d "$mnt/copy" "$new" 8G
umount "$mnt/old" "$mnt/copy"
"""


@dataclass(frozen=True)
class Mirrors:
    main: str
    security: str


def mirrors(main: str | None) -> Mirrors:
    """Where this machine's apt gets its packages, so that a local mirror is used when there is one."""
    found: dict[str, str] = {}
    if shutil.which("apt-get"):
        listing = machine.run(["apt-get", "indextargets", "Created-By: Packages", "--format", "$(RELEASE) $(SITE)"])
        for line in listing.splitlines():
            release, _, site = line.partition(" ")
            found.setdefault(release, site.rstrip("/"))
    return Mirrors(
        main=main or found.get(RELEASE, "http://deb.debian.org/debian"),
        security=found.get(f"{RELEASE}-security", "http://deb.debian.org/debian-security"),
    )


def first(path: Path, sources: Mirrors) -> None:
    """v1."""
    with tempfile.TemporaryDirectory(prefix="root-", dir=path.parent) as name:
        root = Path(name) / "root"
        machine.run(["debootstrap", f"--include={BASE}", RELEASE, root, sources.main])
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        machine.run(["mke2fs", "-q", "-t", "ext4", "-L", "first", "-d", root, path, SIZE])


def installed(before: Path, path: Path) -> None:
    """v2 from v1."""
    _inside(before, path, INSTALL)


def upgraded(before: Path, path: Path, sources: Mirrors) -> None:
    """v3 from v2."""
    _inside(before, path, UPGRADE.format(security=sources.security, release=RELEASE))


def second(before: Path, path: Path) -> None:
    """u1 from v1."""
    with tempfile.TemporaryDirectory(prefix="mnt-", dir=path.parent) as name:
        scratch = Path(name) / "scratch.img"
        mnt = Path(name) / "mnt"
        mnt.mkdir()
        _private(SHUFFLE, before, path, mnt, scratch)


def _inside(before: Path, path: Path, commands: str) -> None:
    synthetic.copy_sparse(before, path)
    with tempfile.TemporaryDirectory(prefix="mnt-", dir=path.parent) as mnt:
        _private(INSIDE, path, mnt, commands)


def _private(script: str, *arguments: str | Path) -> None:
    machine.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *arguments])


def possible() -> str | None:
    """Why this machine cannot mount disks, or nothing."""
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name) / "disk"
        with disk.open("wb") as file:
            file.truncate(16 << 20)
        try:
            machine.run(["mke2fs", "-q", "-t", "ext4", disk])
            machine.run(["unshare", "-m", "--propagation", "private", "mount", "-o", "loop", disk, name])
        except (machine.BenchError, OSError) as error:
            return str(error).splitlines()[-1]
    return None
