//go:build tools

// Package tools pins what the control-plane tests build from this module.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
