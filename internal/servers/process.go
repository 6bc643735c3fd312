package servers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server is one configured server: the process comes and goes, address and data stay.
type server struct {
	name  string
	dir   string // data, configuration: all of it is removed at the end
	log   string // file that standard output and error go to, outside dir, which may be full
	prog  string
	args  []string
	env   []string
	user  *account // who the process runs as; nil is whoever runs the tests
	calm  syscall.Signal
	tmpfs bool          // dir is a file system of its own
	limit time.Duration // for starting, recovery included
	ready func() error  // whether it serves; must return within seconds
	after func() error  // once after the first start, may be nil
	also  func() error  // what remove does in the end, may be nil

	mu       sync.Mutex
	proc     *process
	prepared bool
}

func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && !s.proc.running() {
		_ = s.proc.cmd.Wait()
		_ = os.Remove(s.proc.note)
		s.proc = nil
	}
	if s.proc == nil {
		p, err := spawn(s.prog, s.args, s.env, s.dir, s.log, s.user, s.calm)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.proc = p
	}
	if err := s.await(s.limit); err != nil {
		return err
	}
	if s.after != nil && !s.prepared {
		if err := s.after(); err != nil {
			return fmt.Errorf("%s: prepare: %w", s.name, err)
		}
	}
	s.prepared = true
	return nil
}

func (s *server) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	if err := s.proc.resume(); err != nil {
		return err
	}
	_ = s.proc.cmd.Process.Signal(s.calm)
	calm := s.proc.reap(30 * time.Second)
	s.proc = nil
	if !calm {
		return fmt.Errorf("%s did not end within 30 s of %v and was killed; its log ends:\n%s", s.name, s.calm, s.logTail())
	}
	return nil
}

func (s *server) kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	err := s.proc.kill()
	s.proc = nil
	return err
}

func (s *server) stall() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.running() {
		return fmt.Errorf("%s does not run", s.name)
	}
	return s.proc.stall()
}

func (s *server) resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return fmt.Errorf("%s does not run", s.name)
	}
	return s.proc.resume()
}

func (s *server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && s.proc.running()
}

// remove ends the server with all that belongs to it.
func (s *server) remove() error {
	err := s.kill()
	if s.also != nil {
		if e := s.also(); err == nil {
			err = e
		}
	}
	if e := os.RemoveAll(s.dir); err == nil {
		err = e
	}
	if e := os.Remove(s.log); err == nil && !os.IsNotExist(e) {
		err = e
	}
	return err
}

// process is a direct child in a process group of its own, so that an interrupt at the terminal ends the tests first.
// Nothing waits for it in the background: a server that all tests share must cost no goroutine.
type process struct {
	cmd  *exec.Cmd
	note string // the keeper's note, see keeper.go
}

func spawn(prog string, args, env []string, dir, log string, as *account, calm syscall.Signal) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(prog, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = ownGroup(as)
	base, err := keeper()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, note: noteFor(base, cmd.Process.Pid, calm)}
	if err := os.WriteFile(p.note, nil, 0o600); err != nil {
		_ = p.kill()
		return nil, err
	}
	return p, nil
}

// running is false for a child that has ended and waits to be reaped.
func (p *process) running() bool {
	for _, e := range processTable() {
		if e.pid == p.cmd.Process.Pid {
			return e.state != 'Z' && e.state != 'X'
		}
	}
	return false
}

// reap waits for the end of the process and reports whether it came in time; if not, it kills.
func (p *process) reap(limit time.Duration) bool {
	late := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		defer close(late)
		_ = p.killTree()
	})
	_ = p.cmd.Wait()
	inTime := timer.Stop()
	if !inTime {
		<-late
	}
	_ = os.Remove(p.note)
	return inTime
}

// kill ends the whole tree. The descendants are somebody else's to reap, so it waits until they are seen no more.
func (p *process) kill() error {
	// Stopped first, nobody forks a child that the list does not hold.
	if err := p.stall(); err != nil {
		return err
	}
	tree := p.tree()
	if err := p.killTree(); err != nil {
		return err
	}
	_ = p.cmd.Wait()
	_ = os.Remove(p.note)
	end := time.Now().Add(10 * time.Second)
	for alive(tree) {
		if time.Now().After(end) {
			return fmt.Errorf("processes %v outlive SIGKILL", tree)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (p *process) killTree() error {
	// The parent first: PostgreSQL's postmaster would begin a recovery when it saw a child die.
	for _, pid := range p.tree() {
		if err := signal(pid, sigKill); err != nil {
			return err
		}
	}
	return nil
}

// stall repeats until it meets nobody new: a process may fork while the first round goes through the tree.
func (p *process) stall() error {
	stopped := map[int]bool{}
	for {
		tree := p.tree()
		before := len(stopped)
		for _, pid := range tree {
			if stopped[pid] {
				continue
			}
			if err := signal(pid, sigStop); err != nil {
				return err
			}
			stopped[pid] = true
		}
		if len(stopped) == before {
			return nil
		}
	}
}

func (p *process) resume() error {
	tree := p.tree()
	// The children first, so that the parent finds them as it left them.
	for i := len(tree) - 1; i >= 0; i-- {
		if err := signal(tree[i], sigCont); err != nil {
			return err
		}
	}
	return nil
}

// tree lists the process and its descendants, parents before children.
func (p *process) tree() []int {
	table := processTable()
	found := []int{p.cmd.Process.Pid}
	for i := 0; i < len(found); i++ {
		for _, e := range table {
			if e.parent == found[i] {
				found = append(found, e.pid)
			}
		}
	}
	return found
}

func alive(pids []int) bool {
	for _, e := range processTable() {
		for _, pid := range pids {
			if e.pid == pid && e.state != 'Z' && e.state != 'X' {
				return true
			}
		}
	}
	return false
}

type entry struct {
	pid, parent int
	state       byte
}

// processTable reads /proc where there is one and asks ps elsewhere.
func processTable() []entry {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	if len(stats) == 0 {
		return psTable()
	}
	table := make([]entry, 0, len(stats))
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// "pid (name) state parent …": the name may hold blanks and brackets (proc(5)).
		i := bytes.LastIndexByte(b, ')')
		fields := strings.Fields(string(b[i+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		table = append(table, entry{pid, parent, fields[0][0]})
	}
	return table
}

func psTable() []entry {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,state=").Output()
	if err != nil {
		return nil
	}
	var table []entry
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		pid, _ := strconv.Atoi(fields[0])
		parent, _ := strconv.Atoi(fields[1])
		table = append(table, entry{pid, parent, fields[2][0]})
	}
	return table
}
