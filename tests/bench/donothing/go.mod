module example.com/maddpg-scheduler/tests/bench/donothing

go 1.26.0
