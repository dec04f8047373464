//go:build tools

// Package tools pins what the control-plane tests build from this module.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
)
