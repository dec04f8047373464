"""The wire between kube-scheduler and the service: extender/v1 of k8s.io/kube-scheduler."""
