"""The machine of histories finds defects: each of these is put in, and some life must lose something."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest

from tests.property import test_history_machine
from vimgvc import errors, monitor
from vimgvc.backends import local
from vimgvc.model import reflog
from vimgvc.repo import refs, roots
from vimgvc.store import repack

pytestmark = pytest.mark.long


def _tags_are_no_roots(patch: pytest.MonkeyPatch) -> None:
    real = roots.Reader._read_logs

    def read(reader: roots.Reader) -> dict[str, list[refs.Ref]]:
        return {blind: log for blind, log in real(reader).items() if log[-1].entry.kind == reflog.BRANCH}

    patch.setattr(roots.Reader, "_read_logs", read)


def _tips_can_be_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = roots.Reader.read

    def read(*args: Any, **kwargs: Any) -> roots.Roots:
        found = real(*args, **kwargs)
        return dataclasses.replace(found, live=tuple(item for item in found.live if item.id not in found.recorded))

    patch.setattr(roots.Reader, "read", read)


def _nothing_is_copied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repack, "repack", lambda *_args, **_kwargs: set())
    patch.setattr(repack, "check_packs", lambda *_args, **_kwargs: None)


def _nothing_is_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(local.LocalBackend, "sync", lambda _self: None)


def _unreadable_is_absent(patch: pytest.MonkeyPatch) -> None:
    """An entry that cannot be read is left out, and what only it leads to is removed."""
    real = roots.Reader._read_logs

    def read(reader: roots.Reader) -> dict[str, list[refs.Ref]]:
        try:
            return real(reader)
        except errors.IntegrityError:
            return {ref.blind: [ref] for ref in reader._logs.last(monitor.NullMonitor()).values()}

    patch.setattr(roots.Reader, "_read_logs", read)


@pytest.mark.slow
@pytest.mark.parametrize(
    "break_it",
    [
        _nothing_is_copied,
        _nothing_is_synced,
        pytest.param(_tags_are_no_roots, marks=pytest.mark.deep),
        pytest.param(_tips_can_be_forgotten, marks=pytest.mark.deep),
        pytest.param(_unreadable_is_absent, marks=pytest.mark.deep),
    ],
)
def test_the_machine_finds(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With any of these defects some life loses something."""
    break_it(monkeypatch)
    with pytest.raises((AssertionError, errors.VimgvcError)):
        test_history_machine.live(seed, 1000, 40, (hypothesis.Phase.generate,))
