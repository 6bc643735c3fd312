//go:build unix

package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

const (
	// attemptTimeout is how long the lab's connectors wait for a provider: half of the lease of a cluster, so that the
	// leases have the length that they have by default.
	attemptTimeout = 5 * time.Second
	lease          = 2 * attemptTimeout
	// answerTime is how long the providers take, as those do that are far away: so kills meet attempts.
	answerTime = 40 * time.Millisecond
)

// clusterLab is a lab of several engines on one PostgreSQL, with a RabbitMQ and a Redis beside them, all of them
// processes that may be killed. The address of the lab is that of a balancer before the engines.
type clusterLab struct {
	*lab
	pg     *servers.PG
	rabbit *servers.AMQP
	redis  *servers.RedisServer
	db     *servers.DB
	nodes  []*node
	gate   *balancer
	paced  *lab // the same for the tenant whose connector has a rate

	away  time.Time // until when an engine may fail to start because PostgreSQL is not there
	kills int       // SIGKILLs of engines
	kept  *os.File  // where what is printed is kept too; nil = nowhere
	conn  *pgx.Conn // to PostgreSQL; nil = none yet, or it broke
}

// node is a name, a directory and an address on which engines come and go.
type node struct {
	c                    *clusterLab
	name, dir, addr, log string
	bin                  string // of the engine
	p                    *process
	ready                bool // its engine has been ready
	down                 bool // nobody is to start it now
	frozen               bool
	reborn               int // how often its engine was started again because it had ended by itself
}

// newCluster starts n engines and everything that they need, and makes the tenants and their connectors.
func newCluster(t *testing.T, patience time.Duration, n int) *clusterLab {
	c := &clusterLab{lab: newProcesses(t, patience)}
	root := filepath.Dir(c.log)
	if *keepFlag != "" {
		f, err := os.OpenFile(*keepFlag, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		c.NoError(err)
		c.kept = f
		t.Cleanup(func() { _ = f.Close() })
	}
	c.pg, c.redis, c.rabbit = servers.NewPostgres(t), servers.NewRedis(t), servers.NewRabbit(t)
	c.db = c.pg.Database(t)
	t.Cleanup(func() {
		if c.conn != nil {
			_ = c.conn.Close(context.Background())
		}
	})
	c.migrate()
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		c.nodes = append(c.nodes, &node{
			c: c, name: name, dir: filepath.Join(root, name), addr: freeAddr(t), log: filepath.Join(root, name+".log"),
			bin: "engine", down: true,
		})
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if t.Failed() {
				t.Logf("the end of the log of %s:\n%s", n.name, tail(n.log, 25))
			}
		}
	})
	// The first node makes the master key and the operator's key; the others are given the master key.
	c.dir = c.nodes[0].dir
	c.nodes[0].launch()
	c.nodes[0].untilReady()
	key, err := os.ReadFile(filepath.Join(c.dir, "master.key"))
	c.NoError(err)
	for _, n := range c.nodes[1:] {
		c.NoError(os.Mkdir(n.dir, 0o700))
		c.NoError(os.WriteFile(filepath.Join(n.dir, "master.key"), key, 0o600))
		n.launch()
	}
	for _, n := range c.nodes {
		n.untilReady()
	}
	c.gate = newBalancer(t, c.nodes)
	c.addr = c.gate.addr()
	c.connect()
	return c
}

// migrate makes the schema, as an operator does.
func (c *clusterLab) migrate() {
	cmd := exec.CommandContext(c.ctx, filepath.Join(c.bin, "msgctl"), "migrate", "up", "--app-role", c.db.AppRole)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.t.TempDir(), "MSGCTL_STORE=" + c.db.Owner}
	out, err := cmd.CombinedOutput()
	c.NoError(err, "%s", out)
}

// The tenant whose SMS connector has a rate, and how its people are known at the provider.
const (
	pacedTenant  = "paced"
	pacedNumbers = "+12122"
)

func isPaced(a Address) bool { return strings.HasPrefix(a.To, pacedNumbers) }

// connect makes the tenants and their connectors.
func (c *clusterLab) connect() {
	c.signIn()
	callback, err := sandbox.Connect(c.ctx, c.client, c.sim.at, c.url())
	c.NoError(err)
	c.sim.tell("callback " + callback)
	c.timeouts(attemptTimeout)
	paced := *c.lab
	paced.key = c.newTenant(sdk.TenantRequest{ID: pacedTenant})
	paced.client = sdk.New(sdk.WithURL(c.url()), sdk.WithKey(paced.key))
	c.t.Cleanup(paced.client.Close)
	c.paced = &paced
	_, err = paced.client.Connectors.Put(c.ctx, "paced-sms", sdk.ConnectorRequest{
		Kind: "smpp", Rate: pacedRate, Burst: pacedBurst, Settings: map[string]string{
			"addr": c.sim.at.SMPP, "system_id": "paced-sms", "password": sandbox.Password, "from": "msgctl",
			"timeout": attemptTimeout.String(),
		},
	})
	c.NoError(err)
	c.sim.slow(answerTime, "paced-sms")
}

