//go:build tools

// Package tools pins what the control-plane tests build from this module.
package tools

import _ "go.etcd.io/etcd/server/v3"
