// Load from a native gRPC client, for what a Python application can't show: etcd with its own client, and unary calls of
// KVCluster's KeyValue service.
//
//	native_client TARGET put|get|txn CALLERS SECONDS KEYS VALUE_BYTES ADDRESS...
//
// TARGET is etcd, etcd-each or kvcluster; callers share one connection to each address, or with etcd-each have one
// each, as clients of the Redis protocol have; they share the addresses in turn. One goroutine per caller, each of which waits for its
// answer before it asks again, as the Python load does. Prints one line of JSON.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	perTransaction = 100
	warmUp         = 300 * time.Millisecond
)

type request func(ctx context.Context, caller, count int) error

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	must(err)
	return n
}

func etcd(address, operation string, key func(caller, count int) string, value string) request {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second})
	must(err)
	switch operation {
	case "put":
		return func(ctx context.Context, caller, count int) error {
			_, err := client.Put(ctx, key(caller, count), value)
			return err
		}
	case "get":
		return func(ctx context.Context, caller, count int) error {
			found, err := client.Get(ctx, key(caller, count))
			if err == nil && len(found.Kvs) != 1 {
				return fmt.Errorf("no value at %s", key(caller, count))
			}
			return err
		}
	default:
		return func(ctx context.Context, caller, _ int) error {
			puts := make([]clientv3.Op, perTransaction)
			for i := range puts {
				puts[i] = clientv3.OpPut(key(caller, i), value)
			}
			_, err := client.Txn(ctx).Then(puts...).Commit()
			return err
		}
	}
}

// raw passes messages through as bytes: what is sent is encoded once and by hand, what comes is not looked into.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) { return message.([]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = data
	return nil
}

func (raw) Name() string { return "proto" }

func field(tag byte, text string) []byte {
	length := len(text)
	head := []byte{tag}
	for length >= 0x80 {
		head = append(head, byte(length)|0x80)
		length >>= 7
	}
	return append(append(head, byte(length)), text...)
}

func kvcluster(address, operation string, key func(caller, count int) string, value string) request {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	method, tail := "/kvcluster.v1.KeyValue/Get", []byte{}
	if operation == "put" {
		method, tail = "/kvcluster.v1.KeyValue/Put", field(0x12, value)
	}
	return func(ctx context.Context, caller, count int) error {
		var answer []byte
		message := append(field(0x0a, key(caller, count)), tail...)
		return connection.Invoke(ctx, method, message, &answer, grpc.ForceCodec(raw{}))
	}
}

// load runs the callers for a time and returns every latency in seconds, ascending, and how long it all took.
func load(requests []request, callers int, seconds float64) ([]float64, float64) {
	ctx := context.Background()
	began := time.Now().Add(warmUp)
	end := began.Add(time.Duration(seconds * float64(time.Second)))
	found := make([][]float64, callers)
	var group sync.WaitGroup
	for caller := range callers {
		do := requests[caller%len(requests)]
		group.Add(1)
		go func() {
			defer group.Done()
			for count := 0; ; count++ {
				asked := time.Now()
				if asked.After(end) {
					return
				}
				must(do(ctx, caller, count))
				if asked.After(began) {
					found[caller] = append(found[caller], time.Since(asked).Seconds())
				}
			}
		}()
	}
	group.Wait()
	took := time.Since(began).Seconds()
	var all []float64
	for _, some := range found {
		all = append(all, some...)
	}
	sort.Float64s(all)
	return all, took
}

func main() {
	if len(os.Args) < 8 {
		fmt.Fprintln(os.Stderr, "usage: native_client etcd|etcd-each|kvcluster put|get|txn CALLERS SECONDS KEYS VALUE_BYTES ADDRESS...")
		os.Exit(2)
	}
	operation, callers, keys := os.Args[2], number(os.Args[3]), number(os.Args[5])
	seconds, err := strconv.ParseFloat(os.Args[4], 64)
	must(err)
	value := make([]byte, number(os.Args[6]))
	_, err = rand.Read(value)
	must(err)
	key := func(caller, count int) string { return fmt.Sprintf("%06d/%09d", caller, count%keys) }
	target := map[string]func(string, string, func(int, int) string, string) request{
		"etcd": etcd, "etcd-each": etcd, "kvcluster": kvcluster,
	}[os.Args[1]]
	addresses := os.Args[7:]
	connections := len(addresses)
	if os.Args[1] == "etcd-each" {
		connections = max(callers, connections)
	}
	var requests []request
	for i := range connections {
		requests = append(requests, target(addresses[i%len(addresses)], operation, key, string(value)))
	}
	latencies, took := load(requests, callers, seconds)
	at := func(share float64) float64 {
		return latencies[min(len(latencies)-1, int(float64(len(latencies))*share))]
	}
	must(json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"per_second": float64(len(latencies)) / took, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999),
	}))
}
