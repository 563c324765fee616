"""What evaluation counts: by hand on small episodes, and replays on the reference engine."""

import copy

import pytest

import sglib
from sglib.envs.alfworld.failures import redundant_visits, took_wrong_object
from sglib.envs.alfworld.reference import replay_on_reference
from sglib.measure.evaluate import is_looping, label_agreement
from sglib.records import Trajectory, Turn


def episode(*actions, goal="put a mug in desk", valid=True, **fields):
    return Trajectory("g", "t", goal, "act", [Turn("o", a, a, valid, **fields) for a in actions])


def test_looping():
    assert is_looping(episode(*["look"] * 5))
    assert not is_looping(episode(*["look"] * 4))
    assert is_looping(episode(*["look", "inventory"] * 5)), "half of ten steps"
    assert not is_looping(episode("a", "b", "c", "d", "e", "f", "g", "h", "look", "look"))


def test_wrong_object():
    assert took_wrong_object(episode("take cup 1 from desk 1"))
    assert not took_wrong_object(episode("take mug 1 from desk 1"))
    assert not took_wrong_object(episode("take cup 1 from desk 1", valid=False))
    assert took_wrong_object(episode("take knife 1 from desk 1"))
    slicing = episode("take knife 1 from desk 1")
    slicing.goal = "put a slice of apple in desk"
    assert not took_wrong_object(slicing)


def test_a_closed_receptacle_has_not_been_looked_into():
    """Closed cabinet, desk, the cabinet again to open it: not redundant; a third time, now open: redundant."""
    trip = episode("go to cabinet 1", "go to desk 1", "go to cabinet 1", "open cabinet 1", "go to cabinet 1")
    trip.turns[1].observation = "You arrive at cabinet 1. The cabinet 1 is closed."
    trip.turns[3].observation = "You arrive at cabinet 1. The cabinet 1 is closed."
    assert redundant_visits(trip) == (1, 4)


def test_redundant_visits():
    """desk, bed, desk again (redundant), take, bed (fresh again after the take): 1 of 4."""
    assert redundant_visits(
        episode("go to desk 1", "go to bed 1", "go to desk 1", "take mug 1 from desk 1", "go to bed 1")
    ) == (1, 4)
    for put in ("move mug 1 to bed 1", "put mug 1 in/on bed 1"):  # as generated games, as official ones say it
        assert redundant_visits(episode("go to desk 1", put, "go to desk 1")) == (0, 2)


def test_label_agreement():
    """Distances 5, 4, 4, 5: positive after a fall agrees, positive after none does not, negative after a rise agrees,
    neutral is left out."""
    turns = [
        Turn("o", "", "a", True, label=label, distance=d)
        for label, d in (("positive", 5), ("positive", 4), ("positive", 4), ("negative", 5), ("neutral", 4))
    ]
    assert label_agreement([Trajectory("g", "t", "x", "guide", turns)]) == (2, 3)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="tasks: none"):
        sglib.evaluate(sglib.load_policy("new"), [])
    with pytest.raises(ValueError, match="trajectories: none"):
        sglib.summarize([])


def test_the_panel_is_fixed_and_grows_at_its_end():
    assert sglib.panel("alfworld", n=5) == sglib.panel("alfworld", n=8)[:5]
    assert all(g.split == "valid_seen" for g in sglib.panel("alfworld", n=5))


def test_replay_on_the_reference_finds_no_difference_and_finds_a_forged_one():
    games = sglib.panel("alfworld", n=3)
    played = sglib.rollout(sglib.load_policy("base"), games, turns=6, seed=0)
    assert replay_on_reference(played, games) == replay_on_reference(played[:1]) == []
    forged = copy.deepcopy(played[:1])
    forged[0].turns[3].observation = "You win."
    assert "turn 3: 'You win.' was recorded" in replay_on_reference(forged)[0]
    forged = copy.deepcopy(played[:1])
    forged[0].turns[2].valid = not forged[0].turns[2].valid
    assert "turn 2" in replay_on_reference(forged)[0]
    forged = copy.deepcopy(played[:1])
    forged[0].won = not forged[0].won
    assert "won=" in replay_on_reference(forged)[0]
    forged[0].origin = {**forged[0].origin, "number": 99}
    with pytest.raises(ValueError, match="makes 'valid_seen/.*', not 'valid_seen/"):
        replay_on_reference(forged)
    forged[0].origin = None
    with pytest.raises(ValueError, match="not among"):
        replay_on_reference(forged, [])
