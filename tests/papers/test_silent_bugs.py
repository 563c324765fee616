"""A museum of silent errors: mistakes in advantage code that raise nothing and train something else.

Each exhibit holds the wrong formula as a small function, a toy in which it gives another answer (often of the other
sign), and the right answer from the library with the arithmetic.
"""

import numpy as np
import pytest

from sglib.advantages.formulas import discounted, gigpo, group_relative, to_tokens, turn_level
from sglib.experiments import params

APPROX = {"abs": 1e-4}


def z_scores(values, ddof=0):
    values = np.asarray(values, dtype=float)
    return (values - values.mean()) / (values.std(ddof=ddof) + 1e-6)


# --- 1. statistics over turns instead of trajectories ---


def statistics_over_turns(returns, lengths):
    """Wrong. Happens where a batch has one row per turn, and the code for one row per episode is reused on the rows."""
    rows = z_scores(np.repeat(returns, lengths), ddof=1)
    return rows[np.cumsum(lengths) - 1]


def test_1_long_episodes_weigh_more_in_statistics_over_turns():
    """Mean and spread belong to trajectories, one return each. Taken over turns they are those of the long episodes:
    failures are usually long, so the mean sinks, wins look exceptional, and failures are hardly punished.

    Won in 2 turns (10), lost in 8 (0). Over trajectories: mean 5, std 7.0711: +-0.7071. Over ten turns: mean 2, std
    sqrt((2 * 64 + 8 * 4) / 9) = 4.2164: 8 / 4.2164 = 1.8974 and -2 / 4.2164 = -0.4743.
    """
    assert statistics_over_turns([10, 0], [2, 8]) == pytest.approx([1.8974, -0.4743], **APPROX)
    assert group_relative([10, 0], [0, 0]) == pytest.approx([0.7071, -0.7071], **APPROX)
    rewards, anchors = [[0, 10], [0] * 8], [[("won", t) for t in range(2)], [("lost", t) for t in range(8)]]
    won, lost = gigpo(rewards, [0, 0], anchors)
    assert won == pytest.approx([0.7071] * 2, **APPROX) and lost == pytest.approx([-0.7071] * 8, **APPROX)


# --- 2. the order of discount and normalisation ---


def discount_then_normalise(gains, outcomes, gamma):
    """Wrong for IGPO. Happens where returns are made early, with the rewards, and "the advantages" normalised later."""
    returns = discounted([[*g[:-1], o] for g, o in zip(gains, outcomes, strict=True)], gamma)
    flat = z_scores(np.concatenate(returns))
    return np.split(flat, np.cumsum([len(r) for r in returns])[:-1])


def normalise_then_discount(rewards, anchors, gamma):
    """Wrong for GiGPO. Happens where a reward normaliser runs before the estimator is called. One group."""
    keys = sorted({k for row in anchors for k in row})
    pools = {k: [r[t] for r, row in zip(rewards, anchors) for t in range(len(r)) if row[t] == k] for k in keys}
    scores = {k: dict(zip(pool, z_scores(pool), strict=True)) for k, pool in pools.items()}
    return discounted([[scores[k][x] for x, k in zip(r, row)] for r, row in zip(rewards, anchors)], gamma)


def test_2a_discounting_before_normalising_punishes_how_a_win_began():
    """IGPO normalises first and discounts second. The other way round, an early turn of a won episode has a small
    return, falls below the mean of all turns' returns, and is punished for being early.

    Two episodes of four turns without gains, won and lost, gamma 0.5. Right: outcomes +-1, so the winner has 1/8, 1/4,
    1/2, 1. Wrong: returns 1/8, 1/4, 1/2, 1 and four times 0 have mean 1.875 / 8 = 0.2344, and turn 1 is below it.
    """
    gains, outcomes = [[0, 0, 0, 0], [0, 0, 0, 0]], [1, 0]
    wrong, _ = discount_then_normalise(gains, outcomes, gamma=0.5)
    won, lost = turn_level(gains, outcomes, [0, 0], gamma=0.5)
    assert wrong[0] < 0 < won[0]
    assert won == pytest.approx([0.125, 0.25, 0.5, 1], **APPROX) and lost == pytest.approx(-won)


