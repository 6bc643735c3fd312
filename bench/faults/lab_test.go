//go:build faults && unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

const (
	nodes     = 2
	usualRate = 80 // messages per second
	tenant    = "faults"
	// timeout is how long the connectors wait for a provider: half of a lease, so that leases are what they are by default.
	timeout = 5 * time.Second
	lease   = 10 * time.Second
	// patience bounds a row. It is far more than any takes.
	patience = 5 * time.Minute
)

// setup says what a row needs for itself. What it does not break it shares with the other rows.
type setup struct {
	postgres bool // a server of its own
	replica  string
	rabbit   bool
	redis    bool
	options  []servers.Option // of the own server
	pgQuery  string           // more for the URL of PostgreSQL, from "&" on
	mqQuery  string           // for the URL of RabbitMQ, from "?" on
	// paced bounds the connector for SMS to pacedRate, and asks for more.
	paced bool
	skew  time.Duration // of the clock of the second node
}

// lab is two engines, each a process, what they stand on, a provider and a client.
type lab struct {
	*require.Assertions
	t     *testing.T
	ctx   context.Context
	setup setup
	fault Fault
	seen  []string // what the row has observed
	late  bool     // something came later than required

	finished bool // the check is over

	pg, replica *servers.PG
	db          *servers.DB
	mq          *servers.AMQP
	redis       *servers.RedisServer
	sim         *simulator.Sim
	stalls      *stalls
	nodes       []*node
	operator    *sdk.Client
	key         string // of the tenant
	client      *sdk.Client
	load        *load
	normal      []vitals // of the nodes, under load and before the fault
}

// node is a name, a directory and an address for an engine, with a stretch of network of its own to each server.
type node struct {
	l                    *lab
	name, dir, addr, log string
	urls                 [3]string // of store, broker and limits, over the links
	pg, mq, redis        *servers.Link
	skew                 time.Duration
	cmd                  *exec.Cmd
	done                 chan struct{} // closed when the engine has ended
	down                 bool          // the row has ended it
}

// begin starts everything for the row that the test is, and waits until the load is under way.
func begin(t *testing.T, s setup) *lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	l := &lab{Assertions: require.New(t), t: t, ctx: ctx, setup: s, fault: faultOf(t)}
	t.Cleanup(l.enter)
	bin, err := binary()
	l.NoError(err)
	began := time.Now()
	l.servers()
	t.Logf("the servers took %s", round(time.Since(began)))
	opt := sandbox.SimulatorOptions()
	l.sim, err = simulator.Start(ctx, opt)
	l.NoError(err)
	t.Cleanup(func() { _ = l.sim.Close() })
	l.stalls = watchStalls(t)
	root := t.TempDir()
	for i := range nodes {
		l.nodes = append(l.nodes, l.newNode(root, i))
	}
	l.nodes[1].skew = s.skew
	t.Cleanup(l.tails)
	// The first node makes the keys; the others are given the master key.
	first := l.nodes[0]
	first.start(bin)
	first.untilReady()
	key, err := os.ReadFile(filepath.Join(first.dir, "master.key"))
	l.NoError(err)
	for _, n := range l.nodes[1:] {
		l.NoError(os.Mkdir(n.dir, 0o700))
		l.NoError(os.WriteFile(filepath.Join(n.dir, "master.key"), key, 0o600))
		n.start(bin)
	}
	l.connect()
	l.load = l.newLoad()
	l.underWay()
	t.Logf("everything was under way after %s", round(time.Since(began)))
	return l
}

func faultOf(t *testing.T) Fault {
	for _, f := range Matrix() {
		if f.Test == t.Name() {
			return f
		}
	}
	t.Fatalf("%s is no row of the matrix", t.Name())
	return Fault{}
}

// servers starts what the engines stand on, or takes a part of what is there.
func (l *lab) servers() {
	t := l.t
	if l.setup.postgres {
		l.pg = servers.NewPostgres(t, l.setup.options...)
		l.db = l.pg.Database(t)
		l.NoError(migrate(l.db))
	} else {
		l.pg = servers.Postgres(t)
		l.db = l.pg.DatabaseLike(t, "faults", migrate)
	}
	if l.setup.rabbit {
		l.mq = servers.NewRabbit(t, l.setup.options...)
	} else {
		l.mq = servers.Rabbit(t)
	}
	if l.setup.redis {
		l.redis = servers.NewRedis(t, l.setup.options...)
	} else {
		l.redis = servers.Redis(t)
	}
	if l.setup.replica != "" {
		l.replica = servers.NewReplica(t, l.pg)
		if l.setup.replica == "synchronous" {
			l.pg.Set("synchronous_standby_names", "*")
		}
	}
	l.versions()
}

