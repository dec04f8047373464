//go:build tools

// Package tools pins what the chart tests build from this module.
package tools

import _ "github.com/yannh/kubeconform/cmd/kubeconform"
