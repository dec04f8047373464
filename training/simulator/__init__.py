"""Many simulated clusters at once, on numpy arrays: what a policy is trained and judged in. Never needs torch."""
