module example.com/maddpg-scheduler/tests/kind/pause

go 1.26.0
