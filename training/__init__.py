"""Everything offline: the simulator, the learner, and the evidence that a policy wins."""
