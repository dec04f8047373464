"""The HTTP service that kube-scheduler asks. Imports `policy`; never torch, and never the learner."""
