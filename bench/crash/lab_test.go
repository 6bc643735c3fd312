//go:build unix

package crash

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

var (
	seedFlag = flag.Uint64("seed", 0, "choose the moments of the kills by this number; 0 = a new one each time")
	cycles   = flag.Int("cycles", 10, "how often TestKill kills the engine")
	restarts = flag.Int("restarts", 5, "how often TestTerm drains and restarts the engine")
	rate     = flag.Int("rate", 1_500, "messages per second that the load asks for at most")
	queued   = flag.Int("queued", 20_000, "messages that wait in TestQueued; 1000000 is what the guarantee speaks of")
	people   = flag.Int("people", 4_000, "people of a campaign; a multiple of four")

	clusterFlag = countsFlag("cluster", counts{engine: 6, postgres: 1, rabbit: 1, redis: 2},
		"how often TestCluster hits what, `engine=N,postgres=N,rabbit=N,redis=N`")
	onlyFlag    = flag.String("only", "", "let every fault of TestCluster be of this `kind`, such as engine_freeze_long")
	rolls       = flag.Int("rolls", 1, "how often TestRolling replaces each engine of a cluster")
	clusterRate = flag.Int("cluster-rate", 200, "messages per second that the load on a cluster asks for at most")
	keepFlag    = flag.String("keep", "", "append what the tests of a cluster print to this `file` too")
)

// roleEnv makes this test binary another process of the lab; plantEnv plants a fault into the history of a run, see
// doctor. Only this package knows them.
const (
	roleEnv  = "MSGCTL_CRASH_ROLE"
	plantEnv = "MSGCTL_CRASH_PLANT"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "simulator" {
		os.Exit(simulate(os.Stdin, os.Stdout, os.Stderr))
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// built is where binaries has put them.
var built string

// binaries builds engine and msgctl once and returns the directory they are in.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "msgctl-crash-"); err != nil {
		return "", err
	}
	built = dir
	if err := os.Chmod(dir, 0o755); err != nil { // another user runs it in TestEngineRefuses
		return dir, err
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/engine", "./cmd/msgctl")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w:\n%s", err, out)
	}
	return dir, nil
})

// lab is a simulator and an engine, each a process of its own, and a tenant's client. The simulator outlives every
// engine; engines come and go on one directory and one address.
type lab struct {
	*require.Assertions
	t   *testing.T
	ctx context.Context
	rnd *rand.Rand

	bin      string
	dir      string // of the engine
	addr     string // of the engine
	log      string // file with the log of every engine
	config   string // file with the engine's configuration; "" = none
	sim      *simProcess
	engine   *process
	operator *sdk.Client
	client   *sdk.Client // of the tenant
	key      string      // of the tenant
}

const tenant = "crash"

// newLab starts everything. The lab must be done within patience.
func newLab(t *testing.T, patience time.Duration) *lab {
	return newProcesses(t, patience).open()
}

// open starts the engine, and makes the tenant and its connectors.
func (l *lab) open() *lab {
	l.t.Helper()
	l.start()
	l.signIn()
	callback, err := sandbox.Connect(l.ctx, l.client, l.sim.at, l.url())
	l.NoError(err)
	l.whatsApp("2s")
	l.sim.tell("callback " + callback)
	return l
}

// whatsApp sets how long a WhatsApp message in doubt waits for its receipt: a test has no minute and a half.
func (l *lab) whatsApp(window string) {
	l.t.Helper()
	_, err := l.client.Connectors.Put(l.ctx, "sim-whatsapp", sdk.ConnectorRequest{
		Kind: "whatsapp", Settings: map[string]string{
			"base_url": l.sim.at.HTTP, "phone_number_id": sandbox.PhoneNumberID, "resolve_window": window,
		},
	})
	l.NoError(err)
}

// configure gives the engines of the lab a configuration, in YAML. Before the first start.
func (l *lab) configure(text string) {
	l.config = filepath.Join(l.t.TempDir(), "engine.yaml")
	l.NoError(os.WriteFile(l.config, []byte(text), 0o600))
}