def test_2b_normalising_before_discounting_silences_the_shared_states():
    """GiGPO discounts first: what is compared in an anchor state is what came after it. Rewards normalised within the
    states instead are all equal in the middle of an episode and alone at its end, so nothing is left of A_S.

    Both episodes begin in the hall; one goes on to the kitchen and wins. gamma 0.9: returns in the hall 9 and 0, mean
    4.5, std 6.3640: A_S = +-0.7071 there, and 0 in the states that only one of them saw. A_E adds +-0.7071.
    """
    rewards, anchors = [[0, 10], [0, 0]], [["hall", "kitchen"], ["hall", "cellar"]]
    assert [r.tolist() for r in normalise_then_discount(rewards, anchors, gamma=0.9)] == [[0, 0], [0, 0]]
    won, lost = gigpo(rewards, [0, 0], anchors, gamma=0.9)
    assert won == pytest.approx([1.4142, 0.7071], **APPROX) and lost == pytest.approx(-won)


# --- 3. turn rewards given to the last turn ---


def all_on_the_last_turn(gains):
    """Wrong. Happens where a reward function may return one number per episode, which then stands on the last token."""
    sums = [sum(g) for g in gains]
    return discounted([[*[0.0] * (len(g) - 1), s] for g, s in zip(gains, sums, strict=True)], 1.0)


def test_3_a_sum_on_the_last_turn_knows_nothing_of_turns():
    """Turn rewards say which turn was good. Summed up on the last turn they still look like turn rewards in the logs,
    but every turn has the same return, and here nothing at all is left.

    Gains 1, -1 and -1, 1, equal outcomes: mu 0, sigma 1. From turn 1 on both sum to 0; turn 2 has -1 and 1.
    """
    gains = [[1, -1, 0], [-1, 1, 0]]
    assert all((r == 0).all() for r in all_on_the_last_turn(gains))
    first, second = turn_level(gains, [0, 0], [0, 0])
    assert first == pytest.approx([0, -1, 0], **APPROX) and second == pytest.approx([0, 1, 0], **APPROX)


# --- 4. return-to-go reset at observation tokens ---


def return_to_go_over_tokens(token_rewards, mask, gamma=1.0):
    """Wrong. Happens where the mask that stops padding in single-turn code also marks the environment's tokens."""
    running, result = 0.0, np.zeros(len(mask))
    for j in reversed(range(len(mask))):
        running = (token_rewards[j] + gamma * running) * mask[j]
        result[j] = running
    return result


def test_4_the_return_of_a_turn_goes_on_behind_the_observation():
    """What the environment says is not trained on, but the return passes over it. A running sum that is multiplied with
    the mask starts again at each observation, so only the last turn ever hears of the outcome.

    Turn 1: two tokens, then two of observation; turn 2: two tokens, the last one rewarded with 1; padding. With gamma
    0.9 per turn: 0.9 on turn 1, 1 on turn 2.
    """
    mask, rewards = [1, 1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1, 0]
    assert return_to_go_over_tokens(rewards, mask).tolist() == [0, 0, 0, 0, 1, 1, 0]
    tokens = to_tokens(discounted([[0, 1]], gamma=0.9)[0], [(0, 2), (4, 6)], mask)
    assert tokens == pytest.approx([0.9, 0.9, 0, 0, 1, 1, 0])


# --- 5. group ids after reordering ---


def groups_by_position(returns, group_size):
    """Wrong after any reordering. Happens where rows are sorted by length to save padding, then reshaped to groups."""
    rows = np.asarray(returns, dtype=float).reshape(-1, group_size)
    return np.concatenate([z_scores(row, ddof=1) for row in rows])


