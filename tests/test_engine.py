"""The fast engine beyond parity: forks, the goal-condition score, experts, and what it refuses to play."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import official_style, other_grammar

from sglib import envs
from sglib.envs.alfworld import FastAlfworld, UnsupportedGame, generate_games
from sglib.envs.alfworld import world as alfworld_world
from sglib.records import Trajectory

GAMES = generate_games(24, seed=31)


def play(env, rng, steps, observation):
    """Random admissible actions; returns all observations."""
    seen = [observation]
    while len(seen) <= steps and not seen[-1].done:
        seen.append(env.step(rng.choice(seen[-1].admissible)))
    return seen


# -- forks ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(game=st.sampled_from(GAMES), seed=st.integers(0, 10**6), at=st.integers(0, 12))
def test_a_restored_episode_goes_on_as_if_nothing_had_been(game, seed, at):
    """Snapshot, wander off, restore, replay: the same observations, on the same and on another environment."""
    env, rng = FastAlfworld(max_steps=30), random.Random(seed)
    play(env, rng, at, env.reset(game))
    if env.done:
        return
    here, now = env.snapshot(), env.observation
    first = play(env, random.Random(seed + 1), 10, now)
    distance = env.distance()
    assert env.restore(here) == now and env.steps == now.steps
    play(env, random.Random(seed + 2), 10, now)  # another future must not leave a trace in the snapshot
    for other in (env, FastAlfworld(max_steps=30)):
        assert other.restore(here) == now
        assert other.admissible() == now.admissible
        assert play(other, random.Random(seed + 1), 10, now) == first
        assert other.distance() == distance


def test_a_finished_episode_can_be_taken_back():
    env = FastAlfworld()
    env.reset(GAMES[0])
    for action in GAMES[0].walkthrough[:-1]:
        env.step(action)
    before = env.snapshot()
    assert env.step(GAMES[0].walkthrough[-1]).won
    assert not env.restore(before).done
    assert env.step("look").text  # it goes on


# -- the goal-condition score -----------------------------------------------------------------------------------------


def test_goal_conditions_rise_to_one_and_only_then_the_game_is_won():
    env = FastAlfworld()
    for game in generate_games(60, seed=33):
        seen = [env.reset(game)] + [env.step(action) for action in game.walkthrough]
        scores = [o.info["goal_conditions"] for o in seen]
        assert scores[0] < 1 and scores[-1] == 1
        assert [score == 1 for score in scores] == [o.won for o in seen]


def test_goal_conditions_by_hand():
    """Heat a thing: hot and in its place are two conditions. Two things in one place: each is one."""
    (hot,) = generate_games(1, seed=5, tasks=["pick_heat_then_place_in_recep"])
    env = FastAlfworld()
    env.reset(hot)
    scores = {}
    for action in hot.walkthrough:
        scores[action.split()[0]] = env.step(action).info["goal_conditions"]
    assert (scores["take"], scores["heat"], scores["move"]) == (0.0, 0.5, 1.0)
    (two,) = generate_games(1, seed=5, tasks=["pick_two_obj_and_place"])
    env.reset(two)
    moves = [score for action in two.walkthrough
             for score in [env.step(action).info["goal_conditions"]] if action.startswith("move")]  # fmt: skip
    assert moves == [0.5, 1.0]


# -- experts ----------------------------------------------------------------------------------------------------------


def follow(env, game, kind, most=150):
    observation, actions = env.reset(game), []
    while not observation.done and len(actions) < most:
        actions.append(env.expert(kind))
        assert actions[-1] in observation.admissible, (game.id, actions)
        observation = env.step(actions[-1])
    return observation, actions


@pytest.mark.parametrize("rooms", [8, None])
def test_the_optimal_expert_needs_the_fewest_actions_and_the_explorer_wins_too(rooms):
    env = FastAlfworld()
    for game in generate_games(24, seed=34, max_receptacles=rooms):
        best, actions = follow(env, game, "optimal")
        assert best.won and len(actions) == len(game.walkthrough)
        careful, explored = follow(env, game, "explore")
        assert careful.won and len(explored) >= len(actions), game.id


def test_the_explorer_knows_nothing_that_it_was_not_told():
    """Two games that differ only in what lies in receptacles not seen yet: the same action, as long as they do."""
    rng, compared = random.Random(0), 0
    for game in generate_games(30, seed=35, max_receptacles=10):
        one, other = FastAlfworld(), FastAlfworld()
        observation = one.reset(game)
        for _ in range(rng.randrange(12)):
            if not observation.done:
                observation = one.step(rng.choice(observation.admissible))
        if observation.done:
            continue
        other.restore(one.snapshot())
        unseen = [r for r in one.world.receptacles if r not in one.seen]
        for r in unseen:  # empty them, fill the first, open what is shut
            for o in other.inside[r]:
                other.where[o] = (unseen[0],)
        inside = tuple(sorted(o for r in unseen for o in one.inside[r]))
        other.inside |= dict.fromkeys(unseen, ()) | ({unseen[0]: inside} if unseen else {})
        other.opened |= set(unseen) & one.world.openable
        here = {r for r in one.world.receptacles if one.world.place[r] == one.location}
        if not here & set(unseen):  # standing there, the agent sees that it is open
            assert one.expert("explore") == other.expert("explore"), game.id
            compared += 1
    assert compared > 10


def test_unknown_expert():
    with pytest.raises(ValueError, match="kind='lazy': allowed: 'optimal', 'explore'"):
        FastAlfworld().expert("lazy")


def test_without_admissible_commands():
    env = envs.make("alfworld", admissible=False)
    assert env.reset(GAMES[0]).admissible == ()
    assert all(env.step(action).admissible == () for action in GAMES[0].walkthrough) and env.won


# -- what it refuses --------------------------------------------------------------------------------------------------

GAME = generate_games(1, seed=3, tasks=["pick_and_place_simple"], max_receptacles=5)[0]
FIRST = re.search(r"\(inReceptacle (\S+) (\S+)\)", GAME.problem)
ELSEWHERE = next(loc for loc in re.findall(r"(loc_\S+) - location", GAME.problem)
                 if f"{FIRST[2]} {loc})" not in GAME.problem)  # fmt: skip


def with_fact(fact):
    return lambda text: text.replace("(:init", f"(:init ({fact})")


def with_goal(goal):
    return lambda text: text[: text.index("(:goal")] + f"(:goal {goal})\n)"


PROBLEMS = {
    "problem: a bracket is not closed|must be one expression": lambda text: text.rsplit(")", 1)[0],
    "a closing bracket too many|must be one expression": lambda text: text + ")",
    "section ':init' is missing": lambda text: text.replace("(:init", "(:start"),
    "section ':objects' is missing": lambda text: text.replace("(:objects", "(:things"),
    "section ':goal' is missing": lambda text: text[: text.index("(:goal")] + ")",
    "section ':constraints": lambda text: text.replace("(:metric", "(:constraints (and)) (:metric"),
    "section ':domain put_task'": lambda text: text.replace("(:domain alfred)", "(:domain put_task)"),
    "must be \\(define": lambda text: "(defun" + text[text.index("(define") + 7 :],
    "unknown predicate 'flies'": with_fact("flies agent1"),
    "predicate 'inreceptacle' takes 2 arguments": with_fact(f"inReceptacle {FIRST[1]}"),
    "'ghost_bar_1' is used but not declared": with_fact(f"inReceptacle ghost_bar_1 {FIRST[2]}"),
    "initial fact \\(not": with_fact(f"not (opened {FIRST[2]})"),
    "is declared twice": lambda text: text.replace("(:objects", f"(:objects {FIRST[1]} - object"),
    "unknown type 'gadget'": lambda text: text.replace("(:objects", "(:objects thing_bar_1 - gadget"),
    "2 agents": lambda text: text.replace("agent1 - agent", "agent1 - agent agent2 - agent"),
    "at 2 places, expected one": with_fact(f"atLocation agent1 {ELSEWHERE}"),
    "receptacleAtLocation: .* is at two places": with_fact(f"receptacleAtLocation {FIRST[2]} {ELSEWHERE}"),
    "holds and holdsAny disagree": with_fact(f"holds agent1 {FIRST[1]}"),
    "toggleable of '.*', which is no object": with_fact(f"toggleable {FIRST[2]}"),
    "'knifetype' is (used but )?not declared": lambda text: re.sub(r"\bKnifeType - otype", "", text),
    "goal: unknown construct 'flies'": with_goal("(flies agent1)"),
    "goal: unknown construct 'inreceptacle'": with_goal("(inReceptacle agent1)"),
    "goal: predicate 'opened' is not supported": with_goal(f"(opened {FIRST[2]})"),
    "'not' before 'holds' is not supported": with_goal(f"(not (holds agent1 {FIRST[1]}))"),
    "the variable '\\?x' is not introduced": with_goal("(holds agent1 ?x)"),
    "goal: 'nobody' is used but not declared": with_goal(f"(holds nobody {FIRST[1]})"),
    "goal: unknown type 'gadget'": with_goal("(exists (?x - gadget) (holds agent1 ?x))"),
    "goal: \\(forall": with_goal("(forall (?x - object))"),
}


@pytest.mark.parametrize("message", PROBLEMS)
def test_a_problem_that_it_does_not_know(message):
    changed = PROBLEMS[message](GAME.problem)
    assert changed != GAME.problem
    env = FastAlfworld()
    with pytest.raises(UnsupportedGame, match=message):
        env.reset(replace(GAME, problem=changed))
    with pytest.raises(RuntimeError):
        env.step("look")  # nothing is half loaded
    assert env.reset(GAME).goal == GAME.goal


DATA = GAME.data()
GRAMMARS = {
    "0 task sentences": ("Your task is to:", "You should:"),
    "rule 'examineReceptacle.feedback' has other conditions": ("openable(r:receptacle) & opened", "opened"),
    "rule 'PutObject.feedback' uses the symbols": ("You move the {o.name}", "You move the {r.indefinite}"),
    "rule 'look-variations' is missing": ('"look-variations": [', '"looks": ['),
    "action 'toggleobject' has the template": ('"use {o}"', '"use {r}"'),
    "action 'look' answers by": ('feedback :: "#look.feedback#"', 'feedback :: "You look."'),
    "unknown action 'dance'": ("action look {",
                               'action dance {\n template :: "dance";\n feedback :: "#x#";\n}\naction look {'),
    "cannot be read at": ("action look {", "@ action look {"),
    "rules are not JSON": ('"intro": [', '"intro": [,'),
    "has '<' in its text": ("You close the", "You <b>close the"),
    "the task sentence .* has a sign": (GAME.goal, "put {o} in desk"),
}  # fmt: skip


@pytest.mark.parametrize("message", GRAMMARS)
def test_a_grammar_that_it_does_not_know(message):
    old, new = GRAMMARS[message]
    assert old in DATA["grammar"]
    with pytest.raises(UnsupportedGame, match=message):
        FastAlfworld().reset(replace(GAME, grammar=DATA["grammar"].replace(old, new)))


DOMAINS = {
    "action 'pickupobject' differs": ("(not (holdsAny ?a))  ; agent's hands", "; agent's hands"),
    "unknown action 'fly'": ("(:action look",
                             "(:action fly :parameters (?a - agent) :precondition () :effect ())\n(:action look"),
    "predicate 'opened' differs": ("(opened ?r - receptacle)", "(opened ?r - object)"),
    "types \\['gadget'\\] differ": ("otype\n  )", "otype\n gadget\n  )"),
    "section ':derived' is not supported": ("(:action look", "(:derived (full ?r) (opened ?r))\n(:action look"),
    "domain: begins with": ("(define (domain alfred)", "(define (domain other)"),
}  # fmt: skip


@pytest.mark.parametrize("message", DOMAINS)
def test_a_domain_that_it_does_not_know(message):
    old, new = DOMAINS[message]
    assert old in DATA["pddl_domain"]
    with pytest.raises(UnsupportedGame, match=message):
        FastAlfworld().reset(replace(GAME, domain=DATA["pddl_domain"].replace(old, new)))


def test_comments_and_costs_of_a_domain_do_not_matter():
    domain = DATA["pddl_domain"].replace("(increase (total-cost) 5)", "(increase (total-cost) 7) ; dear")
    assert domain != DATA["pddl_domain"]
    assert FastAlfworld().reset(replace(GAME, domain=domain)) == FastAlfworld().reset(GAME)


# -- the reading of a problem -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda g, rng: g, official_style])
def test_layout_and_comments_of_a_problem_do_not_matter(change):
    rng = random.Random(0)
    for game in generate_games(30, seed=36, max_receptacles=8):
        text = change(game, rng).problem
        spaced = text.replace("(inReceptacle", "; a comment (\n( inReceptacle")
        assert spaced != text and alfworld_world.read_problem(spaced) == alfworld_world.read_problem(text)


def test_other_releases_of_the_data_speak_their_own_words():
    env, game = FastAlfworld(), GAMES[0]
    env.reset(other_grammar(game, "2.1.1"))
    assert env.step(game.walkthrough[0]).text.startswith("You arrive at loc ")
    assert any(c.startswith("put ") for c in (env.expert("optimal"), *env.plan()))
    assert env.step("help").text == "Nothing happens."
    env.reset(other_grammar(game, "2.1.2"))
    assert "\\n" in env.step("help").text and "\n" not in env.step("help").text


def test_replay_and_game_of():
    """A recorded episode is lived through again, on its game, found or made again."""
    game, other = GAMES[0], GAMES[1]
    distances = [env.distance() for env in envs.replay(game, game.walkthrough)]
    assert distances == list(range(len(game.walkthrough), -1, -1))
    trajectory = Trajectory(game.id, game.task_type, game.goal, "act", origin=game.origin, env="alfworld")
    both = {game.id: game, other.id: other}
    assert envs.task_of(trajectory) == envs.task_of(trajectory, both) == game
    with pytest.raises(ValueError, match="not among them, and cannot be made again"):
        envs.task_of(replace(trajectory, origin=None), {other.id: other})
