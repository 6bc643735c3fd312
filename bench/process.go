package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// patience bounds how long a process may take to start or to end.
const patience = time.Minute

// process is a role that runs. One goroutine at a time may ask it.
type process struct {
	hello
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	stop func() error // ends it in good order; safe twice
}

// start runs a role. It is killed when ctx ends.
func (b *bench) start(ctx context.Context, name string, args ...string) (*process, error) {
	return b.startWith(ctx, nil, name, args...)
}

// startWith also adds to the environment: what holds a password is not for others to read.
func (b *bench) startWith(ctx context.Context, env []string, name string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.CommandContext(ctx, b.exe, append([]string{"-role", name}, args...)...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.WaitDelay = 5 * time.Second
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.stop = sync.OnceValue(func() error {
		defer time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() }).Stop()
		_ = p.in.Close()
		if err := p.cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		return nil
	})
	if err := p.read(&p.hello); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// ask gives a command and reads its answer.
func (p *process) ask(command string, into any) error {
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return p.read(into)
}

func (p *process) read(into any) error {
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	line, err := p.out.ReadBytes('\n')
	kill.Stop()
	if err == nil {
		err = json.Unmarshal(line, into)
	}
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", p.name, err)
	}
	return nil
}

func (p *process) usage() (u usage, err error) { return u, p.ask("usage", &u) }

// simulated is a simulator that runs.
type simulated struct{ *process }

func (s simulated) count() (n int, err error) { return n, s.ask("count", &n) }

func (s simulated) entries(after int) (e seen, err error) {
	return e, s.ask("entries "+strconv.Itoa(after), &e)
}

func (s simulated) callback(url string) error { return s.ask("callback "+url, &struct{}{}) }

// served is an engine that runs, on a directory of its own, with a tenant and its connectors.
type served struct {
	*process
	dir    string
	key    string
	client *sdk.Client // the tenant's
	http   http.Client // for metrics
}

// tenant is whom the messages belong to.
const tenant = "bench"

// serve starts an engine, with connectors to the simulator when there is one.
func (b *bench) serve(ctx context.Context, sim *simulated, profile string) (_ *served, err error) {
	b.engines++
	e := &served{dir: filepath.Join(b.work, "engine-"+strconv.Itoa(b.engines))}
	e.http.Transport = &http.Transport{}
	args := []string{"-dir", e.dir}
	if profile != "" {
		args = append(args, "-cpuprofile", profile)
	}
	if e.process, err = b.start(ctx, roleEngine, args...); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.end())
		}
	}()
	operatorKey, err := os.ReadFile(filepath.Join(e.dir, engine.OperatorKeyFile))
	if err != nil {
		return nil, err
	}
	operator := sdk.New(sdk.WithURL(e.URL), sdk.WithKey(strings.TrimSpace(string(operatorKey))))
	defer operator.Close()
	if _, err := operator.Tenants.Create(ctx, sdk.TenantRequest{ID: tenant, Name: tenant}); err != nil {
		return nil, err
	}
	k, err := operator.Keys.Create(ctx, sdk.KeyRequest{Tenant: tenant, Name: "bench", Mode: "live"})
	if err != nil {
		return nil, err
	}
	e.key = k.Secret
	e.client = sdk.New(sdk.WithURL(e.URL), sdk.WithKey(e.key))
	if sim == nil {
		return e, nil
	}
	at := sandbox.Addresses{SMPP: sim.SMPP, SMTP: sim.SMTP, HTTP: sim.URL}
	callback, err := sandbox.Connect(ctx, e.client, at, e.URL)
	if err != nil {
		return nil, err
	}
	return e, sim.callback(callback)
}

// end drains the engine and removes its data. Safe twice.
func (e *served) end() error {
	if e.client != nil {
		e.client.Close()
	}
	e.http.CloseIdleConnections()
	return errors.Join(e.stop(), os.RemoveAll(e.dir))
}

// metric sums the samples of a metric that have all of the labels, each as name="value".
func (e *served) metric(ctx context.Context, name string, labels ...string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics: %s", resp.Status)
	}
	return sum(resp.Body, name, labels)
}

// sum reads the Prometheus text format.
func sum(r io.Reader, name string, labels []string) (int, error) {
	total := 0.0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		at := strings.LastIndexByte(rest, ' ')
		all := true
		for _, l := range labels {
			all = all && strings.Contains(rest[:at], l)
		}
		if !all {
			continue
		}
		v, err := strconv.ParseFloat(rest[at+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metrics: %w", err)
		}
		total += v
	}
	return int(total), lines.Err()
}
