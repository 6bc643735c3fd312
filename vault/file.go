package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// header opens a master key file and says its format.
const header = "msgctl-master-key-1 "

const restore = "restore it from a backup; without it no stored secret opens"

// FileError says what is wrong with a master key file and what to do about it.
type FileError struct {
	Path string
	What string
	Fix  string // a command or an instruction
	Err  error  // the cause; may be nil
}

func (e *FileError) Error() string {
	s := "master key file " + e.Path + " " + e.What
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s + "; " + e.Fix
}

func (e *FileError) Unwrap() error { return e.Err }

// Load reads a master key file. It refuses a file that others than its owner may read or write, and one that is
// damaged: every error is a *FileError.
func Load(path string) (*Vault, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &FileError{path, "cannot be read", "check the path and that the engine's user owns it", err}
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, &FileError{path, "cannot be read", "check the path and that the engine's user owns it", err}
	case !info.Mode().IsRegular():
		return nil, &FileError{path, "is not a regular file", "give the path of the file itself", nil}
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0: // Windows has no such bits
		what := fmt.Sprintf("can be read by others (mode %04o)", info.Mode().Perm())
		return nil, &FileError{path, what, "run: chmod 600 " + path, nil}
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return nil, &FileError{path, "cannot be read", "check the disk", err}
	}
	encoded, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(header))
	if !ok {
		return nil, &FileError{path, "is not a master key file", restore, nil}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(string(encoded))
	if err != nil || len(raw) != KeySize {
		return nil, &FileError{path, "is damaged", restore, nil}
	}
	return New([KeySize]byte(raw)), nil
}

// LoadOrCreate reads a master key file, or makes one with a new random key, readable by its owner alone, when there is
// none. Two processes that do so at the same time end with the same key. Keep a copy of the file apart from the store's
// backups: without it no sealed secret can be opened and every API key stops working.
func LoadOrCreate(path string) (*Vault, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return Load(path)
	}
	if err := create(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, &FileError{path, "cannot be made", "check that its folder exists and the engine's user may write there",
			err}
	}
	return Load(path)
}

// create writes the whole file beside its place, makes it durable and then gives it its name, unless the name is taken.
// A reader therefore never sees half a key, and a crash leaves either none or a whole one.
func create(path string) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".master-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	var key [KeySize]byte
	_, _ = rand.Read(key[:])
	_, err = tmp.WriteString(header + base64.RawURLEncoding.EncodeToString(key[:]) + "\n")
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the new name durable. Some file systems cannot sync a folder; that is no reason to stop.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}