def test_5_groups_follow_the_episode_not_its_place():
    """Episodes of one task are compared with each other. After sorting, neighbours are of different tasks, and an
    episode is rewarded for having had the easier task, or is compared with an equal and teaches nothing.

    Task a: 10, 0; task b: 10, 0; lengths 3, 9, 4, 8. Sorted by length: a's 10, b's 10, b's 0, a's 0. Cut in pairs, both
    pairs are equal and all advantages 0. By their ids: +-5 / 7.0711 = +-0.7071.
    """
    returns, groups, lengths = np.array([10, 0, 10, 0]), np.array(["a", "a", "b", "b"]), [3, 9, 4, 8]
    order = np.argsort(lengths)
    assert groups_by_position(returns, 2) == pytest.approx([0.7071, -0.7071] * 2, **APPROX)
    assert groups_by_position(returns[order], 2).tolist() == [0, 0, 0, 0]
    right = group_relative(returns[order], groups[order])
    assert right == pytest.approx([0.7071, 0.7071, -0.7071, -0.7071], **APPROX)
    assert (right == group_relative(returns, groups)[order]).all()


# --- 6. normalisation per turn index ---


def normalised_per_turn_index(gains):
    """Biased. Happens where turns are stacked to (episodes, turns) and each column is normalised by itself."""
    result = [np.zeros(len(g)) for g in gains]
    for t in range(max(len(g) for g in gains) - 1):
        going_on = [i for i, g in enumerate(gains) if t < len(g) - 1]
        for i, z in zip(going_on, z_scores([gains[i][t] for i in going_on]), strict=True):
            result[i][t] = z
    return result


def test_6_each_turn_index_has_only_those_who_went_on():
    """The policy chooses when to stop, so the episodes that have a turn 2 are no fair sample: they are those that went
    on. Compared among themselves their mean is 0, so going on costs nothing however much it loses on average, and the
    less bad of two losses becomes a gain.

    Four episodes gain 0.2 on turn 1; two stop there, two go on and lose 0.4 and 0.6. On index 2 the mean is -0.5, sigma
    0.1: +1 for the loss of 0.4. Over all six: mu = (4 * 0.2 - 1) / 6 = -0.03333, sigma^2 = (0.16 + 0.16 + 0.36) / 6 -
    mu^2 = 0.11222, sigma 0.33500: (-0.4 + 0.03333) / 0.335 = -1.0945; without mu -0.4 / 0.335 = -1.1940.
    """
    gains = [[0.2, 0], [0.2, 0], [0.2, -0.4, 0], [0.2, -0.6, 0]]
    assert normalised_per_turn_index(gains)[2][1] == pytest.approx(1, **APPROX)
    assert turn_level(gains, [1] * 4, [0] * 4)[2][1] == pytest.approx(-1.0945, **APPROX)
    assert turn_level(gains, [1] * 4, [0] * 4, baseline="none")[2][1] == pytest.approx(-1.1940, **APPROX)
    second_turns = [normalised_per_turn_index(gains)[i][1] for i in (2, 3)]
    assert sum(second_turns) == pytest.approx(0, **APPROX)  # whatever going on costs


# --- 7. turns found by their reward ---


def turns_found_by_reward(gains):
    """Wrong. Happens where rewards lie in a row of zeros, one place per token, and `!= 0` tells where turns end."""
    pool = [x for g in gains for x in g if x != 0]
    return discounted([[(x - np.mean(pool)) / np.std(pool) if x != 0 else 0.0 for x in g] for g in gains], 1.0)


