package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// masterKeyName is the name of the master key in the engine's directory, and of the credential that brings it.
	masterKeyName = "master.key"
	// masterKeyMax is more than a master key file ever has.
	masterKeyMax = 1024
)

// bringMasterKey puts the master key that this node was given into its directory, where the engine expects it: the nodes
// of a cluster must all have the same one, and a node that has none would make its own. The key comes from the file that
// MSGCTL_MASTER_KEY_FILE names, else from systemd's credential master.key, else there is nothing to do. A directory that
// has another key already is refused: what was sealed with it would not open any more.
//
// The copy, not the given file, is what the engine reads: platforms hand out secrets with modes of their own, which the
// engine would refuse as readable by others.
func bringMasterKey(dir string, getenv func(string) string) error {
	from := getenv("MSGCTL_MASTER_KEY_FILE")
	named := from != ""
	if !named {
		credentials := getenv("CREDENTIALS_DIRECTORY")
		if credentials == "" {
			return nil
		}
		from = filepath.Join(credentials, masterKeyName)
	}
	key, err := readKey(from)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return nil // credentials of other kinds
	case err != nil:
		return fmt.Errorf("the given master key: %w: check MSGCTL_MASTER_KEY_FILE, or the credential %s", err, masterKeyName)
	}
	path := filepath.Join(dir, masterKeyName)
	have, err := readKey(path)
	switch {
	case err == nil && bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(key)):
		return nil
	case err == nil:
		return fmt.Errorf("%s is not the master key that was given as %s: every node needs the one that the secrets in the "+
			"store were sealed with; find out which that is, and put the other one away", path, from)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("master key: %w", err)
	}
	if err := placeKey(dir, path, key); err != nil {
		return fmt.Errorf("master key: %w: check that the engine's user may write in %s", err, dir)
	}
	return nil
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	key, err := io.ReadAll(io.LimitReader(f, masterKeyMax+1))
	switch {
	case err != nil:
		return nil, err
	case len(bytes.TrimSpace(key)) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case len(key) > masterKeyMax:
		return nil, fmt.Errorf("%s is too long for a master key", path)
	}
	return key, nil
}

// placeKey writes the whole file beside its place and then gives it its name, so that nobody reads half of it.
func placeKey(dir, path string, key []byte) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".master-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(key)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Link(tmp.Name(), path)
}
