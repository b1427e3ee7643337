"""The replicas of a run in several processes."""
