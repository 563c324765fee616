"""ALFWorld's words: what a language model reads first, and what the small model's tokenizer has as one token."""

from __future__ import annotations

BANNER = "-= Welcome to TextWorld, ALFRED! =-"
COMMANDS = (
    "look | inventory | go to (receptacle) | open (receptacle) | close (receptacle) | take (object) from (receptacle)"
    " | move (object) to (receptacle) | examine (something) | use (object) | heat (object) with (receptacle) | "
    "clean (object) with (receptacle) | cool (object) with (receptacle) | slice (object) with (object)"
)
RULES = f"You act in a household. Commands: {COMMANDS}."

# Fixed phrases of the engine (alfred.twl2), each one token; the longest match wins.
PHRASES = (
    "You are in the middle of a room. Looking quickly around you, you see a", "Your task is to:", "You arrive at",
    "You open the", "You close the", "You pick up the", "You move the", "You clean the", "You heat the",
    "You cool the", "You turn on the", "You sliced the", "You are carrying: a", "You are not carrying anything.",
    "You are facing the", "Next to it, you see", "Nothing happens.", "is closed.", "is open. In it, you see",
    "On the", ", you see a", ", you see nothing.", "you see", "There's nothing special about", "This is a normal",
    "In it, you see", "This is a", ", and a", ", a", "from the", "to the", "using the", "with the", "go to",
    "put it in", "put them in", "under the",
)  # fmt: skip
# The order is that of the shipped models' vocabulary.
WORDS = (
    ". , : a an the and in on of is it with from to some two put find look at examine clean heat cool hot cold cool "
    "sliced slice open close take move use inventory help nothing act progress guide retrospect negative neutral "
    "positive success failure then search You The you see them under"
)
NUMBERS = tuple(str(n) for n in [*range(0, 41), 50, 60, 70, 80, 90, 100])


def words() -> list[str]:
    """Words, numbers, and the names of all kinds of things and receptacles."""
    from alfworld.gen import constants

    things = set(constants.OBJECTS) | constants.RECEPTACLES | set(constants.VAL_RECEPTACLE_OBJECTS)
    return [*WORDS.split(), *NUMBERS, *sorted({name.lower() for name in things})]
