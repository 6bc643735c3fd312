//go:build linux

package crash

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msgctl/msgctl/sdk"
)

// TestDiskFull fills the file system of the engine's directory while it works. It needs root, to mount a small one.
func TestDiskFull(t *testing.T) {
	l := newProcesses(t, 3*time.Minute)
	l.NoError(os.Mkdir(l.dir, 0o700))
	if err := unix.Mount("tmpfs", l.dir, "tmpfs", 0, "size=128m,mode=0700"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(l.dir, unix.MNT_DETACH) })
	l.configure("admission: { min_free: \"0\" }\n") // or the engine would stop before the disk does
	ballast := filepath.Join(l.dir, "ballast")
	l.faulty("disk full", fault{
		begin: func() {
			f, err := os.Create(ballast)
			l.NoError(err)
			defer f.Close()
			_, err = io.Copy(f, zeros{})
			l.ErrorIs(err, syscall.ENOSPC)
		},
		end: func() { l.NoError(os.Remove(ballast)) },
	})
}

// TestDiskError makes every write beyond the present size of the engine's files fail, with an error that is not a full
// disk: it stands for a disk that fails.
func TestDiskError(t *testing.T) {
	l := newProcesses(t, 3*time.Minute)
	limit := func(most uint64) {
		err := unix.Prlimit(l.engine.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: most, Max: math.MaxUint64}, nil)
		l.NoError(err)
	}
	l.faulty("disk error", fault{
		begin: func() { limit(16 << 10) },
		end:   func() { limit(math.MaxUint64) },
	})
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// fault is something that happens to the disk and goes away again.
type fault struct{ begin, end func() }

// faulty lets a fault happen under load and judges what comes of it: requests are refused with a problem, nothing that
// was acknowledged is lost, and the engine goes on by itself when the fault is over.
func (l *lab) faulty(name string, f fault) {
	l.t.Helper()
	l.open()
	l.whatsApp("5s")
	d := l.newLoad()
	l.until("the load is under way", 5*time.Millisecond, func() bool { return len(d.look()) > backlog/10 })
	f.begin()
	broken := time.Now()
	var refused *sdk.Error
	var refusedAfter time.Duration
	l.until("a request is refused", 5*time.Millisecond, func() bool {
		d.look()
		_, err := l.probe()
		refusedAfter = time.Since(broken)
		return errors.As(err, &refused)
	})
	l.Equal(503, refused.Status, "%v", refused)
	l.NotEmpty(refused.Code)
	l.NotEmpty(refused.Detail)
	d.watch(2 * time.Second)
	during := d.acked()
	d.watch(time.Second)
	accepted := d.acked() - during // within a second, while the fault lasts
	l.False(l.engine.ended(), "the engine ended")
	f.end()
	healed, before := time.Now(), len(d.look())
	l.until("a request is accepted again", 5*time.Millisecond, func() bool {
		d.look()
		m, err := l.probe()
		if err != nil {
			return false
		}
		d.done([]Request{{Address{"email", m.To}, m.ID}})
		return true
	})
	acceptsAfter := time.Since(healed)
	l.until("messages are handed over again", 5*time.Millisecond, func() bool { return len(d.look()) > before })
	sendsAfter := time.Since(healed)
	h := d.finish()
	doneAfter := time.Since(healed)
	v := Check(h)
	fmt.Printf("%s: acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d unflagged=%d refused_after_ms=%d "+
		"code=%s accepted_meanwhile=%d accepts_again_ms=%d sends_again_ms=%d all_done_ms=%d\n",
		name, v.Acknowledged, len(v.Lost), len(v.Unexpected), v.Duplicated, v.Flagged, len(v.Unflagged),
		refusedAfter.Milliseconds(), refused.Code, accepted,
		acceptsAfter.Milliseconds(), sendsAfter.Milliseconds(), doneAfter.Milliseconds())
	l.True(v.OK(), "%s", v.Explain())
	l.engine.signal(syscall.SIGTERM)
	l.Zero(l.engine.wait(), "a drain ends well")
	l.Equal("ok", integrity(l.t, filepath.Join(l.dir, "msgctl.db")))
}

// probe sends one message to somebody whom no load writes to. Repeated, it is the same request.
func (l *lab) probe() (*sdk.Message, error) {
	c := sdk.New(sdk.WithURL(l.url()), sdk.WithKey(l.key), sdk.WithMaxRetries(0))
	defer c.Close()
	return c.Send(l.ctx, l.message(Address{"email", "probe@example.com"}, "probe"), sdk.IdempotencyKey("probe"))
}

// acked counts the messages that have been acknowledged.
func (d *load) acked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.requests)
}
