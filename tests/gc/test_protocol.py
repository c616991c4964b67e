"""Every interleaving of writers and collectors: with a lock nothing is lost, and each rule is needed."""

from __future__ import annotations

import functools

import pytest

from tests.gc import protocol

HAS, NAMES = True, False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sources", "runs", "named"),
    [
        pytest.param((HAS, HAS), (1,), False, id="two writers"),
        pytest.param((HAS,), (2, 1), True, id="three collections"),
        pytest.param((HAS, NAMES), (1, 1), False, id="a deleted branch is made again"),
        pytest.param((HAS, NAMES), (1, 1), True, id="a branch is deleted meanwhile"),
    ],
)
def test_with_locks_nothing_is_lost(sources: tuple[bool, ...], runs: tuple[int, ...], named: bool) -> None:
    """K3, K5: also when any of them dies at any step."""
    lost, count = protocol.explore(protocol.Setting(sources, runs, named))
    assert lost is None
    assert count > 1000


@pytest.mark.parametrize(
    ("weak", "sources", "runs"),
    [
        ("writers-take-no-lock", (HAS,), (1,)),
        ("collectors-share-the-lock", (HAS,), (1, 1)),
        ("goes-on-with-a-list", (NAMES,), (1, 1)),
        ("copy-comes-last", (HAS,), (1,)),
        ("content-goes-first", (HAS, NAMES), (1,)),
    ],
)
def test_each_rule_with_locks_is_needed(weak: str, sources: tuple[bool, ...], runs: tuple[int, ...]) -> None:
    """Without any one of them something is lost."""
    assert _loses(protocol.Setting(sources, runs, weak=frozenset({weak})))
    assert not _loses(protocol.Setting(sources, runs))


@functools.cache
def _loses(setting: protocol.Setting) -> bool:
    return protocol.explore(setting)[0] is not None
