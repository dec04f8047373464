"""`maddpg-extender demo`: the real service over a simulated cluster, asked as kube-scheduler asks.

The only part of the service that reaches the simulator.
"""
