"""A campaign has a short form, which runs every time, and a long one, marked `slow`."""

from __future__ import annotations

import os

import pytest


def sizes(short: int, full: int) -> pytest.MarkDecorator:
    """The test takes `size`: the short one, or (slow) the full one, or what FAULTS_SIZE says instead."""
    full = int(os.environ.get("FAULTS_SIZE", full))
    return pytest.mark.parametrize("size", [short, pytest.param(full, marks=pytest.mark.slow)])
