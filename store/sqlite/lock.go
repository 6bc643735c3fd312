package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// InUseError says that another process has the database open.
type InUseError struct {
	PID  int    // of the other process; 0 = it has not written it yet
	Path string // of the lock file
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("database in use by process %d: stop it or choose another directory", e.PID)
}

// lockFile keeps a second process out. The operating system drops the lock with the process, however it ends; the pid
// in the file is for people, and its presence tells the next start that the last stop was not clean.
type lockFile struct{ f *os.File }

// acquire locks path. unclean is whether the process that had it last did not release it.
func acquire(path string) (l *lockFile, unclean bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	content := func() (string, error) {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 64))
		return strings.TrimSpace(string(b)), err
	}
	taken, err := flock(f)
	if err != nil {
		return nil, false, fmt.Errorf("lock %s: %w", path, err)
	}
	if !taken {
		text, err := content()
		if err != nil {
			return nil, false, err
		}
		pid, _ := strconv.Atoi(text)
		return nil, false, &InUseError{PID: pid, Path: path}
	}
	text, err := content()
	if err != nil {
		return nil, false, err
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, false, err
	}
	return &lockFile{f}, text != "", nil
}

// release marks a clean stop and lets the next process in.
func (l *lockFile) release() error { return errors.Join(l.f.Truncate(0), l.f.Close()) }

// abandon lets the next process in without marking the stop as clean.
func (l *lockFile) abandon() error { return l.f.Close() }
