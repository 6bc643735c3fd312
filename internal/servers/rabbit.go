package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const rabbitUser = "msgctl_test"

// AMQP is a RabbitMQ server, or one virtual host of the shared one. No plugin is enabled.
type AMQP struct {
	Server
	// URL names the server with user, password and the virtual host that is the test's to use.
	URL string

	node *rabbitNode
}

// Rabbit returns a virtual host of the test's own on the shared server. It is deleted with its queues when the test
// ends. The first call of a process takes some seconds. A server that MSGCTL_TEST_AMQP_URL names is used as it is: its
// tests share one virtual host.
func Rabbit(t testing.TB) *AMQP {
	t.Helper()
	if given := os.Getenv("MSGCTL_TEST_AMQP_URL"); given != "" {
		if _, err := amqp.ParseURI(given); err != nil {
			t.Fatal("MSGCTL_TEST_AMQP_URL: want amqp://user:password@host:port/vhost")
		}
		return &AMQP{Server{t: t, refused: "the server is named by MSGCTL_TEST_AMQP_URL; use NewRabbit"}, given, nil}
	}
	shared, err := sharedRabbit()
	if err != nil {
		t.Fatal(err)
	}
	vhost := shared.nextHost()
	if err := shared.addHost(vhost); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.deleteHost(vhost); err != nil {
			t.Errorf("delete the virtual host of the test: %v", err)
		}
	})
	return &AMQP{Server{t, shared.s, "the server is shared; use NewRabbit"}, shared.url(vhost), shared}
}

var sharedRabbit = sync.OnceValues(func() (*rabbitNode, error) {
	n, err := layRabbit(nil)
	if err == nil {
		err = n.s.start()
	}
	return n, err
})

// NewRabbit starts a server for this test alone. It takes some seconds, after a kill too.
//
// RabbitMQ 3.10 keeps the directory of its quorum queues in memory for a while. A queue declared just before a kill may
// be there afterwards without a leader, for good: every operation on it waits in vain. A test that is not about that
// calls Settle before Kill.
func NewRabbit(t testing.TB, opts ...Option) *AMQP {
	t.Helper()
	n, err := layRabbit(opts)
	if err != nil {
		t.Fatal(err)
	}
	return &AMQP{newServer(t, n.s), n.url("/"), n}
}

// Wipe stops the server, deletes all that it holds and starts it anew, as a lost disk would.
func (a *AMQP) Wipe() {
	a.t.Helper()
	a.do("wipe", func() error {
		if err := a.node.s.kill(); err != nil {
			return err
		}
		if err := os.RemoveAll(a.node.data()); err != nil {
			return err
		}
		return a.node.s.start()
	})
}

// Settle writes to disk what the server still holds in memory about queues declared a moment ago.
func (a *AMQP) Settle() {
	a.t.Helper()
	a.do("settle", func() error {
		_, err := a.node.call("[dets:sync(T) || T <- dets:all()]")
		return err
	})
}

// Alarm raises the memory alarm: the server blocks all connections that publish, and says so by connection.blocked,
// until Calm.
func (a *AMQP) Alarm() { a.t.Helper(); a.watermark("{absolute, 1}") }

// Calm ends Alarm.
func (a *AMQP) Calm() { a.t.Helper(); a.watermark("0.9") }

func (a *AMQP) watermark(term string) {
	a.t.Helper()
	a.do("set the memory limit", func() error {
		_, err := a.node.call("vm_memory_monitor:set_vm_memory_high_watermark(" + term + ")")
		return err
	})
}

// Eval evaluates an Erlang expression in the server, a last resort for faults that have no method here, and returns
// what it prints as a term.
func (a *AMQP) Eval(expression string) string {
	a.t.Helper()
	if a.node == nil {
		a.t.Fatal("eval: " + a.refused)
	}
	out, err := a.node.call(expression)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// rabbitNode is one server with what is needed to speak to its Erlang node.
type rabbitNode struct {
	s      *server
	epmd   *server // the port mapper of this node alone
	erl    string  // folder of the Erlang tools
	name   string
	cookie string
	addr   string

	mu    sync.Mutex
	hosts int

	calling sync.Mutex // erl_call has one name, under which the server knows one at a time
}

func (n *rabbitNode) data() string { return filepath.Join(n.s.dir, "mnesia") }

func (n *rabbitNode) url(vhost string) string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(rabbitUser, Password), Host: n.addr,
		Path: "/" + vhost, RawPath: "/" + url.PathEscape(vhost)}
	return u.String()
}

func (n *rabbitNode) nextHost() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts++
	return "test-" + strconv.Itoa(n.hosts)
}

