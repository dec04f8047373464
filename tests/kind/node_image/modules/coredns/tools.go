//go:build tools

// Package tools pins what the kind tests build from this module.
package tools

import _ "github.com/coredns/coredns"
