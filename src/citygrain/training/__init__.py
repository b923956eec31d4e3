"""Training: the task, the optimisers, the callbacks and the run."""
