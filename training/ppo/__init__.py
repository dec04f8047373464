"""MAPPO and IPPO by BenchMARL on the same clusters, for comparison; they need requirements/ppo.txt."""
