package pipeline

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The attempt journal makes a killed process's attempts known to the next one. Before the first byte of an attempt it
// gets a begin record, after the answer an end record with the outcome; both are plain write(2) calls without fsync,
// which survive the process but not the machine. After a kill, then:
//
//   - a claim without begin has not been tried: back to the queue;
//   - a begin with an end has been answered: the outcome is settled as if nothing had happened;
//   - a begin without an end is in doubt: ambiguous, and only these are.
//
// A reboot may have eaten records, so a journal of another boot is read as "everything claimed may have been tried".
// The journal is a row of segment files; a segment goes when all its attempts are settled in the store.
type journal struct {
	dir string

	mu   sync.Mutex
	cur  *segment
	next int
	buf  []byte
	over bool // closed
}

// segment is one journal file. open and records are guarded by the journal's mutex.
type segment struct {
	file    segmentFile
	path    string
	size    int
	open    int  // begun and not settled
	damaged bool // it ends in part of a record: nothing may come after it
	retired bool
}

// segmentFile is what a segment needs of its *os.File, which is opened for appending.
type segmentFile interface {
	io.WriteCloser
	Truncate(size int64) error
}

const (
	segmentSize = 8 << 20
	recBegin    = 'B'
	recEnd      = 'E'
	recBoot     = 'H'
)

func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("attempt journal: %w", err)
	}
	return &journal{dir: dir}, nil
}

// A record is: crc32 of what follows (4), length of the body (4), kind (1), id (16), epoch (4), body.
const recHead = 4 + 4 + 1 + 16 + 4

func appendRecord(dst []byte, kind byte, id delivery.MessageID, epoch int, body []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	dst = append(dst, kind)
	dst = append(dst, id[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(epoch))
	dst = append(dst, body...)
	binary.BigEndian.PutUint32(dst[start:], crc32.ChecksumIEEE(dst[start+4:]))
	return dst
}

// begin records that m's attempt starts now, and by which account. Without a nil error the attempt must not be made.
func (j *journal) begin(m *passage) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.roll(); err != nil {
		return err
	}
	if err := j.write(j.cur, recBegin, m, m.account.ID[:]); err != nil {
		return err
	}
	j.cur.open++
	m.journal = j.cur
	return nil
}

// end records what became of m's attempt. A failure to write it only costs certainty after a kill, so it is not reported.
func (j *journal) end(m *passage) {
	body, err := json.Marshal(m.outcome)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if m.journal != nil && m.journal.file != nil {
		_ = j.write(m.journal, recEnd, m, body)
	}
}

// settled says that m's outcome is in the store.
func (j *journal) settled(m *passage) {
	if m.journal == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	m.journal.open--
	m.journal.drop()
}

func (j *journal) write(s *segment, kind byte, m *passage, body []byte) error {
	j.buf = appendRecord(j.buf[:0], kind, m.ID, m.Epoch, body)
	if s.damaged {
		return errTorn
	}
	n, err := s.file.Write(j.buf)
	if err == nil {
		s.size += n
		return nil
	}
	// A full disk may have taken half of the record. What came after it could not be read any more: cut it off, or write
	// nothing more to this file.
	if n > 0 && s.file.Truncate(int64(s.size)) != nil {
		s.damaged = true
	}
	return err
}

// roll makes sure that there is a segment with room.
func (j *journal) roll() error {
	if j.over {
		return errOver
	}
	if j.cur != nil && j.cur.size < segmentSize && !j.cur.damaged {
		return nil
	}
	j.next++
	path := filepath.Join(j.dir, fmt.Sprintf("attempts-%06d.journal", j.next))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("attempt journal: %w", err)
	}
	s := &segment{file: f, path: path}
	j.buf = appendRecord(j.buf[:0], recBoot, delivery.MessageID{}, 0, bootID())
	s.size = len(j.buf)
	if _, err := f.Write(j.buf); err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	if j.cur != nil {
		j.cur.retired = true
		j.cur.drop()
	}
	j.cur = s
	return nil
}

// drop removes a segment that nobody needs any more.
func (s *segment) drop() {
	if s.retired && s.open == 0 && s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.path)
		s.file = nil
	}
}

// close ends the journal; a segment whose attempts are all settled goes.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	if j.cur == nil {
		return nil
	}
	j.cur.retired = true
	j.cur.drop()
	var err error
	if j.cur.file != nil {
		err = j.cur.file.Close()
		j.cur.file = nil
	}
	j.cur = nil
	return err
}

// bootID tells one boot of the machine from another; empty where the system has none.
func bootID() []byte {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(b)
}

// attemptKey names one attempt.
type attemptKey struct {
	id    delivery.MessageID
	epoch int
}

// past is what earlier processes wrote.
type past struct {
	begun map[attemptKey]delivery.AccountID // by which account: the store may not know yet
	ended map[attemptKey]store.Outcome
	files []string
	// torn is set when the machine has booted since, or a file cannot be read to its end: a missing begin proves nothing.
	torn bool
}

func newPast() past {
	return past{begun: map[attemptKey]delivery.AccountID{}, ended: map[attemptKey]store.Outcome{}}
}

// read collects every segment in the directory. Call it before the first begin.
func (j *journal) read() (past, error) {
	p := newPast()
	files, err := filepath.Glob(filepath.Join(j.dir, "attempts-*.journal"))
	if err != nil {
		return p, err
	}
	sort.Strings(files)
	boot := bootID()
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return p, fmt.Errorf("attempt journal: %w", err)
		}
		if err := p.parse(b, boot); err != nil {
			p.torn = true
		}
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(filepath.Base(path), "attempts-"), "%d", &n); err == nil {
			j.next = max(j.next, n)
		}
	}
	p.files = files
	return p, nil
}

// forget removes the segments of earlier processes, once all they knew is in the store.
func (p past) forget() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}

var (
	errTorn     = errors.New("the journal ends in the middle of a record")
	errOver     = errors.New("the journal is closed")
	errBadBegin = errors.New("a begin record names no account")
)

func (p past) record(kind byte, key attemptKey, body []byte) error {
	switch kind {
	case recBegin:
		var by delivery.AccountID
		if len(body) != len(by) {
			return errBadBegin
		}
		copy(by[:], body)
		p.begun[key] = by
	case recEnd:
		var o store.Outcome
		if err := json.Unmarshal(body, &o); err != nil {
			return err
		}
		p.ended[key] = o
	}
	return nil
}

// parse reads one segment. It stops at the first record that is not whole.
func (p *past) parse(b, boot []byte) error {
	for len(b) > 0 {
		if len(b) < recHead {
			return errTorn
		}
		n := int(binary.BigEndian.Uint32(b[4:]))
		if n > 1<<20 || len(b) < recHead+n {
			return errTorn
		}
		if crc32.ChecksumIEEE(b[4:recHead+n]) != binary.BigEndian.Uint32(b) {
			return io.ErrUnexpectedEOF
		}
		key := attemptKey{id: delivery.MessageID(b[9:25]), epoch: int(binary.BigEndian.Uint32(b[25:]))}
		body := b[recHead : recHead+n]
		if b[8] == recBoot {
			if !bytes.Equal(body, boot) {
				p.torn = true
			}
		} else if err := p.record(b[8], key, body); err != nil {
			return err
		}
		b = b[recHead+n:]
	}
	return nil
}
