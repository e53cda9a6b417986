// Load from a cluster client that is not ours (go-redis), unchanged and with its default settings, through faults.
//
//	load ADDRESS[,ADDRESS...] < pipe
//
// Each worker writes rising numbers to keys of its own and reads them back, until stdin ends; then every key is read
// once more. What happens is told on stdout, a JSON object a line:
//
//	{"event": "acknowledged", "key": "go-3", "count": 100}   so many writes of this key were acknowledged
//	{"event": "error", "text": "..."}                                a command failed after the client's own attempts
//	{"event": "lost", "text": "..."}                                 a read gave less than was acknowledged, or more than was tried
//	{"event": "end", "writes": n, "reads": n, "errors": n, "lost": n, "longest": seconds without an acknowledged write of a worker}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	workers     = 8
	tellEvery   = 10
	finalTries  = 20
	pause       = 5 * time.Millisecond
	commandTime = 10 * time.Second
)

type event struct {
	Event   string  `json:"event"`
	Key     string  `json:"key,omitempty"`
	Text    string  `json:"text,omitempty"`
	Count   int     `json:"count,omitempty"`
	Writes  int     `json:"writes"`
	Reads   int     `json:"reads"`
	Errors  int     `json:"errors"`
	Lost    int     `json:"lost"`
	Longest float64 `json:"longest"`
}

type teller struct {
	mutex sync.Mutex
	to    *json.Encoder
}

func (t *teller) tell(e event) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	_ = t.to.Encode(e)
}

// worker is the only writer of its key, so it knows between which numbers the key must be.
type worker struct {
	client       *redis.ClusterClient
	tell         func(event)
	key          string
	acknowledged int
	tried        int
	sums         event
}

func (w *worker) failed(what string, err error) {
	w.sums.Errors++
	w.tell(event{Event: "error", Key: w.key, Text: fmt.Sprintf("%s: %v", what, err)})
}

func (w *worker) write() {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	w.tried++
	if err := w.client.Set(ctx, w.key, w.tried, 0).Err(); err != nil {
		w.failed("SET", err)
		return
	}
	w.acknowledged = w.tried
	w.sums.Writes++
	if w.sums.Writes%tellEvery == 0 {
		w.tell(event{Event: "acknowledged", Key: w.key, Count: w.sums.Writes})
	}
}

// read compares what is there with what may be there; false: it could not be read.
func (w *worker) read() bool {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	text, err := w.client.Get(ctx, w.key).Result()
	if errors.Is(err, redis.Nil) {
		text, err = "0", nil
	}
	if err != nil {
		w.failed("GET", err)
		return false
	}
	w.sums.Reads++
	found, err := strconv.Atoi(text)
	if err != nil || found < w.acknowledged || found > w.tried {
		w.sums.Lost++
		w.tell(event{Event: "lost", Key: w.key, Text: fmt.Sprintf(
			"found %q, %d was acknowledged, %d tried", text, w.acknowledged, w.tried)})
	}
	return true
}

func (w *worker) run(stop <-chan struct{}) {
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		before := w.sums.Writes
		w.write()
		if w.sums.Writes > before {
			if gap := time.Since(last).Seconds(); gap > w.sums.Longest {
				w.sums.Longest = gap
			}
			last = time.Now()
		}
		w.read()
	}
}

func (w *worker) settle() {
	for try := 0; try < finalTries; try++ {
		if w.read() {
			return
		}
	}
	w.sums.Lost++
	w.tell(event{Event: "lost", Key: w.key, Text: "the key can't be read at the end"})
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: load ADDRESS[,ADDRESS...]")
		os.Exit(2)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(os.Args[1], ",")})
	defer client.Close()
	told := &teller{to: json.NewEncoder(os.Stdout)}

	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()

	var group sync.WaitGroup
	all := make([]*worker, workers)
	for i := range all {
		all[i] = &worker{client: client, tell: told.tell, key: fmt.Sprintf("go-%d", i)}
		group.Add(1)
		go func(w *worker) {
			defer group.Done()
			w.run(stop)
			w.settle()
		}(all[i])
	}
	group.Wait()

	sums := event{Event: "end"}
	for _, w := range all {
		sums.Writes += w.sums.Writes
		sums.Reads += w.sums.Reads
		sums.Errors += w.sums.Errors
		sums.Lost += w.sums.Lost
		if w.sums.Longest > sums.Longest {
			sums.Longest = w.sums.Longest
		}
	}
	told.tell(sums)
}