def test_7_a_turn_that_gains_exactly_nothing_is_a_turn():
    """A reward of exactly 0 (a neutral label, no progress, a failure) is common. Where turns are found by their reward,
    such a turn is in no mean and gets no reward itself: doing nothing counts as average instead of below it.

    Gains 0, 2 and 1, 1, equal outcomes. All four: mu 1, sigma sqrt(2 / 4) = 0.7071: -1.4142, 1.4142 in the first, so
    from turn 1 on 0. Without the 0: mu 4/3, sigma 0.4714: 0 and 1.4142, so from turn 1 on 1.4142.
    """
    gains = [[0, 2, 0], [1, 1, 0]]
    assert turns_found_by_reward(gains)[0] == pytest.approx([1.4142, 1.4142, 0], **APPROX)
    assert turn_level(gains, [5, 5], [0, 0])[0] == pytest.approx([0, 1.4142, 0], **APPROX)


# --- 8. a small reward that decides alone ---


def divide_by_own_spread(returns):
    """Not wrong, but silent: the usual formula on a group in which only a penalty or an internal reward differs."""
    return (np.asarray(returns) - np.mean(returns)) / (np.std(returns, ddof=1) + 1e-4)


def test_8_where_all_fail_the_coefficient_of_a_penalty_means_nothing():
    """Each group is divided by its own spread. Where all episodes fail, that is the spread of the small penalty, which
    is thereby blown up to the size of a success: a smaller coefficient does not help. `scale="outcome"` keeps the
    proportion, since it divides by the spread of outcomes.

    Group 0: 10, 0. Group 1, both failed, one with a penalty of 0.1: +-0.05 / (0.07071 + 0.0001) = +-0.7061, against
    +-0.7071 for a success; with a penalty of 0.01 still +-0.005 / 0.00717 = +-0.6973. By outcome: 10, 0, 0, 0 has mean
    2.5, std 5, so +-0.05 / 5.0001 = +-0.0100.
    """
    assert divide_by_own_spread([0, -0.1]) == pytest.approx([0.7061, -0.7061], **APPROX)
    assert divide_by_own_spread([0, -0.01]) == pytest.approx([0.6973, -0.6973], **APPROX)
    returns, groups, outcomes = [10, 0, 0, -0.1], [0, 0, 1, 1], [10, 0, 0, 0]
    assert group_relative(returns, groups)[2:] == pytest.approx([0.7061, -0.7061], **APPROX)  # Eq 8 as it is written
    right = group_relative(returns, groups, scale="outcome", outcomes=outcomes)
    assert right == pytest.approx([0.7071, -0.7071, 0.0100, -0.0100], **APPROX)


# --- 9. settings that do nothing ---


def read_leniently(settings):
    """Wrong. Happens where settings are a dict with defaults: what is not asked for is never seen."""
    return {"learning_rate": settings.get("learning_rate", 2e-4), "clip": settings.get("clip", 0.2)}


def clipped_loss(ratio, advantage, clip):
    return -np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)


def test_9a_a_misspelt_setting_is_refused():
    """A misspelt name read with a default leaves the default in force, and the run is reported as what it was not."""
    assert read_leniently({"learning_rte": 1.0e-5})["learning_rate"] == 2e-4
    with pytest.raises(params.ParameterError, match="learning_rte: unknown.*did you mean 'learning_rate'"):
        params.check("04_joint_grpo", {"learning_rte": 1.0e-5})


def test_9b_a_setting_that_cannot_act_is_refused():
    """With one update per batch the ratio of new to old probabilities is 1, and clipping never acts, however narrow: a
    sweep over it compares equal runs. So it is refused there, and taken with two updates."""
    assert clipped_loss(1.0, 2.0, clip=0.1) == clipped_loss(1.0, 2.0, clip=0.3) == -2.0
    assert clipped_loss(1.2, 2.0, clip=0.1) != clipped_loss(1.2, 2.0, clip=0.3)
    with pytest.raises(params.ParameterError, match="clip does nothing with updates_per_batch = 1"):
        params.check("04_joint_grpo", {"clip": 0.1, "updates_per_batch": 1})
    assert params.check("04_joint_grpo", {"clip": 0.1, "updates_per_batch": 2}).clip == 0.1
