"""Forks and what-if: played on from a recorded turn exactly as the episode itself went on; changes are told apart."""

import pytest

import sglib
from sglib.measure import counterfactual
from sglib.play.rollout import Fork


@pytest.fixture(scope="module")
def policy():
    return sglib.load_policy("base")


@pytest.fixture(scope="module")
def games():
    return sglib.envs.alfworld.generate_games(4, seed=77)


def same(a, b):
    """Two episodes, token by token; where a fork's prompt ends does not matter."""
    return (
        a.prompt_ids + a.completion_ids == b.prompt_ids + b.completion_ids
        and [(t.observation, t.action) for t in a.turns] == [(t.observation, t.action) for t in b.turns]
        and (a.won, a.final_observation, a.distances) == (b.won, b.final_observation, b.distances)
    )


@pytest.mark.parametrize("format", ["act", "progress", "guide"])
def test_a_fork_that_changes_nothing_goes_on_as_it_was(policy, games, format):
    options = {"format": format, "temperature": 0.0, "turns": 14}
    whole = sglib.rollout(policy, games, **options)
    turns = [0, len(whole[1]) - 1, len(whole[2]) // 2, 1]
    again = sglib.rollout(
        policy, games, **options, options=sglib.Options(forks=[Fork(t, n) for t, n in zip(whole, turns)])
    )
    given = [Fork(t, n, response=t.turns[n].response) for t, n in zip(whole, turns)]
    kept = sglib.rollout(policy, games, **options, options=sglib.Options(forks=given))
    for original, one, two in zip(whole, again, kept, strict=True):
        assert same(original, one) and same(original, two)


def test_what_was_given_is_not_the_policys(policy, games):
    (whole,) = sglib.rollout(policy, games[:1], turns=10, temperature=1.0, seed=1)
    (fork,) = sglib.rollout(
        policy, games[:1], turns=10, seed=2, options=sglib.Options(forks=[Fork(whole, 4, response="Action: look")])
    )
    assert [t.action for t in fork.turns[:4]] == [t.action for t in whole.turns[:4]]
    assert fork.turns[4].action == "look" and fork.turns[4].span == (0, 0)
    written = [fork.completion_ids[a:b] for a, b in (t.span for t in fork.turns[5:])]
    assert sum(map(len, written)) == sum(fork.mask) > 0
    assert all(len(x) == len(fork.completion_ids) for x in (fork.mask, fork.logprobs))


def test_an_answer_that_wins_ends_the_episode(policy, games):
    played = sglib.rollout(policy, games, temperature=0.4, turns=30, seed=3, group=4)
    won = next(t for t in played if t.won)
    game = next(g for g in games if g.id == won.game_id)
    last = Fork(won, len(won) - 1, response=won.turns[-1].response)
    for episode in sglib.rollout(policy, [game], group=2, options=sglib.Options(forks=[last])):
        assert episode.won and len(episode) == len(won) and not any(episode.mask)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"turn": 99}, "turn=99: must be in 0"),
        ({"turn": -1}, "turn=-1: must be in 0"),
        ({"action": "look", "delete_guidance": True}, "exactly one of"),
        ({}, "exactly one of"),
        ({"delete_guidance": True}, "format 'act'; allowed: 'guide'"),
        ({"guidance": "go on"}, "format 'act'; allowed: 'guide'"),
        ({"action": "look", "k": 0}, "k=0: must be at least 1"),
    ],
)
def test_a_change_that_is_none_is_named(policy, games, change, what):
    (episode,) = sglib.rollout(policy, games[:1], turns=3)
    with pytest.raises(ValueError, match=what):
        counterfactual.what_if(policy, episode, change.pop("turn", 1), **change)


def test_forks_fit_their_games(policy, games):
    (episode,) = sglib.rollout(policy, games[:1], turns=4)
    with pytest.raises(ValueError, match="got 1 for 2 tasks"):
        sglib.rollout(policy, games[:2], options=sglib.Options(forks=[Fork(episode, 1)]))
    with pytest.raises(ValueError, match="got an episode of"):
        sglib.rollout(policy, games[1:2], options=sglib.Options(forks=[Fork(episode, 1)]))
    with pytest.raises(ValueError, match="in format 'act'; must be"):
        sglib.rollout(policy, games[:1], format="guide", options=sglib.Options(forks=[Fork(episode, 1)]))
    with pytest.raises(ValueError, match="turn=3: must be below turns=3"):
        sglib.rollout(policy, games[:1], turns=3, options=sglib.Options(forks=[Fork(episode, 3)]))


