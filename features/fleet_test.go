package features_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/features/steps"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/vault"
)

// asNode in the environment makes an engine of this program: the nodes of a fleet are processes, so that they can be
// killed.
const asNode = "MSGCTL_FEATURES_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(asNode) != "" {
		os.Exit(serve(os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// serve runs one engine as its configuration on in says. It ends by SIGTERM in good order, and with whoever started it.
func serve(in io.Reader, out, log io.Writer) int {
	var cfg engine.Config
	err := json.NewDecoder(in).Decode(&cfg)
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	if err != nil {
		cfg.Logger.Error("no configuration", "err", err)
		return 2
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(1)
	}()
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	e, err := engine.New(cfg, all.Kinds()...)
	if err == nil {
		err = e.Start(context.Background())
	}
	if err != nil {
		cfg.Logger.Error("no start", "err", err)
		return 2
	}
	fmt.Fprintln(out, e.Addr())
	<-terminated
	switch err := e.Close(); {
	case errors.Is(err, pipeline.ErrUnanswered):
		return 3
	case err != nil:
		cfg.Logger.Error("no good end", "err", err)
		return 1
	}
	return 0
}

// fleet is several engines on the ground of one scenario, behind a balancer. Each part of the ground can be cut off.
type fleet struct {
	*ground
	dir   string
	parts map[string]*servers.Link
	nodes []*node
	gate  *httptest.Server
	turn  int
	mu    sync.Mutex // guards turn and the nodes' addresses
}

// node is a name and a directory under which engines come and go.
type node struct {
	name    string
	version int
	cmd     *exec.Cmd
	in      io.Closer
	done    chan struct{}
	addr    string // "" = nobody is there
}

const startWithin = time.Minute

// raise is steps.Shape.Raise.
func (l *land) raise(_ context.Context, n int) (steps.Fleet, error) {
	f := &fleet{ground: l.ground(), parts: map[string]*servers.Link{}}
	if err := f.raise(n); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *fleet) raise(n int) (err error) {
	defer f.caught(&err)
	if err := f.take(); err != nil {
		return err
	}
	for part, url := range map[string]string{"PostgreSQL": f.db.App, "RabbitMQ": f.broker.URL, "Redis": f.limits.URL} {
		f.parts[part], _ = servers.ProxyURL(f, url)
	}
	if f.dir, err = os.MkdirTemp("", "msgctl-fleet-"); err != nil {
		return err
	}
	f.gate = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(*httputil.ProxyRequest) {}, Transport: roundTripper(f.pass),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	})
	key := filepath.Join(f.dir, "master.key")
	if _, err := vault.LoadOrCreate(key); err != nil {
		return err
	}
	b, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	for i := range n {
		x := &node{name: fmt.Sprintf("n%d", i+1)}
		f.nodes = append(f.nodes, x)
		err := os.Mkdir(f.dirOf(x), 0o700)
		if err = errors.Join(err, os.WriteFile(filepath.Join(f.dirOf(x), "master.key"), b, 0o600)); err != nil {
			return err
		}
	}
	if err := f.start(f.nodes[0]); err != nil { // it makes the operator's key
		return err
	}
	failed := make(chan error, n)
	for _, x := range f.nodes[1:] {
		go func() { failed <- f.start(x) }()
	}
	for range f.nodes[1:] {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (f *fleet) dirOf(x *node) string { return filepath.Join(f.dir, x.name) }

// start runs an engine for a node and waits until it serves.
func (f *fleet) start(x *node) error {
	x.version++
	noJitter := 0.0
	cfg := engine.Config{
		Dir: f.dirOf(x), Listen: "127.0.0.1:0", PublicURL: f.gate.URL, AllowPrivate: true,
		Store: f.parts["PostgreSQL"].URL(f.db.App), Broker: f.parts["RabbitMQ"].URL(f.broker.URL),
		Limits: f.parts["Redis"].URL(f.limits.URL), Node: x.name, Version: fmt.Sprintf("1.%d.0", x.version),
		Retry: []time.Duration{time.Second}, RetryJitter: &noJitter,
		// What is left behind is taken up soon. It is twice the timeout of the scenarios' connectors all the same.
		Heartbeat: 900 * time.Millisecond, Lease: time.Second,
	}
	said, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(f.dirOf(x)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Env, cmd.Stderr = append(os.Environ(), asNode+"=1"), log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	x.cmd, x.in, x.done = cmd, in, make(chan struct{})
	heard := make(chan string, 1)
	go func() {
		defer close(x.done)
		line, _ := bufio.NewReader(out).ReadString('\n')
		heard <- strings.TrimSpace(line)
		_ = cmd.Wait()
	}()
	if _, err := in.Write(said); err != nil {
		return err
	}
	addr := ""
	select {
	case addr = <-heard:
	case <-time.After(startWithin):
	}
	if addr == "" {
		return fmt.Errorf("the node %s does not start:\n%s", x.name, f.tail(x))
	}
	f.setAddr(x, addr)
	return nil
}

func (f *fleet) setAddr(x *node, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x.addr = addr
}

// tail is the end of what a node has logged.
func (f *fleet) tail(x *node) string {
	b, err := os.ReadFile(f.dirOf(x) + ".log")
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// roundTripper makes an http.RoundTripper of a function.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pass hands a request to the next node in turn that takes the connection. It never repeats what a node may have got.
func (f *fleet) pass(r *http.Request) (*http.Response, error) {
	var body []byte
	var err error
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.turn++
	var addrs []string
	for i := range f.nodes {
		if a := f.nodes[(f.turn+i)%len(f.nodes)].addr; a != "" {
			addrs = append(addrs, a)
		}
	}
	f.mu.Unlock()
	err = errors.New("no node is there")
	for _, addr := range addrs {
		r.URL.Scheme, r.URL.Host, r.Body = "http", addr, io.NopCloser(bytes.NewReader(body))
		var resp *http.Response
		if resp, err = http.DefaultTransport.RoundTrip(r); err == nil {
			return resp, nil
		}
		var dial *net.OpError
		if !errors.As(err, &dial) || dial.Op != "dial" {
			return nil, err
		}
	}
	return nil, err
}

// URL implements steps.Fleet.
func (f *fleet) URL() string { return f.gate.URL }

// OperatorKey implements steps.Fleet.
func (f *fleet) OperatorKey() (string, error) {
	b, err := os.ReadFile(filepath.Join(f.dirOf(f.nodes[0]), engine.OperatorKeyFile))
	return strings.TrimSpace(string(b)), err
}

// Nodes implements steps.Fleet.
func (f *fleet) Nodes() (names []string) {
	for _, x := range f.nodes {
		names = append(names, x.name)
	}
	return names
}

func (f *fleet) find(name string) (*node, error) {
	for _, x := range f.nodes {
		if x.name == name {
			return x, nil
		}
	}
	return nil, fmt.Errorf("there is no node %s", name)
}

// Kill implements steps.Fleet.
func (f *fleet) Kill(name string) error {
	x, err := f.find(name)
	if err != nil {
		return err
	}
	f.kill(x)
	return nil
}

func (f *fleet) kill(x *node) {
	f.setAddr(x, "")
	if x.cmd != nil {
		_ = x.cmd.Process.Kill()
		<-x.done
		_ = x.in.Close()
	}
}

// Replace implements steps.Fleet.
func (f *fleet) Replace(name string) error {
	x, err := f.find(name)
	if err != nil {
		return err
	}
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-x.done:
	case <-time.After(startWithin):
		return fmt.Errorf("the node %s does not end:\n%s", name, f.tail(x))
	}
	f.setAddr(x, "")
	if code := x.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the node %s has ended with code %d:\n%s", name, code, f.tail(x))
	}
	return f.start(x)
}

// Cut implements steps.Fleet.
func (f *fleet) Cut(part string) (err error) {
	defer f.caught(&err)
	f.parts[part].Cut()
	return nil
}

// Heal implements steps.Fleet.
func (f *fleet) Heal(part string) (err error) {
	defer f.caught(&err)
	f.parts[part].Heal()
	return nil
}

// Story implements steps.Fleet.
func (f *fleet) Story() string {
	var b strings.Builder
	for _, x := range f.nodes {
		fmt.Fprintf(&b, "the end of the log of %s:\n%s\n", x.name, f.tail(x))
	}
	return b.String()
}

// Close implements steps.Fleet.
func (f *fleet) Close() error {
	for _, x := range f.nodes {
		f.kill(x)
	}
	if f.gate != nil {
		f.gate.Close()
	}
	return errors.Join(f.lease.Close(), os.RemoveAll(f.dir))
}