func migrate(db *servers.DB) error {
	return engine.Migrate(context.Background(), db.Owner, db.AppRole, nil)
}

// versions notes what the servers are.
func (l *lab) versions() {
	var v string
	l.NoError(l.query("SHOW server_version", &v))
	v, _, _ = strings.Cut(v, " ")
	book.server("PostgreSQL", v)
	conn, err := amqp.Dial(l.mq.URL)
	l.NoError(err)
	defer conn.Close()
	book.server("RabbitMQ", fmt.Sprint(conn.Properties["version"]))
	info, err := l.askRedis("INFO", "server")
	l.NoError(err)
	_, v, _ = strings.Cut(info, "redis_version:")
	v, _, _ = strings.Cut(v, "\r")
	book.server("Redis", v)
}

// askRedis sends a command.
func (l *lab) askRedis(args ...any) (string, error) {
	o, err := goredis.ParseURL(l.redis.URL)
	l.NoError(err)
	c := goredis.NewClient(o)
	defer c.Close()
	return c.Do(l.ctx, args...).Text()
}

// query reads one value as the superuser.
func (l *lab) query(sql string, into any, args ...any) error {
	ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, l.db.Admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return conn.QueryRow(ctx, sql, args...).Scan(into)
}

func (l *lab) newNode(root string, i int) *node {
	name := fmt.Sprintf("n%d", i+1)
	n := &node{l: l, name: name, dir: filepath.Join(root, name), log: filepath.Join(root, name+".log"), addr: l.freeAddr()}
	n.pg, n.urls[0] = servers.ProxyURL(l.t, l.db.App)
	n.urls[0] += l.setup.pgQuery
	if l.replica != nil {
		// Two hosts: whoever of them takes writes is the primary.
		other, _ := servers.ProxyURL(l.t, l.replica.Of(l.db).App)
		n.urls[0] = strings.Replace(n.urls[0], n.pg.Addr, n.pg.Addr+","+other.Addr, 1) + "&target_session_attrs=read-write"
	}
	n.mq, n.urls[1] = servers.ProxyURL(l.t, l.mq.URL)
	n.urls[1] += l.setup.mqQuery
	n.redis, n.urls[2] = servers.ProxyURL(l.t, l.redis.URL)
	return n
}

// freeAddr returns a loopback address that nobody listens on.
func (l *lab) freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	l.NoError(err)
	defer ln.Close()
	return ln.Addr().String()
}

func (n *node) url() string { return "http://" + n.addr }

// start runs the engine of a node. URLs with passwords go by the environment.
func (n *node) start(bin string) {
	n.l.t.Helper()
	args := []string{"--dir", n.dir, "--listen", n.addr, "--node", n.name, "--public-url", n.url(), "--allow-private"}
	n.cmd = exec.Command(bin, args...)
	if n.skew != 0 {
		self, err := os.Executable()
		n.l.NoError(err)
		n.cmd = exec.Command(self)
		n.cmd.Env = append(os.Environ(), roleEnv+"=engine", "FAULTS_SKEW="+n.skew.String(), "FAULTS_DIR="+n.dir,
			"FAULTS_LISTEN="+n.addr, "FAULTS_NODE="+n.name)
	} else {
		n.cmd.Env = os.Environ()
	}
	n.cmd.Env = append(n.cmd.Env, "MSGCTL_STORE="+n.urls[0], "MSGCTL_BROKER="+n.urls[1], "MSGCTL_LIMITS="+n.urls[2])
	f, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	n.l.NoError(err)
	defer f.Close()
	n.cmd.Stderr = f
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	n.l.NoError(n.cmd.Start())
	cmd, done := n.cmd, make(chan struct{})
	n.done, n.down = done, false
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	n.l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
}

func (n *node) signal(s syscall.Signal) {
	n.l.t.Helper()
	n.l.NoError(n.cmd.Process.Signal(s))
}

