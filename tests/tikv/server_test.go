package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/tidb/pkg/util/codec"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The test binary is also the server that it starts, so that it can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("BATOS_TIKV_TEST_SERVE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

type server struct {
	t             *testing.T
	addr, control string
	data          string
	process       *exec.Cmd
	connection    *grpc.ClientConn
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func newServer(t *testing.T) *server {
	s := &server{t: t, addr: freeAddress(t), control: freeAddress(t), data: t.TempDir()}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.process = exec.Command(os.Args[0], "-addr", s.addr, "-control", s.control, "-data", s.data)
	s.process.Env = append(os.Environ(), "BATOS_TIKV_TEST_SERVE=1")
	log := &strings.Builder{}
	s.process.Stderr, s.process.Stdout = log, log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var probe net.Conn
		if probe, err = net.Dial("tcp", s.control); err == nil {
			probe.Close()
			break
		}
	}
	if err != nil {
		s.t.Fatalf("the server does not answer: %v\n%s", err, log)
	}
	if s.connection, err = grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) kill() {
	s.connection.Close()
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

func (s *server) get(path string) (int, string) {
	response, err := http.Get("http://" + s.control + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (s *server) kv() tikvpb.TikvClient { return tikvpb.NewTikvClient(s.connection) }

// at asks PD for the region of key, as clients do before each call.
func (s *server) at(key string) *kvrpcpb.Context {
	encoded := codec.EncodeBytes(nil, []byte(key))
	r, err := pdpb.NewPDClient(s.connection).GetRegion(context.Background(), &pdpb.GetRegionRequest{RegionKey: encoded})
	if err != nil || r.Region == nil {
		s.t.Fatalf("no region for %q: %v", key, err)
	}
	return &kvrpcpb.Context{RegionId: r.Region.Id, RegionEpoch: r.Region.RegionEpoch, Peer: &metapb.Peer{Id: r.Leader.Id, StoreId: r.Leader.StoreId}}
}

func (s *server) timestamp() uint64 {
	stream, err := pdpb.NewPDClient(s.connection).Tso(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = stream.CloseSend() }()
	if err := stream.Send(&pdpb.TsoRequest{Count: 1}); err != nil {
		s.t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	return uint64(r.Timestamp.Physical)<<18 + uint64(r.Timestamp.Logical)
}

func (s *server) prewrite(start uint64, primary, key, value string) {
	s.t.Helper()
	r, err := s.kv().KvPrewrite(context.Background(), &kvrpcpb.PrewriteRequest{
		Context: s.at(key), PrimaryLock: []byte(primary), StartVersion: start, LockTtl: 3000, TxnSize: 2,
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte(key), Value: []byte(value)}},
	})
	if err != nil || r.RegionError != nil || len(r.Errors) > 0 {
		s.t.Fatalf("prewrite of %q: %v %v", key, r, err)
	}
}

func (s *server) commit(start, commit uint64, key string) error {
	r, err := s.kv().KvCommit(context.Background(), &kvrpcpb.CommitRequest{
		Context: s.at(key), StartVersion: start, CommitVersion: commit, Keys: [][]byte{[]byte(key)},
	})
	if err != nil {
		return err
	}
	if r.RegionError != nil || r.Error != nil {
		return fmt.Errorf("%v %v", r.RegionError, r.Error)
	}
	return nil
}

// read returns the value, or the lock that hides it.
func (s *server) read(key string) (string, *kvrpcpb.LockInfo) {
	s.t.Helper()
	r, err := s.kv().KvGet(context.Background(), &kvrpcpb.GetRequest{Context: s.at(key), Key: []byte(key), Version: s.timestamp()})
	if err != nil || r.RegionError != nil {
		s.t.Fatalf("get of %q: %v %v", key, r, err)
	}
	return string(r.Value), r.Error.GetLocked()
}

func (s *server) status(start uint64, primary string) *kvrpcpb.CheckTxnStatusResponse {
	r, err := s.kv().KvCheckTxnStatus(context.Background(), &kvrpcpb.CheckTxnStatusRequest{
		Context: s.at(primary), PrimaryKey: []byte(primary), LockTs: start, CallerStartTs: s.timestamp(), CurrentTs: s.timestamp(),
	})
	if err != nil || r.RegionError != nil || r.Error != nil {
		s.t.Fatalf("status of %q: %v %v", primary, r, err)
	}
	return r
}

// Keys of two regions.
const primary, secondary = "a", "\xc0"

func TestKilledBetweenPrimaryAndSecondaryTheTransactionIsWhole(t *testing.T) {
	s := newServer(t)
	start := s.timestamp()
	s.prewrite(start, primary, primary, "one")
	s.prewrite(start, primary, secondary, "two")
	if err := s.commit(start, s.timestamp(), primary); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s.start()

	if value, lock := s.read(primary); value != "one" || lock != nil {
		t.Fatalf("primary: %q %v", value, lock)
	}
	_, lock := s.read(secondary)
	if lock == nil || lock.LockVersion != start || string(lock.PrimaryLock) != primary {
		t.Fatalf("the secondary's lock is gone: %v", lock)
	}
	status := s.status(start, primary)
	if status.CommitVersion == 0 {
		t.Fatalf("the primary is not known as committed: %v", status)
	}
	if err := s.commit(start, status.CommitVersion, secondary); err != nil {
		t.Fatal(err)
	}
	if value, lock := s.read(secondary); value != "two" || lock != nil {
		t.Fatalf("secondary: %q %v", value, lock)
	}
}

func TestKilledBeforeTheCommitTheLocksStay(t *testing.T) {
	s := newServer(t)
	start := s.timestamp()
	s.prewrite(start, primary, primary, "one")
	s.kill()
	s.start()
	if status := s.status(start, primary); status.LockTtl == 0 {
		t.Fatalf("the lock is gone: %v", status)
	}
	if err := s.commit(start, s.timestamp(), primary); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s.start()
	if value, lock := s.read(primary); value != "one" || lock != nil {
		t.Fatalf("%q %v", value, lock)
	}
}

func TestALockWhoseRemovalWasNotLoggedIsDropped(t *testing.T) {
	s := newServer(t)
	start := s.timestamp()
	s.prewrite(start, primary, primary, "one")
	log, err := os.ReadFile(s.data + "/locks")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.commit(start, s.timestamp(), primary); err != nil {
		t.Fatal(err)
	}
	s.kill()
	// As if the kill had come between the value and the log, in the middle of a record.
	if err := os.WriteFile(s.data+"/locks", append(log, 1, 2, 3), 0o640); err != nil {
		t.Fatal(err)
	}
	s.start()
	if value, lock := s.read(primary); value != "one" || lock != nil {
		t.Fatalf("%q %v", value, lock)
	}
}

func TestSwitches(t *testing.T) {
	s := newServer(t)
	for _, path := range []string{
		"/tso", "/tso?stall=2", "/ack?drop=-1", "/ack?drop=x", "/ack?drop=1&drop=2", "/delay?ms=", "/busy?n=1", "/split?key=", "/split?key=zz",
	} {
		if code, body := s.get(path); code != 400 || !strings.Contains(body, path[:strings.IndexAny(path+"?", "?")]) {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	switched := func(path string) {
		t.Helper()
		if code, body := s.get(path); code != 200 {
			t.Fatalf("%s: %d %s", path, code, body)
		}
	}

	switched("/ack?drop=1")
	start := s.timestamp()
	s.prewrite(start, primary, primary, "one")
	if err := s.commit(start, s.timestamp(), primary); err == nil {
		t.Error("the answer was not lost")
	}
	if value, _ := s.read(primary); value != "one" {
		t.Errorf("a lost answer undid the commit: %q", value)
	}

	switched("/busy?calls=1")
	request := &kvrpcpb.GetRequest{Context: s.at(primary), Key: []byte(primary), Version: s.timestamp()}
	for _, busy := range []bool{true, false} {
		r, err := s.kv().KvGet(context.Background(), request)
		if err != nil || (r.RegionError.GetServerIsBusy() != nil) != busy {
			t.Errorf("busy %v: %v %v", busy, r, err)
		}
	}

	before := s.at("q").RegionId
	switched("/split?key=71")
	if after := s.at("q").RegionId; after == before || s.at("p").RegionId != before {
		t.Error("the region was not split before q")
	}
	s.kill()
	s.start()
	if code, body := s.get("/split?key=71"); code != 400 || !strings.Contains(body, "already") {
		t.Errorf("the split was forgotten: %d %s", code, body)
	}

	switched("/tso?stall=1")
	done := make(chan uint64)
	go func() { done <- s.timestamp() }()
	select {
	case <-done:
		t.Error("a timestamp in spite of the stall")
	case <-time.After(100 * time.Millisecond):
	}
	switched("/tso?stall=0")
	<-done
}
