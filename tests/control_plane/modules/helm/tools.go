//go:build tools

// Package tools pins what the chart tests build from this module.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
