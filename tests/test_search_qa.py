"""Search QA: worlds, questions, searching, scores, the field's files; and IGPO with the true answer."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglib
from sglib import envs, formats
from sglib.envs.base import task_hash
from sglib.envs.search_qa import SearchEnv, exact_match, f1, load_questions
from sglib.envs.search_qa.scores import igpo_f1
from sglib.envs.search_qa.worlds import RELATIONS, World, world
from sglib.experiments import study
from sglib.experiments.recipe import load_recipe
from sglib.models.policy import Policy
from sglib.models.small import build_model, build_tokenizer
from sglib.play.scoring import branch_logprobs
from sglib.rewards.igpo import InformationGain
from sglib.training.grpo import GRPOSettings, train

CARD = envs.get("search_qa")
QUESTIONS = CARD.tasks(64, seed=5)


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer("search_qa")
    return Policy(build_model(tokenizer, layers=2), tokenizer, True, "untrained")


def test_worlds_are_the_same_again_and_others_elsewhere():
    assert [task_hash(q) for q in QUESTIONS] == [task_hash(q) for q in CARD.tasks(64, seed=5)]
    assert CARD.tasks(70, seed=5)[:64] == QUESTIONS and CARD.tasks(6, seed=5, start=64) == CARD.tasks(70, seed=5)[64:]
    train, valid = CARD.tasks(200), CARD.tasks(200, split="valid")
    assert not {q.world for q in train} & {q.world for q in valid}
    assert len({q.id for q in train}) == 200 and len({q.goal for q in QUESTIONS[:8]}) == 8
    again = CARD.remake(QUESTIONS[3].id, json.loads(json.dumps(QUESTIONS[3].origin)))
    assert again == QUESTIONS[3] and again.documents() is QUESTIONS[3].documents()


def test_facts_are_drawn_anew_for_every_world():
    """What a name's birthplace is says nothing about another world."""
    found = {}
    for seed in range(60):
        for (thing, relation), other in World(str(seed), 40).facts.items():
            if relation == "birthplace":
                found.setdefault(thing, []).append(other)
    same = [a == b for others in found.values() for a, b in zip(others, others[1:])]
    assert len(same) > 1000 and np.mean(same) < 2 / 10  # of ten cities in a world, sixteen in all


def test_answers_follow_the_documents():
    """Every step's fact stands in the document that the question's way names; an unanswerable one's last does not."""
    hidden = 0
    for q in CARD.tasks(400, size={"steps": [1, 4], "unanswerable": 0.3}):
        told = {d.title: d.text for d in q.documents().documents}
        names = {title: [title, alias] for title, alias in q.documents().aliases.items()}
        for title, following in zip(q.gold, [*q.gold[1:], None]):
            wanted = names.get(following, [following]) if following else q.answers
            stated = any(f"{name}." in told[title] for name in wanted)
            assert stated or q.answers == ("unknown",)
        hidden += q.answers == ("unknown",)
        assert q.goal.startswith("What is the ") and q.goal.endswith(f" of {q.gold[0]}?")
        assert q.goal.count(" of ") >= len(q.gold) and q.task_type.startswith(str(len(q.gold)))
    assert 0.2 < hidden / 400 < 0.4
    assert all({of, to} <= world("x", 40).things.keys() for of, to, _, _ in RELATIONS.values())


def test_who_reads_wins_and_who_guesses_does_not():
    won = dict.fromkeys(("explore", "optimal"), 0)
    for kind in won:
        for q in CARD.tasks(200, split="valid", size={"steps": [1, 4]}):
            env = CARD.make(max_steps=8)
            observation, progress = env.reset(q), [env.progress()]
            while not observation.done:
                observation = env.step(env.expert(kind))
                progress.append(env.progress())
            won[kind] += observation.won
            assert progress[0] == 0 and progress == sorted(progress) and (progress[-1] == 1) == observation.won
    assert won["optimal"] == 200 and won["explore"] >= 190  # another name can be that of a stranger


