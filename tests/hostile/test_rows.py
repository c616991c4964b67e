"""Every image of the corpus through the real program, below a system-call trace; a test for each row.

A run does some images of each row, and with `--all` every one.

`commit` must end with the expected code and, where it succeeds, hold the expected content; `info` must
not break on anything. Neither may open a file that the user did not name, speak to anybody, or need
more memory than the limit.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from dataclasses import dataclass

import pytest

from tests import depth, needs, programs
from tests.hostile import case, rig, table
from vimgvc import monitor
from vimgvc.backends import local
from vimgvc.codec import keys
from vimgvc.repo import disk, repository
from vimgvc.store import objects

pytestmark = [pytest.mark.slow, pytest.mark.long]

#: Of a row, how many images a sample has; and those that a test asks about by name.
_EACH = 8
_NAMED = {"i1-raw-below", "i8-dirty", "i8-corrupt-forced", "i21-qcow2-declared-raw", "i28-vdi"}
MEMORY = 256 << 20
INFO_CODES = {0, 1, 20, 21, 23}
#: Where a child of ours listens: in a private folder, by its descriptor.
_OWN_SOCKET = re.compile(r"AF_UNIX (socket|(bind|connect) /proc/self/fd/\d+/\w+)")

#: The rows that are about the content of files; the others are in test_reading.py.
ROWS = {
    "I1": "backing files only where the user allows them, and below the roots",
    "I2": "names that lead out of the roots, or are none",
    "I3": "names with a scheme",
    "I4": "what is no regular file",
    "I5": "chains that loop, by whatever name",
    "I6": "chains of more than sixteen",
    "I7": "an external data file is the one that the user gives",
    "I8": "feature bits",
    "I9": "versions and lengths of the header",
    "I10": "cluster sizes",
    "I11": "the first table",
    "I12": "refcounts are not looked at",
    "I13": "snapshots are looked at when one is asked for",
    "I14": "bitmaps are not believed",
    "I15": "header extensions",
    "I16": "entries that lead nowhere are an error with the place on the disk",
    "I17": "small files that are large disks",
    "I18": "broken and oversized compressed streams",
    "I19": "odd and impossible sizes",
    "I20": "encryption without a secret",
    "I21": "a guest's own raw disk with a container's header",
    "I22": "files that are two things, or not what was declared",
    "I23": "names that contradict the content",
    "I24": "VMDK descriptors",
    "I25": "VMDK headers",
    "I26": "VHD",
    "I27": "VHDX",
    "I28": "VDI",
    "I29": "the small formats, and drivers that are none",
    "I30": "images that were cut",
}


@dataclass(repr=False)
class Run:
    """The corpus, what was answered, and the repository that it was committed to."""

    cases: dict[str, case.Case]
    contents: dict[str, bytes | None]
    commits: dict[str, rig.Answer]
    infos: dict[str, rig.Answer]
    folder: pathlib.Path
    fence: rig.Fence
    repo: repository.Repository
    objects: objects.Objects

    def of(self, row: str) -> list[case.Case]:
        return [item for item in self.cases.values() if item.row == row]

    def image(self, item: case.Case) -> str:
        return str(self.folder / item.name / item.image)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Run:
    needs.require_tool("strace", "strace")
    needs.require_tool("qemu-nbd", "qemu-utils")
    work = tmp_path_factory.mktemp("hostile")
    for name in ("home", "tmp", "cases"):
        (work / name).mkdir()
    environment = {"HOME": str(work / "home"), "TMPDIR": str(work / "tmp"), "VIMGVC_REPOSITORY": str(work / "repo")}
    secret = os.urandom(32)
    (work / "key").write_bytes(secret)
    (work / "key").chmod(0o600)
    made = [sys.executable, "-m", "vimgvc", "init", str(work / "repo"), "--key-file", str(work / "key"), "--remember"]
    own = {**os.environ, **environment, "PYTHONPATH": str(rig.ROOT)}
    programs.run(*made, cwd=work, env=own)
    cases, contents = {item.name: item for item in _chosen()}, {}
    jobs = []
    for item in cases.values():
        folder = work / "cases" / item.name
        folder.mkdir()
        contents[item.name] = item.make(folder)
        jobs += _jobs(item, folder)
    answers = rig.run(jobs, work, environment)
    opened = repository.Repository.open(local.LocalBackend(work / "repo"), [keys.Secret(keys.KEYFILE, secret)])
    return Run(
        cases,
        contents,
        {name: answers[f"{name} commit"] for name in cases},
        {name: answers[f"{name} info"] for name in cases},
        work / "cases",
        rig.Fence(*(work / name for name in ("home", "tmp", "repo", "messages"))),
        opened,
        opened.objects(monitor.NullMonitor()),
    )


def _chosen() -> list[case.Case]:
    every = table.cases()
    chosen = {item.name for row in ROWS for item in depth.of_run([one for one in every if one.row == row], _EACH)}
    return [item for item in every if item.name in chosen | _NAMED]


def _jobs(item: case.Case, folder: pathlib.Path) -> list[rig.Job]:
    image = str(folder / item.image)
    options = [option.replace("{folder}", str(folder)) for option in item.options]
    commit = ["commit", image, "--branch", item.name, "--author", "tester", "-m", item.row, "--no-fsync", *options]
    declared = options if options[:1] == ["--format"] else []
    return [
        rig.Job(f"{item.name} commit", tuple(commit), folder),
        rig.Job(f"{item.name} info", ("info", image, "--json", *declared), folder),
    ]


def _complain(problems: list[str]) -> None:
    assert not problems, "\n".join(problems)


def _codes(corpus: Run, row: str) -> list[str]:
    wrong = []
    for item in corpus.of(row):
        answer = corpus.commits[item.name]
        if answer.code not in item.codes:
            wrong.append(f"{item.name}: wanted {sorted(item.codes)}, got {answer.code}: {answer.messages[-300:]}")
    return wrong


def _content(corpus: Run, item: case.Case) -> bytes:
    commit = corpus.repo.resolve(item.name)
    stored = disk.StoredDisk(corpus.objects, commit.disks[0]).reader()
    data = bytearray(stored.size)
    stored.pread_into(0, memoryview(data))
    stored.close()
    return bytes(data)


@pytest.mark.parametrize("row", ROWS)
def test_verdict(corpus: Run, row: str) -> None:
    """Every image of the row ends with its code; a benign one is committed with its content."""
    assert corpus.of(row), ROWS[row]
    wrong = _codes(corpus, row)
    for item in corpus.of(row):
        if item.benign and not wrong and _content(corpus, item) != corpus.contents[item.name]:
            wrong.append(f"{item.name}: another content")
    _complain(wrong)


def test_the_corpus_is_whole() -> None:
    """At least 150 images, each row has some, and every format has good and bad ones."""
    cases = {item.name: item for item in table.cases()}
    assert len(cases) >= 150
    assert {item.row for item in cases.values()} == set(ROWS)
    for name in ("vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels", "cow", "cloop", "bochs", "dmg", "ova"):
        found = [item.benign for item in cases.values() if f"-{name}" in item.name]
        assert any(found), name
        assert not all(found), name


def test_what_is_refused_leaves_nothing(corpus: Run) -> None:
    """A commit that failed made no branch."""
    failed = {name for name, answer in corpus.commits.items() if answer.code}
    assert not failed & set(corpus.repo.branches())


def test_files_opened_were_named(corpus: Run) -> None:
    """P-7: files that were opened are those of the user's arguments, of the program, and of the system."""
    wrong = []
    for item in corpus.cases.values():
        folder = corpus.folder / item.name
        allowed = [str(path) for pattern in item.named for path in folder.glob(pattern)]
        for what, answer, named in (("commit", corpus.commits, allowed), ("info", corpus.infos, [])):
            outside = corpus.fence.outside(answer[item.name], [corpus.image(item), *named])
            wrong += [f"{item.name} {what}: {path}" for path in outside if not _is_folder(folder, path)]
    _complain(wrong)