// kill ends the engine as a power cut does.
func (n *node) kill() {
	n.l.t.Helper()
	n.down = true
	n.signal(syscall.SIGKILL)
	<-n.done
}

func (n *node) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// health asks a node how it is, in two and a half seconds.
func (n *node) health() (*sdk.Health, error) {
	c := sdk.New(sdk.WithURL(n.url()), sdk.WithMaxRetries(0), sdk.WithTryTimeout(4*time.Second))
	defer c.Close()
	return c.Health(n.l.ctx)
}

// untilReady waits until a node is ready.
func (n *node) untilReady() {
	n.l.t.Helper()
	n.l.until(n.name+" is ready", func() bool {
		if n.ended() {
			n.l.FailNow("the engine has ended", "%s:\n%s", n.name, tail(n.log, 10))
		}
		h, err := n.health()
		return err == nil && h.OK
	})
}

// logged reports whether the node has logged a text.
func (n *node) logged(text string) bool {
	b, err := os.ReadFile(n.log)
	n.l.NoError(err)
	return strings.Contains(string(b), text)
}

// claimsAs is the name under which the node claims now: each run has one of its own.
func (n *node) claimsAs() string {
	b, err := os.ReadFile(filepath.Join(n.dir, "journal", "names"))
	if errors.Is(err, os.ErrNotExist) {
		return n.name + "#none"
	}
	n.l.NoError(err)
	names := strings.Fields(string(b))
	n.l.NotEmpty(names)
	return names[len(names)-1]
}

// connect makes the tenant and its connectors.
func (l *lab) connect() {
	first := l.nodes[0]
	secret, err := os.ReadFile(filepath.Join(first.dir, engine.OperatorKeyFile))
	l.NoError(err)
	l.operator = sdk.New(sdk.WithURL(first.url()), sdk.WithKey(string(secret)))
	l.t.Cleanup(l.operator.Close)
	_, err = l.operator.Tenants.Create(l.ctx, sdk.TenantRequest{ID: tenant})
	l.NoError(err)
	key, err := l.operator.Keys.Create(l.ctx, sdk.KeyRequest{Tenant: tenant})
	l.NoError(err)
	l.key = key.Secret
	l.client = sdk.New(sdk.WithURL(first.url()), sdk.WithKey(l.key))
	l.t.Cleanup(l.client.Close)
	sms := sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
		"addr": l.sim.SMPPAddr(), "system_id": smsAccount, "password": sandbox.Password, "from": "msgctl",
		"timeout": timeout.String(),
	}}
	if l.setup.paced {
		sms.Rate, sms.Burst = pacedRate, pacedBurst
	}
	_, err = l.client.Connectors.Put(l.ctx, "sim-sms", sms)
	l.NoError(err)
	_, err = l.client.Connectors.Put(l.ctx, "sim-hook", sdk.ConnectorRequest{Kind: "webhook", Settings: map[string]string{
		"secret": sandbox.HookSecret, "timeout": timeout.String(),
	}})
	l.NoError(err)
	for _, n := range l.nodes {
		if n.skew == 0 {
			n.untilReady()
		}
	}
}

// The accounts of the simulator.
const (
	smsAccount  = "sim-sms"
	hookAccount = "200"
)

// until looks again and again until cond holds; it fails when the time of the row is over.
func (l *lab) until(what string, cond func() bool) {
	l.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			l.FailNow("waited in vain until " + what)
		}
	}
}

// last lets something last. It is not for waiting until something has happened.
func (l *lab) last(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// note adds to what the row has observed.
func (l *lab) note(format string, args ...any) { l.seen = append(l.seen, fmt.Sprintf(format, args...)) }

// within notes how long something took, and whether that is what is required. It fails the row when it took so long that
// no slow machine explains it.
func (l *lab) within(what string, took, required time.Duration) {
	l.t.Helper()
	const slowMachine = 5
	l.note("%s after %s", what, round(took))
	l.late = l.late || took > required
	l.LessOrEqual(took, slowMachine*required, what)
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}

// tails shows the logs of the engines of a row that has failed.
func (l *lab) tails() {
	if !l.t.Failed() {
		return
	}
	for _, n := range l.nodes {
		l.t.Logf("the end of the log of %s:\n%s", n.name, tail(n.log, 25))
	}
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