def test_commands_by_hand():
    q = QUESTIONS[0]
    env = SearchEnv(max_steps=6)
    assert env.reset(q).text == f"Question: {q.goal}"
    found = env.step(f"<search>{q.gold[0]}</search>")
    assert found.valid and found.text.startswith("<information>Doc 1(Title: ") and found.text.endswith("</information>")
    assert found.text.count("Doc ") == 3 and env.progress() == 1 / (len(q.gold) + 1)
    for wrong in ("", "search", "go home", "answer", 7, "<search></search>", "search zzz"):
        env.restore(snapshot := env.snapshot())
        observation = env.step(wrong)
        assert not observation.valid and not observation.done, wrong
        env.restore(snapshot)
    assert not env.step("search the").done
    tagged = formats.parse("act", f"Action: <answer>{q.answers[0]}</answer>").action
    env.restore(snapshot := env.snapshot())
    assert env.step(tagged).won
    env.restore(snapshot)
    last = env.step(f"Answer [the {q.answers[0].upper()}!]")
    assert (last.won, last.done, last.score, last.reward) == (True, True, 1.0, 1.0)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step("search x")
    env.reset(q)
    assert [env.step("search x").done for _ in range(6)][-1]


def test_scores_by_hand():
    assert exact_match("The Beatles!", ["beatles"]) and not exact_match("beatle", ["beatles"])
    assert f1("the big red house", ["a red house in Rome"]) == pytest.approx(2 * 2 / (3 + 4))
    assert f1("x", ["y", "x z"]) == pytest.approx(2 / 3) and f1("", [""]) == 1 and f1("", ["x"]) == 0
    assert f1("to-day", ["today"]) == 1 and igpo_f1("to-day", ["to day"]) == 1 and igpo_f1("the x", ["x"]) < 1


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_command(text):
    env = SearchEnv()
    env.reset(QUESTIONS[1])
    assert env.step(text).steps == 1 and 0 <= env.progress() <= 1


@pytest.mark.parametrize("size", [3, {"people": 5}, {"steps": [2, 1]}, {"steps": [1, 9]}, {"hops": 2}, {"people": "x"}])
def test_sizes_that_are_not(size):
    with pytest.raises(ValueError, match="size=.*allowed: people 20..200, steps"):
        CARD.tasks(1, size=size)


# -- the field's files -----------------------------------------------------------------------------------------------

HOTPOT = {
    "_id": "h1", "question": "Where was the founder of Acme born?", "answer": "Rome",
    "supporting_facts": [["Acme", 0], ["Ann Lee", 1], ["Acme", 1]],
    "context": [
        ["Acme", ["Acme is a firm.", " Ann Lee founded it."]], ["Ann Lee", ["Ann.", "Born in Rome."]], ["X", ["y"]]
    ],
}  # fmt: skip
MUSIQUE = {
    "id": "m1", "question": "Who?", "answer": "Bo", "answer_aliases": ["B."], "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "T", "paragraph_text": "Bo did.", "is_supporting": True},
        {"idx": 1, "title": "U", "paragraph_text": "None.", "is_supporting": False},
    ],
}  # fmt: skip


