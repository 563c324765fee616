"""Panels: fixed games with a hash; an evaluation plays each once, and neither order nor batches change the result."""

import dataclasses

import pytest

import sglib
from sglib.envs import panels


@pytest.mark.parametrize("split", ["train", "valid_seen", "valid_unseen"])
def test_the_manifests_hold(split):
    games = sglib.panel("alfworld", split, "small")
    rows = panels.manifest("alfworld", split)
    assert len(rows) == 512 and len(games) == 128 and {g.split for g in games} == {split}
    assert [row["id"] for row in rows[:128]] == [game.id for game in games]
    assert [row["hash"] for row in rows[:128]] == [panels.task_hash(game) for game in games]
    assert len({row["hash"] for row in rows}) == 512


def test_the_hash_is_of_the_content_not_of_the_order():
    games = sglib.panel("alfworld", n=6)
    known = panels.panel_hash(games)
    assert panels.panel_hash(games[::-1]) == known
    assert panels.panel_hash(games[:5]) != known
    moved = dataclasses.replace(games[0], problem=games[0].problem.replace("cabinet", "drawer") + " ")
    assert panels.panel_hash([moved, *games[1:]]) != known


def test_a_game_that_changed_is_told(monkeypatch):
    card = sglib.envs.get("alfworld")
    made = card.panel(3, "valid_seen")
    changed = [made[0], dataclasses.replace(made[1], goal="put a spoon in sofa"), made[2]]
    monkeypatch.setattr(type(card), "panel", lambda *args: changed)
    with pytest.raises(RuntimeError, match=r"panel valid_seen, task 1: .* the manifest says"):
        sglib.panel("alfworld", n=3)


@pytest.mark.parametrize("n", ["medium", "", "512"])
def test_a_size_that_is_none(n):
    with pytest.raises(ValueError, match="allowed: small, full, or a number"):
        sglib.panel("alfworld", n=n)


def test_an_evaluation_plays_each_game_once_in_any_order():
    policy, games = sglib.load_policy("base"), sglib.panel("alfworld", n=6)
    one = sglib.evaluate(policy, games, turns=12, seed=3)
    order = [4, 0, 5, 2, 1, 3]
    two = sglib.evaluate(policy, [games[i] for i in order], turns=12, seed=3, options=sglib.Options(batch_size=2))
    assert one.panel == two.panel == panels.panel_hash(games) and one.numbers()["panel"] == one.panel
    assert [one.outcomes[i] for i in order] == two.outcomes
    played = [[turn.action for turn in t.turns] for t in one.trajectories]
    assert [played[i] for i in order] == [[turn.action for turn in t.turns] for t in two.trajectories]
    with pytest.raises(ValueError, match="is there more than once"):
        sglib.evaluate(policy, [*games, games[0]])


def test_a_game_given_twice_to_a_rollout_is_played_differently():
    policy, game = sglib.load_policy("base"), sglib.panel("alfworld", n=1)[0]
    a, b = sglib.rollout(policy, [game, game], temperature=1.5, turns=8)
    assert [t.action for t in a.turns] != [t.action for t in b.turns]
    c, d = sglib.rollout(policy, [game], temperature=1.5, turns=8, group=2)
    assert [[t.action for t in x.turns] for x in (a, b)] == [[t.action for t in x.turns] for x in (c, d)]
