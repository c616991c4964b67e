"""Each rule of writers and collections is needed in the program, too: without it some moment loses something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.gc import past, scenarios
from vimgvc import errors
from vimgvc.repo import collecting, gcrecords, publication, refs, roots
from vimgvc.store import objects

Patch = pytest.MonkeyPatch
_PIN, _REF = ("put", "pins", 0), ("put", "refs", 0)


@pytest.fixture(scope="module")
def original() -> past.Past:
    return past.build()


def _nobody_looks_again(patch: Patch) -> None:
    patch.setattr(publication.Publication, "_look", lambda *_args, **_kwargs: None)


def _presence_is_enough(patch: Patch) -> None:
    real = publication.Publication._going

    def going(pub: publication.Publication) -> gcrecords.Condemned:
        found = real(pub)
        there = objects.pack_sizes(pub.repo.backend.list("packs"))
        return gcrecords.Condemned(found.packs - there.keys(), frozenset())

    patch.setattr(publication.Publication, "_going", going)


def _only_what_is_unfinished_counts(patch: Patch) -> None:
    real = gcrecords.Records.swept

    def swept(records: gcrecords.Records, epoch: int, phases: set[str]) -> gcrecords.Condemned:
        return gcrecords.Condemned() if gcrecords.DONE in phases else real(records, epoch, phases)

    patch.setattr(gcrecords.Records, "swept", swept)


def _no_second_marking(patch: Patch) -> None:
    patch.setattr(collecting.Run, "_spare", lambda *_: None)


def _names_before_pins(patch: Patch) -> None:
    real_pins, real_logs = roots.Reader._read_pins, roots.Reader._read_logs
    early: list[dict[str, list[refs.Ref]]] = []

    def pins(reader: roots.Reader) -> Any:
        early.append(real_logs(reader))
        return real_pins(reader)

    patch.setattr(roots.Reader, "_read_pins", pins)
    patch.setattr(roots.Reader, "_read_logs", lambda _: early.pop())


def _the_pin_goes_first(patch: Patch) -> None:
    def publish(
        pub: publication.Publication, kind: str, name: str, commit: str, known: dict[str, refs.Ref], **more: str
    ) -> refs.Ref:
        pub.end()
        return pub.repo.logs.publish(kind, name, commit, known, time=more["time"], host=more["host"])

    patch.setattr(publication.Publication, "publish", publish)


def _names_that_went_do_not_count(patch: Patch) -> None:
    patch.setattr(roots, "_named_since", lambda *_: set())


def _any_name_will_do(patch: Patch) -> None:
    real = publication.Publication.begin

    def begin(*args: Any, **kwargs: Any) -> publication.Publication:
        pub = real(*args, **kwargs)
        pub.avoid = pub.gone = frozenset()
        return pub

    def check(pub: publication.Publication, packs: Iterable[str] | None = None, own: Any = ()) -> None:
        pub._checked.update(pub._pins)

    patch.setattr(publication.Publication, "begin", begin)
    patch.setattr(publication.Publication, "check", check)


_FINDS: list[tuple[Callable[[Patch], None], Callable[[past.Past], None]]] = [
    (_nobody_looks_again, lambda one: scenarios.a_commit_sleeps(one, _PIN)),
    (_presence_is_enough, scenarios.a_removal_is_on_its_way),
    (_only_what_is_unfinished_counts, lambda one: scenarios.a_commit_sleeps(one, _PIN)),
    (_no_second_marking, scenarios.a_commit_comes_before_the_sweep),
    (_names_before_pins, scenarios.a_pin_goes_while_it_looks),
    (_the_pin_goes_first, lambda one: scenarios.a_commit_sleeps(one, _REF)),
    (_names_that_went_do_not_count, scenarios.a_name_that_went),
    (_any_name_will_do, scenarios.a_pack_put_again),
]


@pytest.mark.parametrize(("weaken", "scenario"), _FINDS, ids=[weaken.__name__[1:] for weaken, _ in _FINDS])
def test_each_rule_is_needed(
    original: past.Past,
    monkeypatch: pytest.MonkeyPatch,
    weaken: Callable[[Patch], None],
    scenario: Callable[[past.Past], None],
) -> None:
    """The moment passes with the program as it is, and without the rule what has a name is not whole."""
    scenario(original)
    weaken(monkeypatch)
    with pytest.raises((AssertionError, errors.IntegrityError, errors.NotFound)):
        scenario(original)
