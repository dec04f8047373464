// Donothing is the limit that benchmarks compare us with: an extender that decodes a request as any Go extender
// must, keeps every node, and scores them all 0. It knows no cluster and decides nothing.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// metadata is what a real extender would read of a pod or a node; the rest is skipped, not decoded.
type metadata struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	} `json:"metadata"`
}

// extenderArgs is the ExtenderArgs of k8s.io/kube-scheduler/extender/v1, whose keys carry no JSON tags.
type extenderArgs struct {
	Pod       metadata
	Nodes     json.RawMessage
	NodeNames *[]string
}

type filterResult struct {
	Nodes       json.RawMessage
	NodeNames   *[]string
	FailedNodes map[string]string
	Error       string
}

type hostPriority struct {
	Host  string
	Score int64
}

// names are the nodes asked about, in either mode of nodeCacheCapable.
func (args *extenderArgs) names() ([]string, error) {
	if args.NodeNames != nil {
		return *args.NodeNames, nil
	}
	var list struct{ Items []metadata }
	if len(args.Nodes) > 0 {
		if err := json.Unmarshal(args.Nodes, &list); err != nil {
			return nil, fmt.Errorf("Nodes: %w", err)
		}
	}
	names := make([]string, len(list.Items))
	for i, node := range list.Items {
		names[i] = node.Metadata.Name
	}
	return names, nil
}

func filter(args *extenderArgs) (any, error) {
	return filterResult{Nodes: args.Nodes, NodeNames: args.NodeNames, FailedNodes: map[string]string{}}, nil
}

func prioritize(args *extenderArgs) (any, error) {
	names, err := args.names()
	if err != nil {
		return nil, err
	}
	scores := make([]hostPriority, len(names))
	for i, name := range names {
		scores[i].Host = name
	}
	return scores, nil
}

// serve answers one verb. The answer is sent with its length: kube-scheduler opens a connection per call otherwise.
func serve(verb func(*extenderArgs) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var args extenderArgs
		if err := json.Unmarshal(body, &args); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		result, err := verb(&args)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := json.Marshal(result)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		if _, err := w.Write(answer); err != nil {
			log.Printf("answer not sent: %v", err)
		}
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port to listen on; port 0 takes a free one")
	flag.Parse()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /filter", serve(filter))
	mux.HandleFunc("POST /prioritize", serve(prioritize))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		if err := server.Close(); err != nil {
			log.Printf("close: %v", err)
		}
	}()

	// one line on stdout, once connections are accepted: whoever started us waits for it and reads the port
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
