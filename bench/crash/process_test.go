//go:build unix

package crash

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a child that may be killed at any moment.
type process struct {
	l     *lab
	cmd   *exec.Cmd
	began time.Time
	done  chan struct{}
}

// run starts a child whose stderr goes to a file. It does not outlive the test.
func (l *lab) run(cmd *exec.Cmd, log string) *process {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	l.NoError(err)
	defer f.Close()
	cmd.Stderr = f
	p := &process{l: l, cmd: cmd, done: make(chan struct{})}
	p.began = time.Now()
	l.NoError(cmd.Start())
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	p.l.t.Helper()
	p.l.NoError(p.cmd.Process.Signal(s))
}

// kill ends the process as a power cut ends its machine, but for the page cache.
func (p *process) kill() {
	p.l.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}

// wait returns the exit code; -1 after a signal that the process did not catch.
func (p *process) wait() int {
	p.l.t.Helper()
	select {
	case <-p.done:
	case <-p.l.ctx.Done():
		p.l.FailNow("the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// logged reports whether the engines of the lab have logged a text.
func (l *lab) logged(text string) bool {
	b, err := os.ReadFile(l.log)
	return err == nil && strings.Contains(string(b), text)
}
