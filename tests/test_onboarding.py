"""A newcomer's path by README's own code, at its smallest (`make onboarding` is the whole of it)."""

import onboarding
import pytest

from sglib.experiments.recipe import load_recipe
from sglib.records import Trajectory, Turn


def test_the_reward_that_the_readme_shows_pays_for_moving_about(tmp_path):
    recipe = load_recipe(str(onboarding.own_files(tmp_path)))
    turns = [Turn("You see a door.", "Action: go to door 1", "go to door 1", True), Turn("", "look", "look", True)]
    episode = Trajectory("g", "t", "goal", "act", turns)
    assert recipe.components[1]([episode]) == [[1.0, 0.0]]


@pytest.mark.slow
@pytest.mark.skipif(not (onboarding.ROOT / ".git").exists(), reason="not a clone")
def test_it_is_judged_by_the_readme_s_command(capfd):
    assert onboarding.main(["--smoke"]) == 0
    said = capfd.readouterr().out
    assert "mine in onboarding" in said and "Report card:" in said and "min  all" in said
