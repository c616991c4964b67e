"""What an SFTP server may answer instead of what was asked for, before it is known what that means."""

from __future__ import annotations

import enum


class Why(enum.Enum):
    """Protocol version 3 has few words. FAILURE is also: there already, disk full, read-only, not a directory."""

    MISSING = "no such file"
    DENIED = "permission denied"
    EXISTS = "there already"
    SPACE = "no space"
    UNSUPPORTED = "not supported"
    FAILURE = "failure"


class Refused(Exception):
    """The server did not do it, and will not if asked again."""

    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


class Lost(Exception):
    """The connection is gone, or answers what makes no sense; whether the request was done is not known."""
