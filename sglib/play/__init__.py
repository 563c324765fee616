"""Episodes: the rollout, answers outside of episodes, re-reading recorded ones."""
