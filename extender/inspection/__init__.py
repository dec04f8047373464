"""What `maddpg-extender check-config` tries: the service's own files, its neighbours, and who is to call it."""
