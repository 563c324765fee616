"""Formats: reading is total, writing and reading are inverse, failures have names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglib import formats
from sglib.records import LABELS

ERRORS = {
    "empty_response", "missing_action", "missing_guidance", "missing_label", "unknown_label", "missing_progress",
    "bad_progress", "missing_thought",
}  # fmt: skip


ONE_TEXT = [name for name in formats.PREFIX if name != "guide_two_stage"]


@given(st.sampled_from(ONE_TEXT), st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_an_action_or_a_named_failure(name, text):
    parsed = formats.parse(name, text)
    assert isinstance(parsed.action, str) and "\n" not in parsed.action
    assert parsed.error is None or parsed.error in ERRORS
    if parsed.error is None:
        assert parsed.action
        assert parsed.label in LABELS if name == "guide" else parsed.label is None


@given(
    st.sampled_from(LABELS), st.sampled_from(["go to desk 1", "take mug 2 from shelf 3", "look"]), st.integers(0, 100)
)
def test_what_is_written_is_read_back(label, action, progress):
    for name in ONE_TEXT:
        stated = {"guidance": "find mug", "label": label, "progress": progress}
        parsed = formats.parse(name, formats.format_response(name, action, **stated))
        assert parsed.error is None and parsed.action == action
        if name == "guide":
            assert (parsed.guidance, parsed.label) == ("find mug", label)
        if name in ("progress", "repro"):
            assert parsed.progress == progress


@pytest.mark.parametrize(
    ("name", "text", "error", "action"),
    [
        ("act", "", "empty_response", ""),
        ("act", "go to desk 1", "missing_action", "go to desk 1"),
        ("act", "Action: go to desk 1.", None, "go to desk 1"),
        ("act", "Action: > `go to desk 1`\nbecause", None, "go to desk 1"),
        ("guide", "Guidance: x Label: wonderful Action: look", "unknown_label", "look"),
        ("guide", "Guidance: x Action: look", "missing_label", "look"),
        ("guide", "Label: positive Action: look", "missing_guidance", "look"),
        ("guide", "Guidance: x\nLabel: Positive.\nAction: look", None, "look"),
        ("progress", "Action: look", "missing_progress", "look"),
        ("progress", "Progress: 250 Action: look", "bad_progress", "look"),
        ("progress", "Progress: 40% Action: look", None, "look"),
        # what language models write
        ("act", "**Action**: go to desk 1", None, "go to desk 1"),
        ("act", "**Action:** go to desk 1", None, "go to desk 1"),
        ("act", "## Action:\n```text\ngo to desk 1\n```", None, "go to desk 1"),
        ("act", "Action: Go to desk 1.", None, "go to desk 1"),
        ("act", "Action: <go to desk 1>", None, "go to desk 1"),
        ("act", "Action: click[Buy Now]", None, "click[Buy Now]"),
        ("act", "Action: look\nObservation: a mug.\nAction: take mug 1", None, "look"),
        ("guide", "Guidance: my last action: open fridge 1 helped. Label: positive\nAction: look", None, "look"),
        ("guide", "**Guidance**: x\n**Label**: positive\n**Action**: look", None, "look"),
        ("guide", "Guidance: x\nLabel: neutral (nothing gained)\nAction: look", None, "look"),
        ("guide", "Guidance: x\nLabel: positive negative\nAction: look", "unknown_label", "look"),
        ("progress", "**Progress:** 40\n**Action:** look", None, "look"),
        ("act", "ACTION: GO TO DESK 1", None, "go to desk 1"),
        ("act", "action: go to desk 1", None, "go to desk 1"),
        ("act", "Action\uff1ago to desk 1", None, "go to desk 1"),
        ("act", "Action : go to desk 1", None, "go to desk 1"),
        ("act", "Action: `go to desk 1`.", None, "go to desk 1"),
        ("act", 'Action: "go to desk 1".', None, "go to desk 1"),
        ("act", "Action: \u201cgo to desk 1\u201d", None, "go to desk 1"),
        ("act", "Action: **go to desk 1**", None, "go to desk 1"),
        ("act", "Action: [go to desk 1]", None, "go to desk 1"),
        ("act", "Action: <command>go to desk 1</command>", None, "go to desk 1"),
        ("act", "Action: <command> go to desk 1", None, "go to desk 1"),
        ("act", "<action>go to desk 1</action>", None, "go to desk 1"),
        ("act", "Action: <action> go to desk 1 </action>", None, "go to desk 1"),
        ("act", "Action: - go to desk 1", None, "go to desk 1"),
        ("act", "Action: 1. go to desk 1", None, "go to desk 1"),
        ("act", "Action: 1) Go to desk 1\n2) take mug 1 from desk 1", None, "go to desk 1"),
        ("act", "1. Action: go to desk 1", None, "go to desk 1"),
        ("act", "- Action: go to desk 1", None, "go to desk 1"),
        ("act", "Action:\n\ngo to desk 1", None, "go to desk 1"),
        ("act", "Action: ```\ngo to desk 1\n```", None, "go to desk 1"),
        ("act", "Action: ```json\n{\"action\": \"go to desk 1\"}\n```", None, "go to desk 1"),
        ("act", 'Action: {"action": "go to desk 1"}', None, "go to desk 1"),
        ("act", '{"Action": "Go to desk 1."}', None, "go to desk 1"),
        ("act", "Action: {go to desk 1}", None, "go to desk 1"),
        ("act", "Action: <answer>Rome</answer>", None, "<answer>Rome</answer>"),
        ("act", "Action: [a] b [c]", None, "[a] b [c]"),
        ("act", "Action: go to desk 1 (to look for the mug)", None, "go to desk 1"),
        ("act", "Action: go   to\tdesk 1", None, "go to desk 1"),
        ("act", "Action: go to desk 1\n\nI hope this helps!", None, "go to desk 1"),
        ("act", "Sure! Here is what I do.\nAction: go to desk 1", None, "go to desk 1"),
        ("act", "Action: > go to desk 1", None, "go to desk 1"),
        ("act", "Action:", "missing_action", ""),
        ("act", "Action: ...", "missing_action", ""),
        ("act", "I would go to the desk.", "missing_action", "I would go to the desk"),
        ("act", "Action: [{{{{", None, "[{{{{"),
        ("guide", "1. Guidance: x\n2. Label: neutral\n3. Action: look", None, "look"),
        ("guide", "1) **Guidance:** x\n2) **Label:** neutral\n3) **Action:** look", None, "look"),
        ("guide", "- Guidance: x\n- Label: neutral\n- Action: look", None, "look"),
        ("guide", "GUIDANCE: X\nLABEL: NEUTRAL\nACTION: LOOK", None, "look"),
        ("guide", "Guidance\uff1ax\nLabel\uff1aneutral\nAction\uff1alook", None, "look"),
        ("guide", "Guidance: last Action: open it was useless Label: negative Action: look", None, "look"),
        ("guide", "Guidance: x\nLabel: <neutral>\nAction: <look>", None, "look"),
        ("guide", "Guidance: x\nLabel: **Negative**\nAction: look", None, "look"),
        ("guide", 'Guidance: x\nLabel: "negative".\nAction: look', None, "look"),
        ("guide", "Guidance: x\nLabel: positive - it was found\nAction: look", None, "look"),
        ("guide", "Guidance: x\nLabel: quite good\nAction: look", "unknown_label", "look"),
        ("guide", "<guidance>x</guidance><label>neutral</label><action>look</action>", None, "look"),
        ("guide", '{"guidance": "x", "label": "neutral", "action": "look"}', None, "look"),
        ("guide", 'Guidance: ```json\n{"guidance": "x", "label": "neutral", "action": "look"}\n```', None, "look"),
        ("guide", "Guidance: {x} Label: neutral Action: look", None, "look"),
        ("guide", "Label: neutral\nGuidance: x\nAction: look", None, "look"),
        ("guide", "Self-Guidance: x\nLabel: neutral\nAction: look", None, "look"),
        ("guide", "### Guidance:\nx\n### Label:\nneutral\n### Action:\nlook", None, "look"),
        ("progress", "Progress: about 40%\nAction: look", None, "look"),
        ("progress", "Progress: ~40\nAction: look", None, "look"),
        ("progress", "Progress: <40>\nAction: look", None, "look"),
        ("progress", "Progress: 40/100\nAction: look", None, "look"),
        ("progress", '{"progress": 40, "action": "look"}', None, "look"),
        ("progress", "Progress: -5\nAction: look", "bad_progress", "look"),
        ("progress", "Progress: unknown\nAction: look", "bad_progress", "look"),
        ("progress", "1. Progress: 40\n2. Action: look", None, "look"),
        # ReAct: a thought and an action, also numbered as in the paper, in JSON, in Markdown; more than one turn
        ("react", "Thought: The mug may be on a desk.\nAction: go to desk 1", None, "go to desk 1"),
        ("react", "Thought 2: The mug may be there.\nAction 2: go to desk 1\nObservation 2: .", None, "go to desk 1"),
        ("react", "Thought: My last action: open it was useless.\nAction: look", None, "look"),
        ("react", '{"think": "it may be there", "action": "go to desk 1"}', None, "go to desk 1"),
        ("react", "**Thought:** so\n**Action:** look\nThought: then\nAction: wait", None, "look"),
        ("react", "Thought:\nAction: look", "missing_thought", "look"),
        ("react", "Action: look", "missing_thought", "look"),
        ("react", "Thought: I look around", "missing_action", "thought: I look around"),
        ("react_sparse", "> go to desk 1", None, "go to desk 1"),
        ("react_sparse", "go to desk 1\n> look", None, "go to desk 1"),
        ("react_sparse", "> think: First a mug,\nthen a desk.", None, "think: First a mug,"),
        ("react_sparse", "> Think : first a mug", None, "think: first a mug"),
        ("react_sparse", "> think:", "missing_action", "think: "),
        ("react_sparse", "> Action: look", None, "look"),
        ("react_sparse", "> ", "missing_action", ""),
        ("repro", "Thought: nothing is done\nProgress: 0\nAction: look", None, "look"),
        ("repro", "Thought: half\nProgress: 50 %\nAction: look", None, "look"),
        ("repro", "Progress: 50\nAction: look", "missing_thought", "look"),
        ("repro", "Thought: half\nAction: look", "missing_progress", "look"),
        ("repro", "Thought: half\nProgress: 500\nAction: look", "bad_progress", "look"),
    ],
)
def test_failures_by_name(name, text, error, action):
    parsed = formats.parse(name, text)
    assert (parsed.error, parsed.action) == (error, action)


@given(st.text(max_size=200), st.integers(1, 8))
def test_reading_a_retrospection_is_total(text, steps):
    numbers, error = formats.parse_retrospect(text, steps)
    assert (numbers is None) == (error is not None)
    assert numbers is None or (len(numbers) == steps and all(0 <= x <= 100 for x in numbers))


def test_retrospection_by_hand():
    assert formats.parse_retrospect("Progress: 0 50 100", 3) == ([0.0, 50.0, 100.0], None)
    assert formats.parse_retrospect("Step 1: 0\nStep 2: 50\n**Step 3** - 100", 3) == ([0.0, 50.0, 100.0], None)
    assert formats.parse_retrospect("0 50", 3) == (None, "missing_progress")
    assert formats.parse_retrospect("0 50 400", 3) == (None, "bad_progress")


def test_true_progress_by_hand(trajectory):
    """d = 3, 2, 2 before the actions and 2 after the last: 100 (1 - 2/3) = 33.3 after each of the three."""
    assert formats.true_progress(trajectory) == pytest.approx([100 / 3] * 3)
    trajectory.turns[0].distance = None
    with pytest.raises(ValueError, match="without the truth"):
        formats.true_progress(trajectory)


def test_unknown_format():
    with pytest.raises(ValueError, match="'sing'.*act, progress, guide"):
        formats.parse("sing", "x")