// newProcesses prepares a lab without starting the engine.
func newProcesses(t *testing.T, patience time.Duration) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs processes and time")
	}
	bin, err := binaries()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to repeat: -seed=%d", seed)
	l := &lab{
		Assertions: require.New(t), t: t, ctx: ctx, rnd: rand.New(rand.NewPCG(seed, 0)), bin: bin, addr: freeAddr(t),
	}
	root := t.TempDir()
	l.dir, l.log = filepath.Join(root, "data"), filepath.Join(root, "engine.log")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the engine's log:\n%s", tail(l.log, 40))
		}
	})
	l.sim = startSimulator(l)
	return l
}

func (l *lab) url() string { return "http://" + l.addr }

// freeAddr returns a loopback address nobody listens on.
func freeAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// signIn makes the tenant, its key and the clients, with the key that the engine left for its operator.
func (l *lab) signIn() {
	secret, err := os.ReadFile(filepath.Join(l.dir, engine.OperatorKeyFile))
	l.NoError(err)
	l.operator = sdk.New(sdk.WithURL(l.url()), sdk.WithKey(string(secret)))
	l.key = l.newTenant(sdk.TenantRequest{ID: tenant})
	l.client = sdk.New(sdk.WithURL(l.url()), sdk.WithKey(l.key))
	l.t.Cleanup(l.client.Close)
	l.t.Cleanup(l.operator.Close)
}

// newTenant makes a tenant and returns a key of it.
func (l *lab) newTenant(r sdk.TenantRequest) (key string) {
	_, err := l.operator.Tenants.Create(l.ctx, r)
	l.NoError(err)
	k, err := l.operator.Keys.Create(l.ctx, sdk.KeyRequest{Tenant: r.ID})
	l.NoError(err)
	return k.Secret
}

// start runs an engine and waits until it is ready.
func (l *lab) start() {
	l.t.Helper()
	l.launch()
	l.ready()
}

// ready waits until the engine that was launched is ready.
func (l *lab) ready() {
	l.t.Helper()
	c := sdk.New(sdk.WithURL(l.url()), sdk.WithMaxRetries(0))
	defer c.Close()
	l.until("the engine is ready", 5*time.Millisecond, func() bool {
		if l.engine.ended() {
			l.FailNow("the engine ended at its start", "%s", tail(l.log, 10))
		}
		h, err := c.Health(l.ctx)
		return err == nil && h.OK
	})
}

// launch runs an engine.
func (l *lab) launch() {
	args := []string{"--dir", l.dir, "--listen", l.addr, "--allow-private"}
	if l.config != "" {
		args = append(args, "--config", l.config)
	}
	l.engine = l.run(exec.Command(filepath.Join(l.bin, "engine"), args...), l.log)
}

// until looks again and again until cond holds; it fails when the lab's time is over.
func (l *lab) until(what string, every time.Duration, cond func() bool) {
	l.t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			l.FailNow("waited in vain until " + what)
		}
	}
}

// pause lets d pass. It is for faults that last a while, never for waiting until something has happened.
func (l *lab) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// cli runs msgctl as the tenant and returns its exit code and what it printed.
func (l *lab) cli(args ...string) (code int, out string) {
	cmd := l.command(args...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.NoError(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// command prepares msgctl for the tenant, with nothing of this user's own settings.
func (l *lab) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(l.ctx, filepath.Join(l.bin, "msgctl"), args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.t.TempDir(), "MSGCTL_URL=" + l.url(), "MSGCTL_API_KEY=" + l.key,
	}
	cmd.Dir = l.t.TempDir()
	return cmd
}

// audit has the real command recount the tenant's books.
func (l *lab) audit() {
	l.t.Helper()
	code, out := l.cli("audit", "verify")
	l.Zero(code, "msgctl audit verify: %s", out)
}

// databaseMB is how large the engine's database is.
func (l *lab) databaseMB() (mb int64) {
	for _, name := range []string{"msgctl.db", "msgctl.db-wal"} {
		if info, err := os.Stat(filepath.Join(l.dir, name)); err == nil {
			mb += info.Size() >> 20
		}
	}
	return mb
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