func (n *rabbitNode) addHost(vhost string) error {
	_, err := n.call(fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"msgctl">>), rabbit_auth_backend_internal:set_permissions(`+
		`<<"%s">>, <<"%s">>, <<".*">>, <<".*">>, <<".*">>, <<"msgctl">>)`, vhost, rabbitUser, vhost))
	return err
}

func (n *rabbitNode) deleteHost(vhost string) error {
	_, err := n.call(fmt.Sprintf(`rabbit_vhost:delete(<<"%s">>, <<"msgctl">>)`, vhost))
	return err
}

// call evaluates an expression in the node by erl_call, which takes milliseconds where rabbitmqctl takes a second.
func (n *rabbitNode) call(expression string) (string, error) {
	n.calling.Lock()
	defer n.calling.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), asking)
	defer cancel()
	answer, err := n.callOnce(ctx, expression)
	for err != nil && strings.Contains(answer, "failed to connect") && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond) // a busy server still knows the call before by that name
		answer, err = n.callOnce(ctx, expression)
	}
	if err != nil {
		return "", fmt.Errorf("RabbitMQ: eval %s: %w: %s", expression, err, answer)
	}
	result, ok := strings.CutPrefix(answer, "{ok, ")
	if !ok {
		return "", fmt.Errorf("RabbitMQ: eval %s: %s", expression, answer)
	}
	return strings.TrimSuffix(result, "}"), nil
}

// callOnce is call without a second try and with the answer as it comes.
func (n *rabbitNode) callOnce(ctx context.Context, expression string) (answer string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(n.erl, "erl_call"), "-c", n.cookie, "-n", n.name, "-e")
	cmd.Env = n.s.env
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(expression + ".\n")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// erlang finds the folder with epmd and erl_call.
func erlang() (string, error) {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/erlang/bin", "/usr/lib/erlang/erts-*/bin", "/opt/homebrew/lib/erlang/erts-*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	for _, dir := range append(dirs, filepath.SplitList(os.Getenv("PATH"))...) {
		_, err1 := exec.LookPath(filepath.Join(dir, "epmd"))
		_, err2 := exec.LookPath(filepath.Join(dir, "erl_call"))
		if err1 == nil && err2 == nil {
			return dir, nil
		}
	}
	return "", errors.New("RabbitMQ is installed, but epmd and erl_call of Erlang are not found: install erlang-base")
}

func layRabbit(opts []Option) (*rabbitNode, error) {
	o := collect(opts)
	if o.tmpfs > 0 {
		return nil, errors.New("a RabbitMQ with Tmpfs is not supported; set disk_free_limit.absolute to raise its alarm")
	}
	bin, err := kindRabbit().locate()
	if err != nil {
		return nil, err
	}
	n := &rabbitNode{cookie: "MSGCTLTEST" + strconv.Itoa(os.Getpid())}
	if n.erl, err = erlang(); err != nil {
		return nil, err
	}
	dir, log, err := place("rabbit")
	if err != nil {
		return nil, err
	}
	var ports [3]*port
	for i := range ports {
		if ports[i], err = reservePort(); err != nil {
			return nil, err
		}
	}
	listen, dist, mapper := ports[0], ports[1], ports[2]
	n.addr, n.name = listen.addr(), "msgctl-"+listen.String()+"@localhost"

	conf := [][2]string{
		{"listeners.tcp.1", listen.addr()}, {"default_user", rabbitUser}, {"default_pass", Password},
		{"log.file", "false"}, {"log.console", "true"}, {"log.console.level", "warning"},
		{"disk_free_limit.absolute", "1MB"}, {"vm_memory_high_watermark.relative", "0.9"},
		// The write-ahead log of quorum queues is half a gigabyte unless told otherwise.
		{"raft.wal_max_size_bytes", "16777216"}, {"collect_statistics", "none"},
	}
	var text strings.Builder
	for i, kv := range append(conf, o.settings...) {
		// RabbitMQ refuses a key that comes twice, so the later one takes the place of the earlier.
		if !slices.ContainsFunc(append(conf, o.settings...)[i+1:], func(l [2]string) bool { return l[0] == kv[0] }) {
			fmt.Fprintf(&text, "%s = %s\n", kv[0], kv[1])
		}
	}
	for name, content := range map[string]string{
		"rabbitmq.conf": text.String(), "enabled_plugins": "[].\n", ".erlang.cookie": n.cookie,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o400); err != nil {
			return nil, err
		}
	}
	env := []string{
		"HOME=" + dir, "ERL_EPMD_PORT=" + mapper.String(), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=" + n.name, "RABBITMQ_DIST_PORT=" + dist.String(),
		"RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CONFIG_FILE=" + dir + "/rabbitmq.conf",
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + dir + "/advanced.config", "RABBITMQ_MNESIA_BASE=" + dir + "/mnesia",
		"RABBITMQ_LOG_BASE=" + dir + "/log", "RABBITMQ_ENABLED_PLUGINS_FILE=" + dir + "/enabled_plugins",
		"RABBITMQ_PID_FILE=" + dir + "/pid",
		// Tables for a million processes and five million atoms cost a second of the start.
		"RABBITMQ_MAX_NUMBER_OF_PROCESSES=65536", "RABBITMQ_MAX_NUMBER_OF_ATOMS=500000",
		// The script becomes the server in place of starting it, so that the server is our direct child.
		"RUNNING_UNDER_SYSTEMD=true",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +A 4 -kernel inet_dist_use_interface {127,0,0,1}",
	}
	n.epmd = &server{name: "epmd", dir: dir, log: log, calm: sigTerm, limit: 10 * time.Second, env: env}
	n.epmd.prog, n.epmd.args = filepath.Join(n.erl, "epmd"), []string{"-port", mapper.String(), "-address", "127.0.0.1"}
	n.epmd.ready = func() error { return dials(mapper.addr()) }
	n.s = &server{name: "RabbitMQ", dir: dir, log: log, calm: sigTerm, limit: 3 * time.Minute, env: env}
	n.s.prog = filepath.Join(bin, "rabbitmq-server")
	n.s.ready = n.serves
	n.s.also = func() error {
		for _, p := range ports {
			p.release()
		}
		return n.epmd.kill()
	}
	return n, n.epmd.start()
}

// serves opens a connection and a channel.
func (n *rabbitNode) serves() error {
	if err := dials(n.addr); err != nil {
		return err
	}
	conn, err := amqp.DialConfig(n.url("/"), amqp.Config{
		Dial: amqp.DefaultDial(5 * time.Second), Heartbeat: 10 * time.Second})
	if err != nil {
		return err
	}
	_, err = conn.Channel()
	return errors.Join(err, conn.CloseDeadline(time.Now().Add(5*time.Second)))
}
