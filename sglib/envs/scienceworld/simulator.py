"""The simulator: one Java process for this Python process, and in it any number of worlds.

Java is started when a world is first asked for, and again where it has died. A forked child starts its own: it closes
its copies of its parent's connections, since a word on them would mix up what the parent reads. The process ends with
the interpreter, however that ends: its standard input is a pipe of ours, and it leaves when that is closed.

The simulator draws from one generator and numbers its objects by one counter, which all worlds of a process would
share. So that an episode is the same alone and among others, each world has its own of both, put in place when it is
its turn. Object hashes are constant (`-XX:hashCode=2`), or the order of its sets, and with it replays, would differ.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from sglib.envs.scienceworld.variations import Variation

# a world takes some 12 MiB, and the 256 of a usual rollout are there at once; memory is taken as it is needed
FLAGS = ("-Xmx4g", "-XX:+UseSerialGC", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
FAILED = "The simulator failed at that action."
NO_PACKAGE = "scienceworld: the simulator is not installed; run: pip install 'sglib[scienceworld]'"
NO_JAVA = (
    "scienceworld: no Java that runs was found in JAVA_HOME or on the PATH; install version 8 or later, for example "
    "with `apt-get install default-jre-headless` or `conda install openjdk`"
)
TIDY = 64  # worlds; after so many new ones those that nobody can reach any more are looked for
T = TypeVar("T")


class Died(Exception):
    """The Java process is gone, and the worlds in it."""


class Reply(NamedTuple):
    """What the simulator answers to an action: its text, the score in points (-100..100), whether the task is over."""

    text: str
    points: int
    over: bool


class Simulator:
    """A running Java process. Raises `RuntimeError` where the package or Java is missing."""

    def __init__(self):
        try:
            from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
            from scienceworld.constants import BASEPATH, JAR_PATH
        except ImportError as error:
            raise RuntimeError(NO_PACKAGE) from error
        home = os.environ.get("JAVA_HOME")
        java = (home and shutil.which("java", path=os.path.join(home, "bin"))) or shutil.which("java")
        if java is None:
            raise RuntimeError(NO_JAVA)
        try:
            port, token, self.process = launch_gateway(
                classpath=JAR_PATH, javaopts=list(FLAGS), die_on_exit=True, java_path=java, enable_auth=True,
                create_new_process_group=True, return_proc=True,  # a group of its own: Ctrl-C is not for Java
                cwd=BASEPATH,  # it writes a list of its object types where it runs: as in the package, there
            )  # fmt: skip
        except (ValueError, OSError) as error:  # it printed no port
            raise RuntimeError(f"{NO_JAVA}; {java} {' '.join(FLAGS)} did not start") from error
        self.gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token))
        self.jvm, self.entered, self.gold = self.gateway.jvm, None, None
        lang, io = self.jvm.java.lang, self.jvm.java.io
        lang.System.setOut(io.PrintStream(io.FileOutputStream(os.devnull)))  # it prints several lines a step
        self.worlds = 0  # that were made
        self.ids = lang.Class.forName("util.UniqueIdentifier$").getField("MODULE$").get(None)
        self.generator = lang.Class.forName("scala.util.Random$").getField("MODULE$").get(None)
        self.drawn_from = lang.Class.forName("scala.util.Random").getDeclaredField("self")
        self.drawn_from.setAccessible(True)

    @property
    def alive(self) -> bool:
        return self is _running and self.process.poll() is None

    def close(self) -> None:
        """End the process; there is nothing in it to save."""
        self._hang_up()
        self.process.kill()
        self.process.wait()

    def _hang_up(self) -> None:
        """Close our ends. Not through the gateway: it shuts connections down, in a child its parent's, too."""
        client = self.gateway._gateway_client
        client.is_connected = False  # objects that are collected later are not announced
        for connection in client.deque:
            with contextlib.suppress(OSError):
                os.close(connection.socket.detach())
        client.deque.clear()
        self.process.stdin.close()


_running: Simulator | None = None
_lock = threading.RLock()  # worlds take turns


def running() -> Simulator:
    """This process's simulator; started where there is none, or none that lives."""
    global _running
    with _lock:
        if _running is None or not _running.alive:
            stop()
            _running = Simulator()
        return _running


@atexit.register
def stop() -> None:
    """End the simulator, if one runs; it is started again when it is needed."""
    global _running
    with _lock:
        gone, _running = _running, None
        if gone is not None:
            gone.close()


def _in_child() -> None:
    global _running, _lock
    _lock = threading.RLock()  # another thread may have held it
    if _running is not None:
        _running._hang_up()
        _running = None


os.register_at_fork(after_in_child=_in_child)


