"""Ceph's RADOS Gateway: a monitor, a storage daemon that keeps everything in memory, and S3 in front.

With authentication between the daemons: without it the gateway never finds the monitor.
"""

from __future__ import annotations

import contextlib
import pathlib
import uuid

from tests.servers import processes, s3_requests

PACKAGES = "radosgw ceph-mon ceph-osd"
PROGRAMS = ("radosgw", "ceph-mon", "ceph-osd")

_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush update on start = false
mon allow pool size one = true
mon warn on insecure global id reclaim = false
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
keyring = {folder}/keyring
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 12884901888
osd op num shards = 2
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
rgw thread pool size = 64
rgw enable usage log = false
rgw enable gc threads = false
rgw enable lc threads = false
"""
_KEYS = {
    "mon.": [("mon", "allow *")],
    "client.admin": [("mon", "allow *"), ("osd", "allow *"), ("mgr", "allow *"), ("mds", "allow *")],
    "client.rgw": [("mon", "allow *"), ("osd", "allow *")],
    "osd.0": [("mon", "allow profile osd"), ("osd", "allow *")],
}
ACCESS, OTHER, SECRET = "vimgvc-tests-access", "vimgvc-tests-other", "vimgvc-tests-secret"


def run(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Start it; returns endpoint and credentials. Raises `processes.Failed`."""
    mon1, mon2, port = (processes.free_port() for _ in range(3))
    fsid, conf, keyring = str(uuid.uuid4()), folder / "ceph.conf", folder / "keyring"
    conf.write_text(_CONFIG.format(fsid=fsid, mon1=mon1, mon2=mon2, port=port, folder=folder))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    for number, (entity, rights) in enumerate(_KEYS.items()):
        caps = [word for who, what in rights for word in ("--cap", who, what)]
        create = ["--create-keyring"] if number == 0 else []
        processes.run(["ceph-authtool", *create, str(keyring), "--gen-key", "-n", entity, *caps])
    addresses = f"[v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]"
    processes.run(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, str(folder / "monmap")])
    ids = ["-c", str(conf)]
    processes.run(
        ["ceph-mon", *ids, "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"), "--keyring", str(keyring)]
    )
    log = folder / "words"
    processes.start(stack, log, ["ceph-mon", *ids, "-i", "a", "-f"])
    # who asks before the monitor is ready may wait for ever
    ceph = ["ceph", *ids, "--connect-timeout", "15"]
    osd = str(uuid.uuid4())
    processes.run([*ceph, "osd", "new", osd, "0"], tries=8)
    processes.run([*ceph, "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost"], tries=4)
    processes.run(["ceph-osd", *ids, "-i", "0", "--mkfs", "--osd-uuid", osd])
    processes.start(stack, log, ["ceph-osd", *ids, "-i", "0", "-f"])
    admin = ["radosgw-admin", *ids, "-n", "client.rgw", "user", "create", f"--secret-key={SECRET}"]
    processes.run([*admin, "--uid=vimgvc", "--display-name=vimgvc", f"--access-key={ACCESS}"])
    # somebody without rights, until a bucket gives some
    processes.run([*admin, "--uid=other", "--display-name=other", f"--access-key={OTHER}"])
    gateway = processes.start(stack, log, ["radosgw", *ids, "-n", "client.rgw", "-f"])
    processes.wait_until(lambda: processes.listens(port), gateway, log)
    facts = {"endpoint": f"http://127.0.0.1:{port}", "access": ACCESS, "secret": SECRET, "region": "default"}
    # the first bucket makes the pools
    s3_requests.Client(**facts).make_bucket("vimgvc-first")
    return facts
