"""Every interleaving without locks: nothing that was acknowledged is lost, and each rule is needed."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.gc import lockless
from tests.gc.lockless import NAME, PUSH, STORE

#: All settings, which takes an hour and more, and gigabytes of memory: `VIMGVC_GC_MODEL=all`. Else the small ones.
_ALL = os.environ.get("VIMGVC_GC_MODEL") == "all"
_EXPIRY, _TAKE_OVER, _NAMED = {"expiry": True}, {"take_over": True}, {"named": True}

_SMALL: list[tuple[str, tuple[str, ...], tuple[int, ...], dict[str, Any]]] = [
    ("two collections", (STORE,), (2,), {}),
    ("two collections of a push", (PUSH,), (2,), {}),
    ("a push of what has a name", (PUSH,), (2,), _NAMED),
    ("a name that goes", (NAME,), (1,), _NAMED),
    ("two names", (NAME, NAME), (1,), {}),
    ("two stores", (STORE, STORE), (1,), {}),
    ("a store is taken for dead", (STORE,), (1,), _EXPIRY),
    ("a push is taken for dead", (PUSH,), (1,), _EXPIRY),
    ("one that names is taken for dead", (NAME,), (1,), {**_EXPIRY, **_NAMED}),
]
_LARGE: list[tuple[str, tuple[str, ...], tuple[int, ...], dict[str, Any]]] = [
    ("a push and a collector are taken over", (PUSH,), (1, 1), _TAKE_OVER),
    ("names and a collector are taken over", (NAME,), (1, 1), {**_TAKE_OVER, **_NAMED}),
    ("a store and a collector are taken over", (STORE,), (1, 1), _TAKE_OVER),
    ("two names are taken for dead", (NAME, NAME), (1,), _EXPIRY),
    ("a push and a name are taken for dead", (PUSH, NAME), (1,), _EXPIRY),
    ("all of it, stores", (STORE,), (2, 1), {**_TAKE_OVER, **_EXPIRY}),
    ("all of it, pushes", (PUSH,), (2, 1), {**_TAKE_OVER, **_EXPIRY}),
    ("two pushes and two collectors", (PUSH, PUSH), (1, 1), _TAKE_OVER),
    ("a push, a name, two collectors", (PUSH, NAME), (1, 1), {**_TAKE_OVER, **_NAMED}),
]


def _params(settings: list[tuple[str, tuple[str, ...], tuple[int, ...], dict[str, Any]]]) -> list[Any]:
    return [pytest.param(kinds, runs, more, id=name) for name, kinds, runs, more in settings]


@pytest.mark.slow
@pytest.mark.timeout(0 if _ALL else 900)
@pytest.mark.parametrize(("kinds", "runs", "more"), _params(_SMALL + _LARGE[: len(_LARGE) if _ALL else 1]))
def test_nothing_is_lost(kinds: tuple[str, ...], runs: tuple[int, ...], more: dict[str, Any]) -> None:
    """K3, K4, K5, K8, K10: whoever stops wherever for however long, and whoever is taken for dead."""
    lost, count = lockless.explore(lockless.Setting(kinds, runs, **more))
    assert lost is None
    assert count > 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weak", "kinds", "runs", "more"),
    [
        ("no-second-look", (STORE,), (1,), {}),
        ("there-is-enough", (STORE,), (1,), {}),
        ("ended-is-over", (STORE,), (1,), {}),
        ("gone-records-say-nothing", (STORE,), (2,), {}),
        ("pin-goes-first", (STORE,), (1,), {}),
        ("no-look-after-expiry", (STORE,), (1,), _EXPIRY),
        ("what-is-put-is-not-looked-at", (PUSH,), (1, 1), _TAKE_OVER),
        ("no-re-mark", (STORE,), (1,), {}),
        ("refs-first", (STORE,), (1,), {}),
        ("names-that-went-do-not-count", (NAME, NAME), (1,), {}),
        ("copies-in-the-end", (STORE,), (1,), {}),
        ("keeps-what-others-swept", (STORE,), (1, 1), _TAKE_OVER),
        ("closes-what-it-takes", (PUSH,), (1, 1), _TAKE_OVER),
        ("begins-when-it-has-read", (STORE,), (1, 1), {}),
        ("begins-beside-others", (STORE,), (1, 1), {}),
        ("does-not-ask-whether-taken", (STORE,), (1, 1), _TAKE_OVER),
        # What the probe of a place has to exclude.
        ("listings-are-late", (STORE,), (1,), {}),
    ],
)
def test_each_rule_is_needed(weak: str, kinds: tuple[str, ...], runs: tuple[int, ...], more: dict[str, Any]) -> None:
    """Without any one of them something is lost."""
    assert lockless.explore(lockless.Setting(kinds, runs, weak=frozenset({weak}), **more))[0] is not None
