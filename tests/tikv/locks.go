package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// Unistore keeps locks, and with them the values that a transaction has prewritten, in memory only. A server killed
// between the commit of a primary and of its secondaries would forget the secondaries: a torn transaction, which TiKV
// never shows. So every change of a lock is also appended to a log: a lock before it can be seen, its removal after
// the values it stood for are in the database. At the start the log is replayed.
//
// A record is crc32 of the rest, length of the key, length of the lock (0: removed), key, lock; integers are 32 bit,
// little endian. A torn record at the end belongs to a call that was never acknowledged, and is dropped.

const recordHeader = 12

// The log is written anew, with nothing but the live locks, when it has grown past this many bytes.
const rewriteAbove = 64 << 20

type lockLog struct {
	mvcc.DBWriter // writes values and the locks in memory
	path          string
	sync          bool

	mu   sync.Mutex
	file *os.File
	size int64
	live map[string][]byte
}

type lockChange struct{ key, lock []byte }

// openLockLog puts the locks of an earlier run into the bundle, and says how many they are.
func openLockLog(path string, bundle *mvcc.DBBundle, sync bool) (*lockLog, int, error) {
	live, err := readLockLog(path)
	if err != nil {
		return nil, 0, err
	}
	for key, lock := range live {
		stale, err := finished(bundle.DB, []byte(key), lock)
		if err != nil {
			return nil, 0, err
		}
		if stale {
			delete(live, key)
			continue
		}
		bundle.LockStore.Put([]byte(key), lock)
	}
	l := &lockLog{DBWriter: tikv.NewDBWriter(bundle), path: path, sync: sync, live: live}
	if err := l.rewrite(); err != nil {
		return nil, 0, err
	}
	return l, len(live), nil
}

func readLockLog(path string) (map[string][]byte, error) {
	live := map[string][]byte{}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return live, nil
	} else if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	for {
		change, err := readChange(reader)
		if err != nil {
			return nil, err
		} else if change == nil {
			return live, nil
		}
		if len(change.lock) == 0 {
			delete(live, string(change.key))
		} else {
			live[string(change.key)] = change.lock
		}
	}
}

// readChange returns nil at the end and at a torn record.
func readChange(reader io.Reader) (*lockChange, error) {
	var header [recordHeader]byte
	if _, err := io.ReadFull(reader, header[:]); err != nil {
		return nil, ifNotEnd(err)
	}
	keyLength, lockLength := binary.LittleEndian.Uint32(header[4:]), binary.LittleEndian.Uint32(header[8:])
	if uint64(keyLength)+uint64(lockLength) > 2*maxMessage {
		return nil, nil
	}
	rest := make([]byte, keyLength+lockLength)
	if _, err := io.ReadFull(reader, rest); err != nil {
		return nil, ifNotEnd(err)
	}
	sum := crc32.Update(crc32.ChecksumIEEE(header[4:]), crc32.IEEETable, rest)
	if sum != binary.LittleEndian.Uint32(header[:]) {
		return nil, nil
	}
	return &lockChange{key: rest[:keyLength], lock: rest[keyLength:]}, nil
}

func ifNotEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

func appendChange(buffer []byte, c lockChange) []byte {
	at := len(buffer)
	buffer = binary.LittleEndian.AppendUint32(buffer, 0)
	buffer = binary.LittleEndian.AppendUint32(buffer, uint32(len(c.key)))
	buffer = binary.LittleEndian.AppendUint32(buffer, uint32(len(c.lock)))
	buffer = append(append(buffer, c.key...), c.lock...)
	binary.LittleEndian.PutUint32(buffer[at:], crc32.ChecksumIEEE(buffer[at+4:]))
	return buffer
}

// finished says whether the database already holds the outcome of the lock's transaction for this key: the server was
// killed before the removal was logged. While a lock was there nothing newer could be written over it.
func finished(db *badger.DB, key, lock []byte) (bool, error) {
	startTS := mvcc.DecodeLock(lock).StartTS
	found := false
	err := db.View(func(txn *badger.Txn) error {
		for _, k := range [][]byte{key, mvcc.EncodeExtraTxnStatusKey(key, startTS)} {
			item, err := txn.Get(k)
			if errors.Is(err, badger.ErrKeyNotFound) {
				continue
			} else if err != nil {
				return err
			}
			if meta := item.UserMeta(); len(meta) == 16 && mvcc.DBUserMeta(meta).StartTS() == startTS {
				found = true
			}
		}
		return nil
	})
	return found, err
}

// rewrite must be called with the mutex held, or before the log is shared.
func (l *lockLog) rewrite() error {
	var buffer bytes.Buffer
	for key, lock := range l.live {
		buffer.Write(appendChange(nil, lockChange{[]byte(key), lock}))
	}
	next := l.path + ".new"
	if err := os.WriteFile(next, buffer.Bytes(), 0o640); err != nil {
		return err
	}
	if err := os.Rename(next, l.path); err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size = file, int64(buffer.Len())
	return nil
}

func (l *lockLog) append(changes []lockChange) error {
	if len(changes) == 0 {
		return nil
	}
	var buffer []byte
	for _, c := range changes {
		buffer = appendChange(buffer, c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		if len(c.lock) == 0 {
			delete(l.live, string(c.key))
		} else {
			l.live[string(c.key)] = c.lock
		}
	}
	if l.size > rewriteAbove {
		return l.rewrite()
	}
	n, err := l.file.Write(buffer)
	l.size += int64(n)
	if err == nil && l.sync {
		err = l.file.Sync()
	}
	return err
}

func (l *lockLog) Write(batch mvcc.WriteBatch) error {
	b := batch.(*loggedBatch)
	if err := l.append(b.taken); err != nil {
		return err
	}
	if err := l.DBWriter.Write(b.WriteBatch); err != nil {
		return err
	}
	return l.append(b.removed)
}

func (l *lockLog) NewWriteBatch(startTS, commitTS uint64, ctx *kvrpcpb.Context) mvcc.WriteBatch {
	return &loggedBatch{WriteBatch: l.DBWriter.NewWriteBatch(startTS, commitTS, ctx)}
}

// loggedBatch notes the changes of locks as they go into the batch beneath it. Latches keep two batches from holding
// the same key at once, so that the log's order is that of memory.
type loggedBatch struct {
	mvcc.WriteBatch
	taken, removed []lockChange
}

func (b *loggedBatch) take(key []byte, lock *mvcc.Lock) {
	b.taken = append(b.taken, lockChange{key, lock.MarshalBinary()})
}

func (b *loggedBatch) remove(key []byte) { b.removed = append(b.removed, lockChange{key: key}) }

func (b *loggedBatch) Prewrite(key []byte, lock *mvcc.Lock) {
	b.WriteBatch.Prewrite(key, lock)
	b.take(key, lock)
}

func (b *loggedBatch) PessimisticLock(key []byte, lock *mvcc.Lock) {
	b.WriteBatch.PessimisticLock(key, lock)
	b.take(key, lock)
}

func (b *loggedBatch) Commit(key []byte, lock *mvcc.Lock) {
	b.WriteBatch.Commit(key, lock)
	b.remove(key)
}

func (b *loggedBatch) Rollback(key []byte, removeLock bool) {
	b.WriteBatch.Rollback(key, removeLock)
	if removeLock {
		b.remove(key)
	}
}

func (b *loggedBatch) PessimisticRollback(key []byte) {
	b.WriteBatch.PessimisticRollback(key)
	b.remove(key)
}
