"""Measuring: success with intervals, whether a reward is true, signs of reward hacking, counterfactuals, power."""
