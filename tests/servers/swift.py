"""OpenStack Swift with its S3 interface: one server of each kind, one copy of everything."""

from __future__ import annotations

import contextlib
import getpass
import pathlib
from collections.abc import Callable

from tests.servers import environment, processes

ACCESS, SECRET = "test:tester", "testing"
_PLAIN = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}/srv
mount_check = false
workers = 0
fallocate_reserve = 0
log_address = {folder}/log
user = {user}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
allow_open_expired = false
"""
_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
workers = 0
log_address = {folder}/log
user = {user}
[pipeline:main]
pipeline = {pipeline} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:symlink]
use = egg:swift#symlink
[filter:versioned_writes]
use = egg:swift#versioned_writes
"""
_PIPELINE = "catch_errors gatekeeper cache listing_formats bulk s3api tempauth slo dlo symlink versioned_writes"
_SWIFT = """
[swift-hash]
swift_hash_path_prefix = vimgvc
swift_hash_path_suffix = vimgvc
[storage-policy:0]
name = one
default = yes
"""


def run(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Start it; returns endpoint and credentials. Raises `processes.Failed`."""
    programs = environment.programs()
    (folder / "srv" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(_SWIFT)
    words = {"folder": folder, "user": getpass.getuser()}
    started: list[Callable[[], None]] = []
    for kind in ("account", "container", "object"):
        port = processes.free_port()
        ring = str(folder / f"{kind}.builder")
        builder = str(programs / "swift-ring-builder")
        for step in (["create", "4", "1", "1"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
            processes.run([builder, ring, *step])
        started.append(
            _serve(stack, programs, folder, kind, text=_PLAIN.format(port=port, kind=kind, **words), port=port)
        )
    port = processes.free_port()
    started.append(
        _serve(stack, programs, folder, "proxy", text=_PROXY.format(port=port, pipeline=_PIPELINE, **words), port=port)
    )
    for wait in started:
        wait()
    return {"endpoint": f"http://127.0.0.1:{port}", "access": ACCESS, "secret": SECRET, "region": "us-east-1"}


def _serve(
    stack: contextlib.ExitStack, programs: pathlib.Path, folder: pathlib.Path, kind: str, *, text: str, port: int
) -> Callable[[], None]:
    """Start one; what is returned waits until it is there."""
    conf, log = folder / f"{kind}.conf", folder / f"{kind}.words"
    conf.write_text(text)
    process = processes.start(stack, log, [str(programs / f"swift-{kind}-server"), str(conf), "-v"])
    return lambda: processes.wait_until(lambda: processes.listens(port), process, log)
