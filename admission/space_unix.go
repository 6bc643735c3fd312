//go:build linux || darwin || freebsd || dragonfly

package admission

import "golang.org/x/sys/unix"

// Space returns how many bytes of the file system of dir are free for this user, and how many there are.
func Space(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	size := uint64(s.Bsize)
	if available := int64(s.Bavail); available > 0 { //nolint:unconvert // its type differs between systems
		free = uint64(available) * size
	}
	return free, uint64(s.Blocks) * size, nil
}
