"""What an operator sees: metrics, probes, logs."""
