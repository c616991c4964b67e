"""The one error tree.

Every failure a caller can see is a `VimgvcError` subclass with typed fields, a message, a hint
(what to do next) and the exit code of specs/manifesto.md. Callers branch on the class or a field,
never on the text. Foreign exceptions are mapped once, at the door where they enter.
"""

from __future__ import annotations

import errno


class VimgvcError(Exception):
    """Failed; nothing that was committed changed (exit 1)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(VimgvcError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class Incomplete(VimgvcError):
    """Done, but partly: the message says what is missing."""

    exit_code = 3


class NotFound(VimgvcError):
    """A named object, branch, disk or file does not exist."""

    def __init__(self, what: str, name: str, *, hint: str = "") -> None:
        super().__init__(f"{what} not found: {name}", hint=hint)
        self.what = what
        self.name = name


class NoRepository(VimgvcError):
    exit_code = 10


class Busy(VimgvcError):
    """Another process holds what this one needs."""

    exit_code = 11


class NoKey(VimgvcError):
    """No key slot opens with what was given."""

    exit_code = 12


class IntegrityError(VimgvcError):
    """Stored bytes are not what was committed.

    `where` names the stored object, `reason` the check that failed.
    """

    exit_code = 20

    def __init__(self, where: str, reason: str, *, hint: str = "run 'vimgvc verify' to see what is affected") -> None:
        super().__init__(f"{where}: {reason}", hint=hint)
        self.where = where
        self.reason = reason


class FormatError(IntegrityError):
    """A structure breaks a rule of specs/formats.md."""


class ImageDamaged(IntegrityError):
    """What an image's own tables lead to is not there or makes no sense; `where` names image and guest range."""

    def __init__(self, where: str, reason: str, *, hint: str = "the image is damaged or was cut short") -> None:
        super().__init__(where, reason, hint=hint)


class SlotDamaged(IntegrityError):
    """A key slot file fails its public checksum: damage, not a wrong passphrase."""


class UnsafeImage(VimgvcError):
    """An image or target that is refused because reading or writing it would be unsafe."""

    exit_code = 21


class Rollback(VimgvcError):
    """The repository shows an older or different state than this user has already seen."""

    exit_code = 22


class Unsupported(VimgvcError):
    """The repository needs a feature that this version does not know."""

    exit_code = 23

    def __init__(self, feature: str, *, hint: str = "use a newer vimgvc") -> None:
        super().__init__(f"unsupported feature: {feature}", hint=hint)
        self.feature = feature


class NoSpace(VimgvcError):
    """The place written to is full or over quota."""

    exit_code = 24


class BackendError(VimgvcError):
    """A place where blobs live failed; `kind` is the errno name or a protocol word."""

    def __init__(self, where: str, kind: str, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {detail}", hint=hint)
        self.where = where
        self.kind = kind


class RemoteError(BackendError):
    exit_code = 25


class RefMoved(VimgvcError):
    """Somebody else published the next entry of this branch or tag first; `commit` is what was to be its value."""

    exit_code = 26

    def __init__(self, branch: str, commit: str, *, message: str = "", hint: str = "") -> None:
        super().__init__(
            message or f"branch '{branch}' moved while this commit was made",
            hint=hint or f"your commit is stored as {commit[:12]}; commit again to add it on top",
        )
        self.branch = branch
        self.commit = commit


class Interrupted(VimgvcError):
    exit_code = 130


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def from_os_error(error: OSError, where: str) -> VimgvcError:
    """The typed error for an `OSError` met while working on `where` (a path or blob name)."""
    detail = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return NoSpace(f"{where}: {detail}", hint="free some space and run the same command again")
    kind = errno.errorcode.get(error.errno or 0, "EUNKNOWN")
    hints = {
        "EACCES": "check the owner and mode of the file",
        "EPERM": "check the owner and mode of the file",
        "EROFS": "the file system is mounted read-only",
        "EMFILE": "raise the limit of open files (ulimit -n)",
        "EIO": "the disk reports a hardware error; see the kernel log",
    }
    return BackendError(where, kind, detail, hint=hints.get(kind, ""))
