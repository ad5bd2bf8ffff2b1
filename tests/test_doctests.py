"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["pretrainps.registry.lookup", "pretrainps.hub.resolve", "pretrainps.images.pixels", "pretrainps.hub.load"]
)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
