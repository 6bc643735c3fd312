package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// A test process may end without a word: a panic, a time-out of go test, SIGKILL. So a small shell process, the keeper,
// stands beside it. It waits for the end of a pipe whose other end only the test process holds; the kernel closes it
// whatever happens. Then it ends every server that a note names and removes the folder with everything in it.
//
// A note is an empty file named SIGNAL.PID. PostgreSQL gets SIGQUIT, as its children have process groups of their own
// and only the postmaster knows them all; it kills stubborn ones after 5 s, and is itself killed after 10 s. A stalled
// server needs no SIGCONT: the kernel sends one to a stopped group that has lost its parent (POSIX, _Exit).
const keeperScript = `
trap '' HUP INT TERM
cat >/dev/null
cd "$1" || exit 1
lives() {
	kill -0 -"$1" || return 1
	line=
	read -r line <"/proc/$1/stat" # a dead one that init has not reaped yet
	case $line in *") Z "*) return 1;; esac
}
for note in notes/*; do
	sig=${note%%.*} pid=${note##*.}
	kill -"${sig#notes/}" -"$pid"
done
n=0
for note in notes/*; do
	pid=${note##*.}
	while [ $n -lt 100 ] && lives "$pid"; do
		n=$((n+1))
		sleep 0.1
	done
	kill -KILL -"$pid"
done
for dir in */; do umount -l "$dir"; done
cd /
rm -rf "$1"
`

// keeper starts the keeper of this process with its first server and returns the folder for everything.
var keeper = sync.OnceValues(startKeeper)

func startKeeper() (string, error) {
	if runtime.GOOS == "windows" {
		return "", fmt.Errorf("test servers run on Unix systems only")
	}
	base, err := os.MkdirTemp("", "msgctl-servers-")
	if err != nil {
		return "", err
	}
	// PostgreSQL runs as somebody else and must get through.
	if err := os.Chmod(base, 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(base, "notes"), 0o700); err != nil {
		return "", err
	}
	cmd := exec.Command("/bin/sh", "-c", keeperScript, "keeper", base)
	cmd.SysProcAttr = ownGroup(nil)
	if _, err = cmd.StdinPipe(); err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the keeper: %w", err)
	}
	// The pipe's end must live as long as the process: nothing else refers to cmd, and a collected pipe is a closed one.
	kept.Store(cmd)
	return base, nil
}

// kept is what startKeeper must not lose.
var kept atomic.Pointer[exec.Cmd]

func noteFor(base string, pid int, calm syscall.Signal) string {
	name := "KILL."
	if calm == sigInt { // PostgreSQL
		name = "QUIT."
	}
	return filepath.Join(base, "notes", name+strconv.Itoa(pid))
}

// place makes a folder for one server and names its log file beside it.
func place(kind string) (dir, log string, err error) {
	base, err := keeper()
	if err != nil {
		return "", "", err
	}
	if dir, err = os.MkdirTemp(base, kind+"-"); err != nil {
		return "", "", err
	}
	return dir, dir + ".log", nil
}
