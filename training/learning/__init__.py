"""How a policy is learned: networks, critics, replay, exploration, algorithms and the loop. The only users of torch."""
