// A PD and a TiKV on one port, for tests: the storage engine of TiDB's own tests (unistore: percolator transactions on
// badger) behind the gRPC services that clients speak. One store, no raft: leader changes are not covered.
//
// It may be killed at any moment and started again on the same -data: committed values, locks and regions are kept
// (locks.go says how). What was written reaches the kernel before it is acknowledged, not the disk, unless -sync.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/lockstore"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
	"github.com/pingcap/tidb/pkg/util/codec"
	"github.com/tikv/client-go/v2/oracle"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	clusterID = 1
	storeID   = 1
	// Above TiKV's own limit of 8 MiB a raft entry, so that too large is what the client says it is.
	maxMessage = 16 << 20
)

func main() {
	addr := flag.String("addr", "127.0.0.1:2379", "`HOST:PORT` to listen on")
	advertise := flag.String("advertise", "", "`HOST:PORT` that clients are told to connect to (default -addr)")
	control := flag.String("control", "", "`HOST:PORT` of the fault switches, see / there (default none)")
	data := flag.String("data", "", "`directory` of the data (default a temporary one)")
	regions := flag.Int("regions", 4, "`number` of regions to begin with, split evenly by the first byte of a key after -prefix (1-256)")
	prefix := flag.String("prefix", "", "`bytes` that all keys begin with which regions are made for")
	sync := flag.Bool("sync", false, "sync every write to the disk")
	flag.Parse()
	if *advertise == "" {
		*advertise = *addr
	}
	if err := run(*addr, *advertise, *control, *data, *prefix, *regions, *sync); err != nil {
		log.Fatal(err)
	}
}

func run(addr, advertise, control, data, prefix string, regions int, sync bool) error {
	if regions < 1 || regions > 256 {
		return fmt.Errorf("-regions %d: not in 1-256", regions)
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if data == "" {
		dir, err := os.MkdirTemp("", "tikv-test-server-")
		if err != nil {
			return err
		}
		log.Println("data in", dir)
		data = dir
	}
	// Listening comes first: a second server on the same port must not touch the data.
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s, err := open(data, advertise, sync)
	if err != nil {
		return fmt.Errorf("%s: %w", data, err)
	}
	if err := s.bootstrap(advertise, prefix, regions); err != nil {
		return fmt.Errorf("%s: %w", data, err)
	}

	f := &faults{}
	g := grpc.NewServer(
		grpc.UnaryInterceptor(f.intercept),
		grpc.MaxRecvMsgSize(maxMessage),
		// TiKV's clients ping more often than gRPC's default policy of once in five minutes allows.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	tikvpb.RegisterTikvServer(g, s.tikv)
	pdpb.RegisterPDServer(g, &placement{mock: s.pd, addr: advertise, faults: f})
	if control != "" {
		if err := f.listen(control, s); err != nil {
			return err
		}
	}
	log.Printf("serving on %s as %s, %d locks left by an earlier run", addr, advertise, s.locksFound)
	return g.Serve(listener)
}

// store is what one server keeps.
type store struct {
	tikv       *tikv.Server
	regions    *tikv.MockRegionManager
	pd         *tikv.MockPD
	locksFound int
}

// open puts the parts together as unistore's server.NewMock does, except that locks survive.
func open(data, advertise string, sync bool) (*store, error) {
	dir := filepath.Join(data, "kv")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	conf := config.DefaultConf
	conf.Server.Raft = false
	conf.Server.StoreAddr, conf.Server.PDAddr = advertise, advertise
	conf.Engine.DBPath = data

	safePoint := &tikv.SafePoint{}
	options := badger.DefaultOptions
	options.Dir, options.ValueDir = dir, dir
	options.ManagedTxns = true // versions are the timestamps of transactions
	options.ValueThreshold = 0 // values stay in the tree
	options.ValueLogFileSize = 64 << 20
	options.ValueLogMaxNumFiles = 3
	options.MaxMemTableSize = 16 << 20
	options.NumCompactors = 1
	options.SyncWrites = sync
	options.CompactionFilterFactory = safePoint.CreateCompactionFilter
	db, err := badger.Open(options)
	if err != nil {
		return nil, err
	}

	bundle := &mvcc.DBBundle{DB: db, LockStore: lockstore.NewMemStore(8 << 20), StateTS: oracle.ComposeTS(tikv.GetTS())}
	regions, err := tikv.NewMockRegionManager(bundle, clusterID, tikv.RegionOptions{
		StoreAddr: advertise, PDAddr: advertise, RegionSize: conf.Server.RegionSize,
	})
	if err != nil {
		return nil, err
	}
	writer, found, err := openLockLog(filepath.Join(data, "locks"), bundle, sync)
	if err != nil {
		return nil, err
	}
	pd := tikv.NewMockPD(regions)
	inner := tikv.NewStandAlongInnerServer(bundle)
	kv := tikv.NewMVCCStore(&conf, bundle, data, safePoint, writer, pd)
	kv.DeadlockDetectSvr.ChangeRole(tikv.Leader)
	kv.StartDeadlockDetection(false)
	return &store{tikv: tikv.NewServer(regions, kv, inner), regions: regions, pd: pd, locksFound: found}, nil
}

// bootstrap makes the first regions where there are none.
func (s *store) bootstrap(advertise, prefix string, count int) error {
	done, err := s.regions.IsBootstrapped()
	if err != nil || done {
		return err
	}
	err = s.regions.Bootstrap(
		[]*metapb.Store{{Id: storeID, Address: advertise}},
		&metapb.Region{Id: 2, RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 1}, Peers: []*metapb.Peer{{Id: 3, StoreId: storeID}}},
	)
	if err != nil {
		return err
	}
	for i := 1; i < count; i++ {
		if err := s.split(append([]byte(prefix), byte(i*256/count))); err != nil {
			return err
		}
	}
	return nil
}

// split makes key the first of a region. Region boundaries are memcomparable, as TiKV keeps them.
func (s *store) split(key []byte) error {
	encoded := codec.EncodeBytes(nil, key)
	region, _, _, _ := s.regions.GetRegionByKey(encoded)
	if region == nil {
		return fmt.Errorf("no region holds %x", key)
	}
	if string(region.StartKey) == string(encoded) {
		return fmt.Errorf("a region begins at %x already", key)
	}
	s.regions.SplitRaw(region.Id, s.regions.AllocID(), encoded, []uint64{s.regions.AllocID()}, 0)
	return nil
}
