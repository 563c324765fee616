"""Writes the samples of this folder that other libraries' own writers make: `python make.py`, in an environment with
`inspect-ai`, `verifiers` and `harbor` (what is not there is left out). See README.md for the others."""

import json
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SEEN = "<script>alert(1)</script> There is a key. " + "It is cold here. " * 12  # long: an attachment in Inspect's logs


def harbor() -> None:
    """Two documents by the models of Harbor: version 1.8, and one with a subagent's."""
    from harbor.models.trajectories import (
        Agent,
        ContentPart,
        Observation,
        ObservationResult,
        Step,
        SubagentTrajectoryRef,
        ToolCall,
        Trajectory,
    )

    agent = Agent(name="someone", version="2.0", model_name="a/model")
    call = ToolCall(tool_call_id="c1", function_name="look", arguments={"place": "the hall"})
    steps = [
        Step(step_id=1, source="system", message="Be short."),
        Step(step_id=2, source="user", message=[ContentPart(type="text", text="Find the key.")]),
        Step(step_id=3, source="agent", message="I look.", reasoning_content="It may be near.", tool_calls=[call],
             observation=Observation(results=[ObservationResult(source_call_id="c1", content=SEEN)])),
        Step(step_id=4, source="agent", message="I have it."),
    ]  # fmt: skip
    inner = Trajectory(session_id="s", trajectory_id="inner", agent=agent, steps=[
        Step(step_id=1, source="user", message="Help."), Step(step_id=2, source="agent", message="Done."),
    ])  # fmt: skip
    ref = SubagentTrajectoryRef(trajectory_id="inner")
    steps[2].observation.results.append(ObservationResult(content="asked", subagent_trajectory_ref=[ref]))
    outer = Trajectory(session_id="s", trajectory_id="outer", agent=agent, steps=steps, subagent_trajectories=[inner])
    (HERE / "atif.json").write_text(json.dumps(outer.to_json_dict(), indent=1) + "\n")


def inspect() -> None:
    """A log of two samples with a tool, played by Inspect with a model that says what it is told to."""
    import tiktoken

    class Words:  # Inspect counts tokens with a file that tiktoken would fetch
        def encode(self, text, **_):
            return [0] * len(text.split())

    tiktoken.get_encoding = tiktoken.encoding_for_model = lambda *_: Words()
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ContentReasoning, ContentText, ModelOutput, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate, system_message, use_tools
    from inspect_ai.tool import tool

    @tool
    def look():
        async def execute(place: str):
            """Look at a place.

            Args:
                place: where.
            """
            return SEEN

        return execute

    outputs = []
    for answer in ("the key", "nothing"):
        outputs.append(ModelOutput.for_tool_call("mockllm/model", "look", {"place": "the hall"}, content="I look."))
        last = ModelOutput.from_content("mockllm/model", answer)
        last.choices[0].message.content = [ContentReasoning(reasoning="It was seen."), ContentText(text=answer)]
        outputs.append(last)
    samples = [Sample(id=name, input="Find the key.", target="key") for name in "ab"]
    task = Task(samples, solver=[system_message("Be short."), use_tools(look()), generate()], scorer=includes())
    for kind, limit in (("eval", 2), ("json", 1)):
        with tempfile.TemporaryDirectory() as folder:
            model = get_model("mockllm/model", custom_outputs=list(outputs))
            eval(task, model=model, log_dir=folder, log_format=kind, display="none", max_samples=1, limit=limit)
            shutil.copyfile(next(Path(folder).glob(f"*.{kind}")), HERE / f"inspect.{kind}")


def verifiers() -> None:
    """An episode of one trace with two turns, and a branch from the first."""
    from verifiers.v1 import graph
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.episode import EnvInfo, Episode
    from verifiers.v1.task import TaskData
    from verifiers.v1.trace import AgentInfo, Reward, Trace, TraceTask
    from verifiers.v1.types import AssistantMessage, Response, SystemMessage, ToolCall, ToolMessage, UserMessage
    from verifiers.v1.utils.trace_store import write_episode

    task = TraceTask(type="Task", data=TaskData(id="key", prompt="Find the key."))
    trace = Trace(task=task, agent=AgentInfo(config=AgentConfig()), is_completed=True, ok=True)
    asked = [SystemMessage(content="Be short."), UserMessage(content="Find the key.")]
    call = ToolCall(id="c1", name="look", arguments='{"place": "the hall"}')
    acted = AssistantMessage(content="I look.", reasoning_content="It may be near.", tool_calls=[call])
    told = [*asked, acted, ToolMessage(tool_call_id="c1", content=SEEN)]
    for prompt, message in ((asked, acted), (told, AssistantMessage(content="I have it.")),
                            (asked, AssistantMessage(content="I give up."))):  # fmt: skip
        response = Response(id="r", created=0, model="m", message=message, finish_reason="stop")
        graph.prepare_turn(trace, prompt).commit(response)
    trace.nodes[2].advantages = [0.5, 0.25]
    trace.rewards = {"found": Reward(score=1.0, weight=0.5), "short": Reward(score=1.0, weight=0.25), "late": None}
    (HERE / "traces.jsonl").unlink(missing_ok=True)
    write_episode(HERE, Episode(env=EnvInfo(id="keys"), task=task, traces=[trace], ok=True))


for make in (harbor, inspect, verifiers):
    try:
        make()
    except ImportError as error:
        print(f"{make.__name__}: left out, {error}")
