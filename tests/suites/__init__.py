"""Conformance suites: what every implementation of a waist must do. Adopting one takes under 30 lines."""

import pytest

# Before the submodules are imported: only then do their asserts show the values.
pytest.register_assert_rewrite("tests.suites.backend", "tests.suites.reader", "tests.suites.writer")
