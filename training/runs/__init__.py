"""Training runs as orders: one seed, several seeds, on this machine or on Ray."""
