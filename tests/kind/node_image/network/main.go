// Command node-network connects a kind node's pods to the others': flannel's host-gw backend and its nftables rules,
// without the cloud backends that flanneld carries, and a configuration for the bridge plug-in when both are there.
// It enforces no NetworkPolicy.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
)

const (
	annotations = "flannel.alpha.coreos.com"
	resyncS     = 60
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: node-network NETWORK.json CNI.conflist; NODE_NAME and CONTROL_PLANE_ENDPOINT in the environment")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "node-network:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, network, configuration string) error {
	// kube-proxy may not have made the API server's Service reachable yet
	host, port, err := net.SplitHostPort(os.Getenv("CONTROL_PLANE_ENDPOINT"))
	if err != nil {
		return fmt.Errorf("CONTROL_PLANE_ENDPOINT: %w", err)
	}
	os.Setenv("KUBERNETES_SERVICE_HOST", host)
	os.Setenv("KUBERNETES_SERVICE_PORT", port)
	subnets, err := kube.NewSubnetManager(ctx, "", "", annotations, network, false)
	if err != nil {
		return err
	}
	config, err := subnets.GetNetworkConfig(ctx)
	if err != nil {
		return err
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	outside, err := ipmatch.LookupExtIface("", "", "", stack, ipmatch.PublicIPOpts{})
	if err != nil {
		return err
	}
	routing, err := backend.NewManager(ctx, subnets, outside).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var going sync.WaitGroup
	pods, err := routing.RegisterNetwork(ctx, &going, config)
	if err != nil {
		return err
	}
	rules := &nftables.NFTablesManager{}
	if err := rules.Init(ctx); err != nil {
		return err
	}
	var none ip.IP4Net
	var none6 ip.IP6Net
	if err := rules.SetupAndEnsureMasqRules(ctx, config.Network, none, none, none6, none6, none6, pods.Lease(), resyncS, false); err != nil {
		return err
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, none6, resyncS)
	if err := writePlugin(configuration, pods.Lease(), pods.MTU()); err != nil {
		return err
	}
	fmt.Println("pods of this node:", pods.Lease().Subnet.String())
	going.Add(1)
	go func() {
		defer going.Done()
		pods.Run(ctx)
	}()
	err = subnets.CompleteLease(ctx, pods.Lease(), &going)
	going.Wait()
	return err
}

// writePlugin writes the container runtime's configuration whole: it is read as soon as it is there.
func writePlugin(path string, own *lease.Lease, mtu int) error {
	addresses := map[string]any{
		"type":   "host-local",
		"ranges": [][]map[string]string{{{"subnet": own.Subnet.Network().String()}}},
		"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
	}
	bridge := map[string]any{
		"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": mtu, "ipam": addresses,
	}
	text, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "pods", "plugins": []any{bridge},
	})
	if err != nil {
		return err
	}
	unfinished := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(unfinished, text, 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}
