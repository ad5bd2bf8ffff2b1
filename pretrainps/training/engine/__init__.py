"""The training engine: steps, logs, checkpoints, and exact resumption of a stopped run."""