def _is_folder(folder: pathlib.Path, path: str) -> bool:
    """A folder of the case itself, which is opened on the way to what it holds."""
    return pathlib.Path(path).is_relative_to(folder) and pathlib.Path(path).is_dir()


def test_no_canary_is_tried(corpus: Run) -> None:
    """Nobody even tries to open what lies beside the image, or what every system has, because an image names it."""
    bait = ("canary", "/etc/passwd", "/etc/shadow", "/dev/zero", "/dev/vda", "environ")
    _complain(
        [
            f"{name}: {path}"
            for answers in (corpus.commits, corpus.infos)
            for name, answer in answers.items()
            for path in answer.tried
            if path.endswith(bait)
        ]
    )


def test_nobody_is_spoken_to(corpus: Run) -> None:
    """No socket but those to children of ours, in private folders; no process outlives the command."""
    wrong = []
    for answers in (corpus.commits, corpus.infos):
        for name, answer in answers.items():
            wrong += [f"{name}: {one}" for one in answer.sockets if not _OWN_SOCKET.fullmatch(one)]
            wrong += [f"{name}: left {answer.left_behind} processes"] * bool(answer.left_behind)
            wrong += [f"{name}: ran {one}" for one in answer.programs if one not in _PROGRAMS]
    _complain(wrong)


