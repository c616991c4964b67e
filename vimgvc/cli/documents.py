"""What --json prints, as plain objects (specs/cli.md)."""

from __future__ import annotations

import dataclasses
from typing import Any

from vimgvc.model import commit

Document = dict[str, Any]


def commit_facts(item: commit.Commit) -> Document:
    """A commit as every command shows it."""
    return {
        "id": item.id,
        "branch": item.branch,
        "parents": list(item.parents),
        "message": item.message,
        "author": item.author,
        "host": item.host,
        "time": item.time,
        "disks": [disk_facts(disk) for disk in item.disks],
        "attachments": [dataclasses.asdict(attachment) for attachment in item.attachments],
    }


def disk_facts(disk: commit.Disk) -> Document:
    return {
        "name": disk.name,
        "size": disk.size,
        "manifest": disk.manifest,
        "container": disk.container,
        "allocated_bytes": disk.allocated_bytes,
        "read_bytes": disk.read_bytes,
        "changed_bytes": disk.changed_bytes,
        "new_bytes": disk.new_bytes,
        "stored_bytes": disk.stored_bytes,
    }


def rounded(seconds: float) -> float:
    return round(seconds, 3)
