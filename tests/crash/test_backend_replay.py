"""Power cuts at every operation of the directory backend (D1 to D5), and proof that the rig would tell."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from tests.crash import model, mutants, recorder, states, workload
from vimgvc.backends import files, local, protocol

Make = Callable[[pathlib.Path, files.Files], local.LocalBackend]


def create(root: pathlib.Path, target: files.Files) -> local.LocalBackend:
    return local.LocalBackend.create(root, target)


def record(target: files.Files, root: pathlib.Path, blobs: workload.Blobs, make: Make) -> list[recorder.Operation]:
    """The log of a new repository and all rounds of the workload on `target`."""
    recording = recorder.RecordingFiles(target)
    backend = make(root, recording)
    workload.initialise(backend, blobs)
    workload.run(backend, blobs, recording.acknowledge)
    return recording.log


def replay(
    make: Make, seed: int, *, drawn: int, reopen: workload.Open = local.LocalBackend.open, sample: int | None = None
) -> int:
    """Checks all states from the end of `init` on, or a sample; returns how many there are."""
    blobs = workload.make_blobs(seed)
    log = record(workload.start(), workload.ROOT, blobs, make)

    def check(state: states.State) -> None:
        workload.check(state, blobs, reopen)

    first = initialised(log)
    return states.replay(log, workload.start(), check, seed=seed, drawn=drawn, first=first, sample=sample)


def initialised(log: list[recorder.Operation]) -> int:
    """The number of the operation that acknowledges the new repository."""
    return next(at for at, operation in enumerate(log) if operation.kind == "acknowledge")


def test_recording_is_what_happened(tmp_path: pathlib.Path, seed: int) -> None:
    """A log recorded on the real file system and played on the model gives the same files, byte for byte."""
    root = tmp_path / "repository"
    log = record(files.RealFiles(), root, workload.make_blobs(seed), create)
    player = recorder.Player(model.ModelFiles([str(tmp_path)]))
    for operation in log:
        player.play(operation)
    real = {str(path): None if path.is_dir() else path.read_bytes() for path in [root, *root.rglob("*")]}
    assert player.target.tree(str(root)) == real


@pytest.mark.slow
def test_d2_power_cut_at_every_operation(seed: int) -> None:
    """D1, D2: whatever a kill or a power cut leaves, what was acknowledged is there and work goes on."""
    assert replay(create, seed, drawn=10, sample=80) > 1000


@pytest.mark.slow
def test_d2_power_cut_while_created(seed: int) -> None:
    """D1, D2: a repository that was not finished can be made in the same place, with nothing tidied up."""
    blobs = workload.make_blobs(seed)
    log = record(workload.start(), workload.ROOT, blobs, create)
    log = log[: initialised(log) + 1]

    def check(state: states.State) -> None:
        workload.check(state, blobs)

    assert states.replay(log, workload.start(), check, seed=seed, drawn=0, sample=60) > 1000


def test_d3_power_cut_right_after_success(seed: int) -> None:
    """D3: once a round is acknowledged a power cut changes nothing at all."""
    blobs = workload.make_blobs(seed)
    player = recorder.Player(workload.start())
    acknowledged = 0
    for operation in record(workload.start(), workload.ROOT, blobs, create):
        player.play(operation)
        if operation.kind == "acknowledge":
            now = player.target.tree("/")
            for kind in states.CERTAIN:
                assert player.target.crash(states.Certain(kind)).tree("/") == now
            acknowledged += 1
    assert acknowledged == workload.ROUNDS + 1


def test_d4_no_name_before_its_bytes(seed: int) -> None:
    """D4: no power cut leaves a final name with other bytes than the blob has."""
    blobs = workload.make_blobs(seed)
    log = record(workload.start(), workload.ROOT, blobs, create)
    named = 0
    for state in states.states(log, workload.start(), seed=seed, drawn=2):
        for path, content in state.files.tree("/").items():
            name = path.removeprefix(f"{workload.ROOT}/")
            if protocol.is_name(name):
                assert content == blobs.content[name], f"{state.kind} after {state.after}, seed {state.seed}"
                named += 1
    assert named > 1000


@pytest.mark.slow
def test_d5_new_directory_is_synced(seed: int) -> None:
    """D5: shards that are missing are made on demand, and survive with what is in them."""
    assert replay(mutants.BareAreas.make, seed, drawn=1, reopen=mutants.BareAreas, sample=60) > 300


def _over(wrapper: type[mutants.Passing]) -> Make:
    return lambda root, target: local.LocalBackend.create(root, wrapper(target))


@pytest.mark.parametrize(
    ("make", "reopen"),
    [
        pytest.param(_over(mutants.NoDirectorySync), local.LocalBackend.open, id="no fsync of directories"),
        pytest.param(_over(mutants.NoFileSync), local.LocalBackend.open, id="no fsync of files"),
        pytest.param(mutants.NameFirst.create, local.LocalBackend.open, id="name before fsync"),
        pytest.param(mutants.InPlace.create, local.LocalBackend.open, id="written in place"),
        pytest.param(mutants.NoParentSync.make, local.LocalBackend.open, id="new directory not synced"),
        pytest.param(create, mutants.FoundIsDurable.open, id="found is durable"),
    ],
)
def test_rig_finds(make: Make, reopen: workload.Open, seed: int) -> None:
    """The replay fails on a defect of the write path, and names the state in one line."""
    with pytest.raises(AssertionError, match=r"^state \w+, seed \d+, after operation \d+ of \d+ \(.*\): .*"):
        replay(make, seed, drawn=1, reopen=reopen)
