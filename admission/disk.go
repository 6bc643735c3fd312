package admission

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Low says how much room the file system has, and how much it must have, in bytes.
type Low struct{ Free, Need uint64 }

func (l Low) String() string { return fmt.Sprintf("%s free, %s needed", Size(l.Free), Size(l.Need)) }

// Floor is how much room must stay free: the larger of a share of the file system and a number of bytes.
type Floor struct {
	Share float64 // of the whole, 0 to 1
	Bytes uint64
}

// defaultFloor is 5 % or 256 MB, whichever is more.
var defaultFloor = Floor{0.05, 256e6}

// ParseFloor reads "10%", a size such as "256MB", or "0" for none; "" is 5 % or 256 MB, whichever is more.
func ParseFloor(s string) (Floor, error) {
	if s == "" {
		return defaultFloor, nil
	}
	if percent, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(strings.TrimSpace(percent), 64)
		if err != nil || !(p >= 0 && p < 100) {
			return Floor{}, fmt.Errorf("%q is no share: use a percentage from 0%% to 99%%", s)
		}
		return Floor{Share: p / 100}, nil
	}
	n, err := ParseSize(s)
	if err != nil {
		return Floor{}, fmt.Errorf("%w, or a percentage such as 5%%", err)
	}
	return Floor{Bytes: n}, nil
}

// Need returns the bytes that must be free of total.
func (f Floor) Need(total uint64) uint64 { return max(uint64(f.Share*float64(total)), f.Bytes) }

var units = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// ParseSize reads a number of bytes such as 64MiB, 1.5GB or 4096.
func ParseSize(s string) (uint64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n >= 0) || n*u.size >= math.MaxInt64 {
			break
		}
		return uint64(n * u.size), nil
	}
	return 0, fmt.Errorf("%q is no size: use bytes or a number with kB, MB, GB, KiB, MiB or GiB", s)
}

// Size prints a number of bytes for people.
func Size(n uint64) string {
	for _, u := range []struct {
		size uint64
		name string
	}{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if n >= u.size {
			return strconv.FormatFloat(float64(n)/float64(u.size), 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatUint(n, 10) + " B"
}

// ErrNoSpaceCheck is what Space returns on systems where it cannot tell.
var ErrNoSpaceCheck = errors.New("free space cannot be read on this system")

// Room sets what the disk check found; nil = there is room. Bulk and accepts are refused while it is not nil.
func (g *Gate) Room(l *Low) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.low = l
}

// Low returns what Room was told last.
func (g *Gate) Low() *Low {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.low
}
