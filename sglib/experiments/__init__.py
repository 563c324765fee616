"""Experiments: parameters, recipes, trainings side by side, the evidence over seeds, verdicts, run folders."""
