"""Exercises in a notebook: checks that say what is still missing and let Restart & Run All go on."""

solved: dict[str, bool] = {}  # what this kernel has tried, in order


class exercise:
    """The checks of one exercise, as a block: a failed one is printed, not raised.

    with sglib.exercise("04.1"):
        assert clipped(1.3) == 1.2, "1.3 lies above 1 + ε"

    An `AssertionError` is "not yet" with its message, `NotImplementedError` (the stub) is "to do", any other exception
    is named with its text. `sglib.view.exercises.solved` has every exercise that was tried: name -> solved or not.
    """

    def __init__(self, name: str):
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if kind and not issubclass(kind, Exception):
            return False  # an interrupt is the reader's own wish
        solved[self.name] = kind is None
        if kind is None:
            text = "solved"
        elif kind is NotImplementedError:
            text = "to do"
        elif kind is AssertionError:
            text = f"not yet. {error or 'A check failed.'}"
        else:
            text = f"not yet: your code raised {kind.__name__}: {error}"
        print(f"Exercise {self.name}: {text}")
        return True
