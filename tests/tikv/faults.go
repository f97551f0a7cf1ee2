package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const help = `Fault switches of the TiKV test server. Each answers 200, or 400 and what is wrong.
/tso?stall=1|0   timestamps are withheld | given again
/ack?drop=N      the next N commits are applied, and their answers lost (0: none)
/delay?ms=N      every call takes N ms longer (0: none)
/busy?calls=N    the next N reads and writes are answered with ServerIsBusy (0: none)
/primary?refuse=N the next N prewrites that hold their transaction's primary are refused unseen (0: none)
/split?key=HEX   key becomes the first one of a region
`

// faults holds the switches that the control port sets and that calls obey.
type faults struct {
	stall   atomic.Bool
	lost    atomic.Int64 // commit answers still to lose
	busy    atomic.Int64 // calls still to refuse
	primary atomic.Int64 // prewrites of primaries still to refuse
	delayMs atomic.Int64
}

// take counts one down, if there is one left.
func take(n *atomic.Int64) bool {
	for {
		left := n.Load()
		if left <= 0 {
			return false
		}
		if n.CompareAndSwap(left, left-1) {
			return true
		}
	}
}

func (f *faults) stallTimestamps(ctx context.Context) error {
	for f.stall.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (f *faults) intercept(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if delay := f.delayMs.Load(); delay > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(delay) * time.Millisecond):
		}
	}
	if f.busy.Load() > 0 {
		if response := busyResponse(request); response != nil && take(&f.busy) {
			return response, nil
		}
	}
	if prewrite, ok := request.(*kvrpcpb.PrewriteRequest); ok && holdsPrimary(prewrite) && take(&f.primary) {
		return nil, status.Error(codes.Unavailable, "primary refused on purpose")
	}
	response, err := next(ctx, request)
	if _, commit := request.(*kvrpcpb.CommitRequest); commit && take(&f.lost) {
		return nil, status.Error(codes.Unavailable, "answer lost on purpose")
	}
	return response, err
}

func holdsPrimary(request *kvrpcpb.PrewriteRequest) bool {
	for _, mutation := range request.Mutations {
		if bytes.Equal(mutation.Key, request.PrimaryLock) {
			return true
		}
	}
	return false
}

// busyResponse is nil for calls that have no region error.
func busyResponse(request any) any {
	busy := &errorpb.Error{
		Message:      "busy on purpose",
		ServerIsBusy: &errorpb.ServerIsBusy{Reason: "busy on purpose"},
	}
	switch request.(type) {
	case *kvrpcpb.GetRequest:
		return &kvrpcpb.GetResponse{RegionError: busy}
	case *kvrpcpb.BatchGetRequest:
		return &kvrpcpb.BatchGetResponse{RegionError: busy}
	case *kvrpcpb.ScanRequest:
		return &kvrpcpb.ScanResponse{RegionError: busy}
	case *kvrpcpb.PrewriteRequest:
		return &kvrpcpb.PrewriteResponse{RegionError: busy}
	case *kvrpcpb.CommitRequest:
		return &kvrpcpb.CommitResponse{RegionError: busy}
	case *kvrpcpb.PessimisticLockRequest:
		return &kvrpcpb.PessimisticLockResponse{RegionError: busy}
	case *kvrpcpb.BatchRollbackRequest:
		return &kvrpcpb.BatchRollbackResponse{RegionError: busy}
	case *kvrpcpb.CheckTxnStatusRequest:
		return &kvrpcpb.CheckTxnStatusResponse{RegionError: busy}
	case *kvrpcpb.ResolveLockRequest:
		return &kvrpcpb.ResolveLockResponse{RegionError: busy}
	}
	return nil
}

// listen serves the switches on addr in the background.
func (f *faults) listen(addr string, s *store) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, help) })
	number := func(path, name string, most int64, set func(int64)) {
		on(mux, path, name, func(value string) error {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 || n > most {
				return fmt.Errorf("%q is not a whole number from 0 to %d", value, most)
			}
			set(n)
			return nil
		})
	}
	number("/tso", "stall", 1, func(n int64) { f.stall.Store(n == 1) })
	number("/ack", "drop", 1<<40, f.lost.Store)
	number("/delay", "ms", 3_600_000, f.delayMs.Store)
	number("/primary", "refuse", 1<<40, f.primary.Store)
	number("/busy", "calls", 1<<40, f.busy.Store)
	on(mux, "/split", "key", func(value string) error {
		key, err := hex.DecodeString(value)
		if err != nil || len(key) == 0 {
			return fmt.Errorf("%q is not the hexadecimal form of a key", value)
		}
		return s.split(key)
	})
	go func() { log.Fatal(http.Serve(listener, mux)) }()
	return nil
}

// on serves path with the one parameter name, which must be there once and alone.
func on(mux *http.ServeMux, path, name string, set func(string) error) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if len(query) != 1 || len(query[name]) != 1 {
			http.Error(w, fmt.Sprintf("%s takes exactly one parameter: %s", path, name), http.StatusBadRequest)
			return
		}
		if err := set(query.Get(name)); err != nil {
			http.Error(w, fmt.Sprintf("%s: %s: %v", path, name, err), http.StatusBadRequest)
			return
		}
		log.Printf("switched %s", r.URL)
	})
}