// window sets how long a WhatsApp message in doubt waits for its receipt, and keeps the timeout.
func (c *clusterLab) window(window string) {
	_, err := c.client.Connectors.Put(c.ctx, "sim-whatsapp", sdk.ConnectorRequest{
		Kind: "whatsapp", Settings: map[string]string{
			"base_url": c.sim.at.HTTP, "phone_number_id": sandbox.PhoneNumberID, "resolve_window": window,
			"timeout": attemptTimeout.String(),
		},
	})
	c.NoError(err)
}

func (n *node) url() string { return "http://" + n.addr }

// urls are those of all nodes.
func (c *clusterLab) urls() (all []string) {
	for _, n := range c.nodes {
		all = append(all, n.url())
	}
	return all
}

// launch starts an engine. URLs with passwords go by the environment.
func (n *node) launch() {
	n.c.t.Helper()
	cmd := exec.Command(filepath.Join(n.c.bin, n.bin),
		"--dir", n.dir, "--listen", n.addr, "--node", n.name, "--public-url", n.url(), "--allow-private")
	cmd.Env = append(os.Environ(),
		"MSGCTL_STORE="+n.c.db.App, "MSGCTL_BROKER="+n.c.rabbit.URL, "MSGCTL_LIMITS="+n.c.redis.URL)
	n.ready, n.down, n.frozen = false, false, false
	n.p = n.c.run(cmd, n.log)
}

// shoot kills the engine of a node, which may just have ended by itself.
func (n *node) shoot() {
	if err := n.p.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		n.c.NoError(err)
	}
	n.down = true
	n.c.kills++
}

// claimsAs is the name under which the node's engine claims: a name for each run, as its journal has written it down.
func (n *node) claimsAs() string {
	b, err := os.ReadFile(filepath.Join(n.dir, "journal", "names"))
	if errors.Is(err, os.ErrNotExist) {
		return n.name + "#none" // it was killed before it could claim
	}
	n.c.NoError(err)
	names := strings.Fields(string(b))
	n.c.NotEmpty(names)
	return names[len(names)-1]
}

// freeze stops the engine of a node as a paused machine does; thaw lets it go on.
func (n *node) freeze() {
	n.p.signal(syscall.SIGSTOP)
	n.frozen = true
}

func (n *node) thaw() {
	n.p.signal(syscall.SIGCONT)
	n.frozen = false
}

// isReady asks the engine of a node.
func (n *node) isReady() bool {
	c := sdk.New(sdk.WithURL(n.url()), sdk.WithMaxRetries(0), sdk.WithTryTimeout(2*time.Second))
	defer c.Close()
	h, err := c.Health(n.c.ctx)
	ok := err == nil && h.OK
	n.ready = n.ready || ok
	return ok
}

// untilReady waits until the engine of a node is ready.
func (n *node) untilReady() {
	n.c.t.Helper()
	n.c.until(n.name+" is ready", 20*time.Millisecond, func() bool {
		n.c.tend()
		return n.isReady()
	})
}

// tend starts engines again that have ended by themselves, as a supervisor does. The only cause that they may have is a
// start without PostgreSQL.
func (c *clusterLab) tend() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.down || !n.p.ended() || time.Since(n.p.began) < 500*time.Millisecond {
			continue
		}
		if n.ready || c.away.Before(n.p.began) {
			c.FailNow("an engine has ended by itself", "%s, exit code %d:\n%s", n.name, n.p.wait(), tail(n.log, 15))
		}
		n.reborn++
		n.launch()
	}
}

// claims counts what is under lease under a name. It asks PostgreSQL itself, and fails while that is away.
func (c *clusterLab) claims(name string) (n int, err error) {
	err = c.query(`SELECT count(*) FROM messages WHERE q = 0 AND due IS NOT NULL AND status = $1 AND node = $2`, &n,
		int16(delivery.StatusSending), name)
	return n, err
}

// query reads one value as the superuser, whom no row security keeps from anything.
func (c *clusterLab) query(sql string, into any, args ...any) (err error) {
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	if c.conn == nil {
		if c.conn, err = pgx.Connect(ctx, c.db.Admin); err != nil {
			c.conn = nil
			return err
		}
	}
	if err = c.conn.QueryRow(ctx, sql, args...).Scan(into); err != nil {
		_ = c.conn.Close(ctx)
		c.conn = nil
	}
	return err
}

// print says something on standard output, and keeps it.
func (c *clusterLab) print(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Println(line)
	if c.kept != nil {
		_, err := fmt.Fprintln(c.kept, line)
		require.NoError(c.t, err)
	}
}