def again(work: Callable[[], T]) -> T:
    """`work()`, once more if Java died in it; `RuntimeError` where it dies again."""
    with contextlib.suppress(Died):
        return work()
    try:
        return work()
    except Died as error:
        raise RuntimeError("scienceworld: the Java process died twice in a row; is there memory for it?") from error


class World:
    """A world of the simulator. Its methods raise `Died` when the process is gone."""

    def __init__(self):
        self.simulator, self.count = running(), 0
        self.simulator.worlds += 1
        if self.simulator.worlds % TIDY == 0:
            gc.collect()  # rollouts leave theirs in circles, and Python does not see what they hold in Java's memory
        with self._turn(enter=False):
            jvm = self.simulator.jvm
            self.interface, self.random = jvm.scienceworld.runtime.pythonapi.PythonInterface(), jvm.java.util.Random(0)

    @property
    def alive(self) -> bool:
        return self.simulator.alive

    @contextlib.contextmanager
    def _turn(self, enter: bool = True) -> Iterator[Any]:
        """Speak with the simulator in this world's name."""
        from py4j.protocol import Py4JError, Py4JJavaError

        with _lock:
            if not self.alive:
                raise Died
            try:
                if enter:
                    self._enter()
                yield
            except Py4JJavaError as error:  # what the simulator threw
                if "OutOfMemoryError" not in str(error):
                    raise
                stop()
                raise RuntimeError("scienceworld: Java's memory is full; allowed: fewer episodes at once") from error
            except (Py4JError, OSError) as error:
                stop()  # a process that does not answer is as good as dead
                raise Died from error
            except BaseException:  # Ctrl-C: it may have acted, or act still
                stop()
                raise

    def _enter(self) -> None:
        simulator = self.simulator
        if simulator.entered is not self:
            if simulator.entered is not None:
                simulator.entered.count = simulator.ids.count()
            simulator.drawn_from.set(simulator.generator, self.random)
            getattr(simulator.ids, "count_$eq")(self.count)
            simulator.entered = self

    def load(self, task: Variation, gold: bool = False) -> str:
        """Begin a task; returns its description. `gold` makes the solution, too, which takes 1 to 10 times as long."""
        with self._turn():
            self.interface.load(task.name, task.number, task.simplifications, gold)
            return self.interface.getTaskDescription()

    def step(self, action: str) -> Reply:
        """Act. Where the simulator throws, that is told in `Reply.text`, and the world is as it left it."""
        from py4j.protocol import Py4JJavaError

        try:
            with self._turn():
                text = self.interface.step(action)
        except Py4JJavaError:
            text = FAILED
        with self._turn():
            return Reply(text, round(100 * self.interface.getScore()), self.interface.getCompleted())

    def look(self) -> str:
        """What `look around` would say; takes no time."""
        with self._turn():
            return self.interface.freeActionLook()

    def commands(self) -> list[str]:
        """The forms of actions, as "open OBJ"."""
        with self._turn():
            return self.simulator.jvm.java.lang.String.join("\n", self.interface.getPossibleActions()).split("\n")

    def objects(self) -> list[str]:
        """What an OBJ can be now, in the shortest words."""
        with self._turn():
            return self.simulator.jvm.java.lang.String.join("\n", self.interface.getPossibleObjects()).split("\n")

    def subgoal(self) -> str:
        """The first of the task's sub-goals, in order, that is not reached; "" where all are."""
        with self._turn():
            told = self.interface.getGoalProgressStr().partition("Unordered and Optional")[0]
        found = re.search(r"^\d+\tfalse\t *\w+\t(.*)$", told, re.M)
        return found[1].strip() if found else ""


class Gold(NamedTuple):
    """A step of the simulator's own solution, the room where it is taken, and what is answered to it."""

    action: str
    room: str
    reply: str


def room_of(look: str) -> str:
    """The room that a look around describes, "" where it describes none."""
    found = re.search(r"^This [a-z ]+ is called the ([^.\n]+)\.", look, re.M)
    return found[1] if found else ""


@functools.lru_cache(maxsize=1024)
def gold(task: Variation) -> tuple[Gold, ...]:
    """The simulator's solution, up to where the task is won, in a world of its own: once made, every later start in
    that world would make one. Takes 0.1 to several seconds; not always the shortest.

    Raises:
        RuntimeError: it does not win.
    """
    return again(lambda: _gold(task))


def _gold(task: Variation) -> tuple[Gold, ...]:
    simulator = running()
    world = simulator.gold = simulator.gold or World()
    world.load(task, gold=True)
    with world._turn():
        actions = list(world.interface.getGoldActionSequence())
    world.step("look around")
    steps = []
    for action in actions:
        room = room_of(world.look())
        reply = world.step(action)
        steps.append(Gold(action, room, reply.text))
        if reply.points == 100:
            return tuple(steps)
    raise RuntimeError(f"scienceworld: {task.id}: the simulator's own solution does not win")
