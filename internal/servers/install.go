package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is a program that the kit can start.
type kind struct {
	title   string
	binary  string
	folders []string // patterns beside PATH
	pkg     string   // of Debian and Ubuntu
	env     string   // names a running server instead
}

func kindPostgres() kind {
	return kind{"PostgreSQL", "initdb", []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/bin"},
		"postgresql", "MSGCTL_TEST_POSTGRES_URL"}
}

func kindRedis() kind {
	return kind{"Redis", "redis-server", []string{"/usr/sbin", "/opt/homebrew/bin"}, "redis-server",
		"MSGCTL_TEST_REDIS_URL"}
}

// The scripts on PATH in Debian's package insist on the system user; those in the package's folder do not.
func kindRabbit() kind {
	return kind{"RabbitMQ", "rabbitmq-server", []string{"/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin"}, "rabbitmq-server",
		"MSGCTL_TEST_AMQP_URL"}
}

func kindPgBouncer() kind {
	return kind{"PgBouncer", "pgbouncer", []string{"/usr/sbin", "/opt/homebrew/bin"}, "pgbouncer", ""}
}

// locate returns the folder of the program and installs it when it is absent.
func (k kind) locate() (string, error) {
	if dir := k.look(); dir != "" {
		return dir, nil
	}
	if err := k.install(); err != nil {
		return "", fmt.Errorf("%s is not installed: %w; as root: apt-get install --no-install-recommends %s%s",
			k.title, err, k.pkg, k.alternative())
	}
	if dir := k.look(); dir != "" {
		return dir, nil
	}
	return "", fmt.Errorf("%s: the package %s is installed but holds no %s", k.title, k.pkg, k.binary)
}

func (k kind) alternative() string {
	if k.env == "" {
		return ""
	}
	return ", or name a running server in " + k.env
}

func (k kind) look() string {
	var dirs []string
	for _, pattern := range k.folders {
		found, _ := filepath.Glob(pattern)
		slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
		dirs = append(dirs, found...)
	}
	for _, dir := range append(dirs, filepath.SplitList(os.Getenv("PATH"))...) {
		if _, err := exec.LookPath(filepath.Join(dir, k.binary)); err == nil {
			return dir
		}
	}
	return ""
}

// version is the last number in a folder such as /usr/lib/postgresql/15/bin.
func version(dir string) int {
	digits := strings.FieldsFunc(dir, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(digits[len(digits)-1])
	return n
}

// installing is the deadline for packages to be fetched and set up.
const installing = 10 * time.Minute

// install runs apt-get, one test process at a time.
func (k kind) install() error {
	if os.Geteuid() != 0 {
		return errors.New("the tests do not run as root")
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return errors.New("this system has no apt-get")
	}
	ctx, cancel := context.WithTimeout(context.Background(), installing)
	defer cancel()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "msgctl-test-servers-install.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close() // gives the lock back
	for {
		if got, err := lock(f); err != nil {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		} else if got {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another process has held %s for %v", f.Name(), installing)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if k.look() != "" {
		return nil // the one before us has done it
	}
	defer noServices()()
	for _, args := range [][]string{
		{"update", "-qq"},
		{"install", "-y", "-qq", "--no-install-recommends", k.pkg},
	} {
		cmd := exec.CommandContext(ctx, apt, append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		cmd.WaitDelay = 5 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, last(out, 500))
		}
	}
	return nil
}

// noServices forbids the packages to start their services, and returns what permits it again. The answer 101 is from
// Debian's policy-rc.d interface; a policy that is there already is left alone.
func noServices() func() {
	const policy = "/usr/sbin/policy-rc.d"
	f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return func() {}
	}
	_, _ = f.WriteString("#!/bin/sh\nexit 101\n")
	_ = f.Close()
	return func() { _ = os.Remove(policy) }
}

func last(b []byte, n int) string {
	return strings.TrimSpace(string(b[max(0, len(b)-n):]))
}
