"""Advantages: formulas as pure functions, and estimators that apply them to trajectories."""

from sglib.advantages.formulas import additive, discounted, gigpo, group_relative, to_tokens, turn_level

__all__ = ["additive", "discounted", "gigpo", "group_relative", "to_tokens", "turn_level"]
