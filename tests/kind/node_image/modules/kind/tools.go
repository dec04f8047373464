//go:build tools

// Package tools pins what the kind tests build from this module.
package tools

import _ "sigs.k8s.io/kind"
