"""The frame of every test: its seed, a home of its own, and the order of the run.

- A test that draws random input takes the fixture `seed`. It derives from the number in the header
  of the run, which `VIMGVC_TEST_SEED` sets, and from the test's name.
- No test sees the home directory or the VIMGVC_* environment of whoever runs it.
- Over the whole run no two messages may be sealed under one key and nonce.
- Unit tests run first: what is wrong in the small is told before what follows from it. Then come the
  files with tests that are marked as long: begun late, one of them would keep one core busy at the end.
- Long sweeps do a sample, and tests that are marked as deep are left out, unless everything is asked for (`depth`).
- Every test has a docstring that states the property it proves.
"""

from __future__ import annotations

import os
import pathlib
import secrets
import zlib
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests import depth, needs, nonces

_BASE_SEED = depth.SEED
os.environ["VIMGVC_TEST_SEED"] = str(_BASE_SEED)  # for the processes that share the run

# The same examples on every run; no deadlines, because the cores are shared and time is not asserted.
hypothesis.settings.register_profile("project", derandomize=True, database=None, deadline=None, print_blob=True)
hypothesis.settings.load_profile("project")


def pytest_report_header() -> str:
    return f"seed: VIMGVC_TEST_SEED={_BASE_SEED}, {'everything' if depth.ALL else 'long sweeps by sample'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mute = sorted({f"{item.path.name}::{item.name.partition('[')[0]}" for item in items if _is_mute(item)})
    if mute:
        msg = "tests without a docstring that states their property: " + ", ".join(mute)
        raise pytest.UsageError(msg)
    if not depth.ALL:
        deep = [item for item in items if item.get_closest_marker("deep")]
        config.hook.pytest_deselected(items=deep)
        items[:] = [item for item in items if not item.get_closest_marker("deep")]
    unit = config.rootpath / "tests" / "unit"
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: (unit not in item.path.parents, item.path not in long))


def _is_mute(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and not item.function.__doc__


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test in this run; printed, so that a failure shows it."""
    own = zlib.crc32(request.node.nodeid.encode(), _BASE_SEED & 0xFFFF_FFFF)
    print(f"seed {own} (VIMGVC_TEST_SEED={_BASE_SEED})")  # noqa: T201 - shown with a failure
    return own


@pytest.fixture(scope="session", autouse=True)
def _no_key_and_nonce_twice() -> Iterator[None]:
    with nonces.watch():
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = pathlib.Path(tmp_path_factory.getbasetemp()) / f"home-{secrets.token_hex(4)}"
    for name in [name for name in os.environ if name.startswith(("VIMGVC_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str, str], str]:
    return needs.require_tool


@pytest.fixture(scope="session")
def require_root() -> Callable[[], None]:
    return needs.require_root


@pytest.fixture(scope="session")
def require_loop() -> Callable[[], str]:
    return needs.require_loop
