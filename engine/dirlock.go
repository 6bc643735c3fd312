package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// dirLock keeps a second process out of a node's directory: its attempt journal is one process's. With an embedded store
// the database's own lock does that.
type dirLock struct{ f *os.File }

// lockDir makes and locks a directory. The operating system drops the lock with the process, however that ends.
func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	path := filepath.Join(dir, "engine.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	taken, err := flock(f)
	if err == nil && !taken {
		b, _ := io.ReadAll(io.NewSectionReader(f, 0, 64))
		by := "another process"
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			by = fmt.Sprintf("process %d", pid)
		}
		err = fmt.Errorf("directory %s is in use by %s: stop it or choose another directory with --dir", dir, by)
	}
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &dirLock{f}, nil
}

func (l *dirLock) release() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}
