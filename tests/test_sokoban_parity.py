"""A small sample of `parity_sokoban.py` in every run, where gym-sokoban can be imported."""

import warnings

import pytest


def test_equal_to_gym_sokoban():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("gym_sokoban.envs", reason="needs gym-sokoban and setuptools<81", exc_type=ImportError)
    import parity_sokoban

    counts = parity_sokoban.compare(3_000, seed=1)
    assert counts["steps"] >= 3_000 and counts["differences"] == 0
    kinds = ("blocked", "pushes", "won", "onto_target", "off_target", "step_limit", "started_with_a_box_on_target")
    assert all(counts[kind] > 0 for kind in kinds), counts