def winning_place(policy, games):
    """The last step of a won episode: kept, it wins for certain."""
    for t in sglib.rollout(policy, games, temperature=0.4, seed=3, group=4):
        if t.won:
            return t, len(t) - 1
    raise AssertionError("no episode was won")


def test_the_winning_step_is_worth_what_another_choice_would_lose(policy, games):
    episode, last = winning_place(policy, games)
    found = counterfactual.what_if(policy, episode, last, action="look", k=12, max_turns=last + 1)
    assert found.kept == 1.0 and found.changed == 0.0 and found.high < 0 and found.k == 12
    assert all(not t.won and t.turns[last].action == "look" for t in found.examples)
    (value,) = counterfactual.step_values(policy, [episode], [(0, last)], k=12, max_turns=last + 1)
    assert value.kept == 1.0 and value.advantage == pytest.approx(1 - value.redrawn)
    assert value.low <= value.advantage <= value.high


def test_guidance_can_be_edited_and_deleted(policy, games):
    (episode,) = sglib.rollout(policy, games[:1], format="guide", turns=6, seed=4)
    edited = counterfactual.what_if(policy, episode, 2, guidance="go to shelf 1", label="positive", k=3, max_turns=6)
    for t in edited.examples:
        assert t.turns[2].guidance == "go to shelf 1" and t.turns[2].label == "positive"
        assert [turn.action for turn in t.turns[:2]] == [turn.action for turn in episode.turns[:2]]
    deleted = counterfactual.what_if(policy, episode, 2, delete_guidance=True, k=3, max_turns=6)
    assert all(t.turns[2].guidance is None and t.turns[2].action for t in deleted.examples)
    assert "points" in str(deleted)


def test_steps_are_sampled_from_all(policy, games):
    episodes = sglib.rollout(policy, games, turns=4)
    steps = counterfactual.sample_steps(episodes, 6, seed=1)
    assert len(set(steps)) == 6 and all(0 <= t < len(episodes[i]) for i, t in steps)
    assert len(counterfactual.sample_steps(episodes, 1000)) == sum(map(len, episodes))
    assert counterfactual.step_values(policy, episodes, []) == []


def test_an_empty_guidance_is_a_change(policy, games):
    (episode,) = sglib.rollout(policy, games[:1], format="guide", turns=4, seed=4)
    found = counterfactual.what_if(policy, episode, 1, guidance="", k=2, max_turns=4)
    assert all(not t.turns[1].guidance and t.turns[1].label == episode.turns[1].label for t in found.examples)


def test_what_could_not_be_read_cannot_stay(policy, games):
    (episode,) = sglib.rollout(policy, games[:1], format="guide", turns=4, seed=4)
    episode.turns[1].label = None
    with pytest.raises(ValueError, match="turn=1: its label could not be read"):
        counterfactual.what_if(policy, episode, 1, action="look", k=2, max_turns=4)


def test_a_fork_can_be_forked_behind_its_own_turn(policy, games):
    options = {"turns": 10, "temperature": 0.0}
    (whole,) = sglib.rollout(policy, games[:1], **options)
    (fork,) = sglib.rollout(policy, games[:1], **options, options=sglib.Options(forks=[Fork(whole, 3)]))
    (again,) = sglib.rollout(policy, games[:1], **options, options=sglib.Options(forks=[Fork(fork, 6)]))
    assert same(whole, again)
    with pytest.raises(ValueError, match="turn=2: this turn was not written in this episode"):
        Fork(fork, 2)


def test_steerability_counts_the_actions_that_change_with_the_guidance(policy):
    games = sglib.panel("alfworld", n=8)
    played = sglib.rollout(policy, games, format="guide", turns=8, temperature=0.4, seed=1)
    rows = {row["replaced"]: row for row in counterfactual.steerability(policy, played, seed=2)}
    assert set(rows) == {"label", "guidance", "both"} and rows["label"]["n"] == 8 >= rows["guidance"]["n"] > 0
    assert all(0 <= row["low"] <= row["changed"] <= row["high"] <= 1 for row in rows.values())
    # the base's demonstrators do what they state
    assert rows["guidance"]["changed"] > 0.5 > rows["label"]["changed"]
    assert rows == {row["replaced"]: row for row in counterfactual.steerability(policy, played, seed=2)}
    silent = sglib.rollout(policy, games[:2], format="act", turns=3, seed=1)
    assert counterfactual.steerability(policy, silent) == []
