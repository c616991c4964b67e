"""A missing tool is a listed skip for a developer and a failure on CI."""

from __future__ import annotations

import pytest

from tests import needs


def test_present_tool_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that exists is returned by path, whether on CI or not."""
    for value in ("true", ""):
        monkeypatch.setenv("CI", value)
        assert needs.require_tool("sh", "dash").endswith("/sh")


def test_missing_tool_is_a_skip_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside CI a missing tool skips, and the reason names the package to install."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install some-package"):
        needs.require_tool("no-such-tool-anywhere", "some-package")


def test_missing_tool_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CI the same absence fails the test."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install some-package"):
        needs.require_tool("no-such-tool-anywhere", "some-package")