_PROGRAMS = {"qemu-nbd", pathlib.Path(sys.executable).name, pathlib.Path(sys.executable).resolve().name}


def test_memory_and_time_are_bounded(corpus: Run) -> None:
    """No image makes a command need more than 256 MiB, or run into the limits of time of the driver."""
    wrong = []
    for answers in (corpus.commits, corpus.infos):
        for name, answer in answers.items():
            if answer.peak_bytes > MEMORY:
                wrong.append(f"{name}: {answer.peak_bytes >> 20} MiB")
            if answer.code < 0 or answer.code == 99:
                wrong.append(f"{name}: ended by {answer.code}: {answer.messages[-500:]}")
    _complain(wrong)


def test_info_survives_everything(corpus: Run) -> None:
    """`info` describes every image that can be read, and refuses the others in words."""
    wrong = []
    for name, answer in corpus.infos.items():
        item = corpus.cases[name]
        usage = item.row == "I29" and item.codes == {2}
        if answer.code not in (INFO_CODES | ({2} if usage else set())) or (item.benign and answer.code):
            wrong.append(f"{name}: {answer.code}: {answer.messages[-300:]}")
        elif "internal error" in answer.messages or "Traceback" in answer.messages:
            wrong.append(f"{name}: {answer.messages[-500:]}")
    _complain(wrong)


def test_i8_notes(corpus: Run) -> None:
    """What is odd about an image that is read all the same is told."""
    for name in ("i8-dirty", "i8-corrupt-forced"):
        assert "vimgvc:" in corpus.commits[name].messages, name


def test_i21_warning(corpus: Run) -> None:
    """A raw disk that looks like a container is pointed out by `info`."""
    found = json.loads(corpus.infos["i21-qcow2-declared-raw"].messages.partition("vimgvc:")[0])
    assert found["format"] == "raw"
    assert any("qcow2" in warning for warning in found["warnings"])


def test_the_trace_sees(corpus: Run) -> None:
    """Of a chain that the user allowed, the trace shows the backing file: what it does not show was not opened."""
    name = "i1-raw-below"
    image = corpus.image(corpus.cases[name])
    seen = corpus.fence.outside(corpus.commits[name], [image])
    assert str(corpus.folder / name / "roots/base.raw") in seen
    assert image in corpus.commits[name].opened
    assert corpus.fence.outside(corpus.commits[name], [])
    assert "AF_UNIX socket" in corpus.commits["i28-vdi"].sockets
