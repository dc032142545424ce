"""How a network is trained: optimizers, schedules, one step, the loop, checkpoints."""