def test_the_fields_files_load(tmp_path):
    (tmp_path / "hotpot.json").write_text(json.dumps([HOTPOT]))
    (tmp_path / "musique.jsonl").write_text(json.dumps(MUSIQUE) + "\n" + json.dumps(MUSIQUE | {"answerable": False}))
    (tmp_path / "nq.jsonl").write_text(json.dumps({"question": "Where?", "golden_answers": ["Rome", "Roma"]}))
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "0", "contents": '"Ann Lee"\nShe was born in Rome.'}))
    (hotpot,) = load_questions(tmp_path / "hotpot.json")
    assert (hotpot.id, hotpot.answers, hotpot.gold) == ("h1", ("Rome",), ("Acme", "Ann Lee"))
    env = SearchEnv()
    env.reset(hotpot)
    assert "Ann Lee founded it." in env.step("search acme").text and env.step("<answer>rome</answer>").won
    one, none = load_questions(tmp_path / "musique.jsonl")
    assert one.answers == ("Bo", "B.") and one.gold == ("T",) and none.answers == ("unknown",)
    (plain,) = load_questions(tmp_path / "nq.jsonl", tmp_path / "corpus.jsonl")
    env.reset(plain)
    assert "(Title: Ann Lee) She was born in Rome." in env.step("search born").text and env.step("answer Roma").won
    assert plain.origin is None and plain.gold == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (HOTPOT | {"answer": " "}, "entry 1: no answer"),
        ({k: v for k, v in MUSIQUE.items() if k != "question"}, "entry 1: 'question' is missing"),
        ({"question": "q", "answer": "a"}, "no paragraphs, and no corpus was given"),
        ("text", "entry 1: .*allowed: HotpotQA"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, entry, message):
    (tmp_path / "f.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=f"f.json, .*{message}"):
        load_questions(tmp_path / "f.json")
    (tmp_path / "g.json").write_text("{")
    with pytest.raises(ValueError, match="g.json: no JSON"):
        load_questions(tmp_path / "g.json")


# -- played, and paid by IGPO ----------------------------------------------------------------------------------------


def test_the_small_model_has_a_word_for_everything(policy):
    texts = [d.text for q in QUESTIONS[::8] for d in q.documents().documents] + [q.goal for q in QUESTIONS]
    unknown = policy.tokenizer.unk_token_id
    for text in texts:
        assert unknown not in policy.encode(text), text


def test_demonstrators_pursue_what_they_say(policy):
    env, won, words = CARD.make(), [], set()
    for number, q in enumerate(CARD.tasks(200, seed=9)):
        steps, win = CARD.demonstrate(env, q, random.Random(number), CARD.pretraining["habits"], 8)
        again, _ = CARD.demonstrate(env, q, random.Random(number), CARD.pretraining["habits"], 8)
        assert steps == again and steps[0].label == "neutral" and len(steps) <= 8
        won.append(win)
        for step in steps:
            words |= {*policy.encode(f"{step.observation} Guidance: {step.guidance} Action: {step.action}")}
            if step.imitate and step.action.startswith("search"):
                assert step.guidance.endswith(f"of {step.action.removeprefix('search ')}")
            assert step.label in sglib.LABELS and step.progress in range(0, 101, 10)
        if win:
            assert steps[-1].imitate and steps[-1].action.startswith("answer")
    assert 0.8 < np.mean(won) < 0.97 and policy.tokenizer.unk_token_id not in words


def test_a_careless_demonstrator_teaches_its_detours():
    """It searches for what it has read of; early answers and detours are imitated, and it still wins."""
    habits, env, won, early = CARD.further_pretraining["careless"]["habits"], CARD.make(), 0, 0
    for number, q in enumerate(CARD.tasks(100, seed=9)):
        steps, win = CARD.demonstrate(env, q, random.Random(number), habits, 8)
        won += win
        early += steps[-1].imitate and steps[-1].action.startswith("answer") and not win
        read = " ".join(step.observation for step in steps)
        for step in steps[1:]:
            assert step.imitate and (step.action.startswith("answer") or step.action.removeprefix("search ") in read)
    assert 0.5 < won / 100 < 0.97 and early


def test_the_shipped_models_read():
    """Each after the other: a reader of one fact, the whole task, the same acting carelessly."""
    simple = CARD.tasks(64, seed=5, split="valid", size=CARD.further_pretraining["reader"]["size"])
    whole = sglib.panel("search_qa", n=64)
    success = {
        name: [sglib.evaluate(sglib.load_policy(name, env="search_qa"), tasks).success for tasks in (simple, whole)]
        for name in ("reader", "base", "careless")
    }
    assert success["reader"][0] > 0.7 and success["base"][1] > max(success["reader"][1], success["careless"][1])
    assert success["base"][1] > 0.4


def test_gains_are_of_the_true_answer(policy):
    """s_t by teacher forcing after "Action: answer"; of several answers the likeliest where that is asked for."""
    questions = [q for q in QUESTIONS if len(q.answers) == 2][:2] + QUESTIONS[:1]
    played = sglib.rollout(policy, questions, turns=3, seed=2)
    paid = {}
    for answers in ("first", "max"):
        component = InformationGain(target="answer", answers=answers)
        assert component.lacks(CARD) is None and component.knows == "the true answer"
        paid[answers] = component(played, policy, {q.id: q for q in questions})
    for trajectory, first, best in zip(played, paid["first"], paid["max"]):
        gold = next(q for q in questions if q.id == trajectory.game_id).answers
        scores = []
        for answer in gold:
            bridge, words = policy.encode("Action: answer"), policy.encode(f" {answer}")
            found = branch_logprobs(policy, [trajectory], [[bridge + words] * len(trajectory)], drop_prefix=True)[0]
            scores.append([x[len(bridge) :].mean() for x in found])
        np.testing.assert_allclose(first, [*np.diff(scores[0]), 0.0], atol=1e-6)
        np.testing.assert_allclose(best, [*np.diff(np.max(scores, axis=0)), 0.0], atol=1e-6)
    assert InformationGain().lacks(CARD) == "the answer 'facts' (target 'facts')"
    assert InformationGain(target="shuffled").lacks(CARD) is None
    assert InformationGain(target="answer").lacks(envs.get("alfworld")) == "the answer 'answer' (target 'answer')"


def test_igpos_outcome_by_hand(policy):
    """F1 of the answer on the last turn; -2 in its place where an answer could not be read."""
    env, q = CARD.make(), next(q for q in QUESTIONS if len(q.answers[0].split()) == 2)
    env.reset(q)
    half = env.step(f"answer {q.answers[0].split()[0]} Nobody")
    assert half.score == pytest.approx(0.5) and not half.won
    one = sglib.rollout(policy, [q], turns=3, seed=1)[0]
    for turn in one.turns:
        turn.parse_error = None
    one.score = half.score
    outcome = load_recipe("igpo_answer", CARD).components[0]
    assert outcome([one]) == [[*[0.0] * (len(one) - 1), 0.5]]
    one.turns[0].parse_error = "missing_action"
    assert outcome([one]) == [[*[0.0] * (len(one) - 1), -2.0]]
    with pytest.raises(ValueError, match="the answer 'answer'.*alfworld"):
        load_recipe("igpo_answer", envs.get("alfworld"))


def test_it_is_trained_and_looked_at(policy):
    recipe = load_recipe("random")
    settings = GRPOSettings(iterations=1, games_per_iteration=2, group_size=2, max_turns=3)
    row = train(policy, QUESTIONS[:4], settings, recipe.components, recipe.estimator).metrics[0]
    assert row["logprob_gap"] < 1e-4 and 0 < row["grad_norm"] < 1e3
    played = sglib.rollout(policy, QUESTIONS[:3], turns=3)
    report = sglib.summarize(played)
    assert set(report.failures) == {"no_answer", "wrong_answer", "searched_again"}
    assert CARD.board(played[0], 0).caption == played[0].goal
    assert all(left is not None for t in played for left in t.remaining())


def test_a_notebook_plays_it(tmp_path, outputs):
    """The pilot study, whose example episode is played by the expert where no distance is known."""
    file = tmp_path / "qa.yaml"
    file.write_text("env: search_qa\nsize: qa\nseed: 0\npilot: {games: 2, max_turns: 5}\n")
    report = study.study(file, only=["01_pilot_study"])
    told = report.read_text(encoding="utf-8")
    assert "Progress: 100" in told and "Question: What is the" in told
