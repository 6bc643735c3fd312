package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// devTenant is the tenant that msgctl dev makes.
const devTenant = "demo"

// startDev starts an engine and a simulator and returns when both answer.
func startDev(ctx context.Context, o devOptions) (_ devInfo, err error) {
	if o.Reset {
		if err := resetDir(o.Dir); err != nil {
			return devInfo{}, err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return devInfo{}, &usageError{what: "cannot keep the store", err: err}
	}
	addr, err := freeAddr(o.Addr)
	if err != nil {
		return devInfo{}, err
	}
	secret := devSecret()
	sim, err := startSim(ctx, simulator.Options{
		Log: o.Log, ReceiptDelay: 200 * time.Millisecond, WhatsAppToken: secret, WhatsAppSecret: secret, HookSecret: secret,
	})
	if err != nil {
		return devInfo{}, err
	}
	eng, err := engine.New(engine.Config{Dir: o.Dir, Listen: addr, AllowPrivate: true, Logger: o.Log, Version: version()}, all.Kinds()...)
	if err != nil {
		return devInfo{}, errors.Join(err, sim.Close())
	}
	end := func(ctx context.Context) error { return errors.Join(eng.Shutdown(ctx), sim.Close()) }
	defer func() {
		if err != nil {
			err = errors.Join(err, end(context.WithoutCancel(ctx)))
		}
	}()
	if err := eng.Start(ctx); err != nil {
		return devInfo{}, err
	}
	c, err := eng.Client(devTenant)
	if err != nil {
		return devInfo{}, err
	}
	if err := devConnectors(ctx, c, sim, secret); err != nil {
		return devInfo{}, err
	}
	url := "http://" + eng.Addr()
	key, err := devKey(ctx, c, url, o.Key)
	if err != nil {
		return devInfo{}, err
	}
	return devInfo{
		URL: url, Store: o.Dir, SMPP: sim.SMPPAddr(), SMTP: sim.SMTPAddr(), Sim: sim.URL(), Tenant: devTenant, Key: key, Close: end,
	}, nil
}

// resetDir removes a store, and nothing that is none: a mistyped --dir must not cost a home directory.
func resetDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return &usageError{what: "--reset", err: err}
	}
	if _, err := os.Stat(filepath.Join(dir, "master.key")); err != nil {
		return &usageError{what: dir + " holds something else than an engine's store: nothing was removed", fix: "name another --dir"}
	}
	return os.RemoveAll(dir)
}

// freeAddr settles a port 0 before the engine needs to tell its own address to connectors, and finds a port in use
// before anything else is started.
func freeAddr(addr string) (string, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return "", &usageError{what: "cannot listen on " + addr + ": " + unwrapNet(err), fix: "another --port, or 0 for a free one"}
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String(), nil
}

func unwrapNet(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// startSim listens on the ports that people expect, or on free ones where another program has one of them.
func startSim(ctx context.Context, o simulator.Options) (*simulator.Sim, error) {
	usual := o
	usual.SMPPAddr, usual.SMTPAddr, usual.HTTPAddr = "127.0.0.1:2775", "127.0.0.1:1025", "127.0.0.1:8025"
	if s, err := simulator.Start(ctx, usual); err == nil {
		return s, nil
	}
	return simulator.Start(ctx, o)
}

// devSecret makes a secret of the form that webhooks are signed with; it lives as long as the process.
func devSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it stops the program instead
	return "whsec_" + base64.StdEncoding.EncodeToString(b[:])
}

// devConnectors points a connector per channel at the simulator. Its addresses may differ from those of the last run.
func devConnectors(ctx context.Context, c *sdk.Client, sim *simulator.Sim, secret string) error {
	for _, k := range []struct {
		name string
		r    sdk.ConnectorRequest
	}{
		{"sim-sms", sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
			"addr": sim.SMPPAddr(), "system_id": "sim-sms", "password": "sim", "from": "msgctl",
		}}},
		{"sim-whatsapp", sdk.ConnectorRequest{Kind: "whatsapp", Settings: map[string]string{
			"base_url": sim.URL(), "phone_number_id": "100000000000001", "token": secret, "app_secret": secret, "verify_token": secret,
		}}},
		{"sim-mail", sdk.ConnectorRequest{Kind: "smtp", Settings: map[string]string{
			"addr": sim.SMTPAddr(), "from": "Demo <demo@sim.test>", "tls": "none",
		}}},
		{"sim-hooks", sdk.ConnectorRequest{Kind: "webhook", Settings: map[string]string{"secret": secret}}},
	} {
		made, err := c.Connectors.Put(ctx, k.name, k.r)
		if err != nil {
			return fmt.Errorf("connector %s: %w", k.name, err)
		}
		if k.r.Kind == "whatsapp" && made.CallbackURL != "" {
			sim.SetWhatsAppCallback(made.CallbackURL)
		}
	}
	return nil
}

// devKey keeps the key of an earlier run while it works, so that programs that were given it go on.
func devKey(ctx context.Context, c *sdk.Client, url, old string) (string, error) {
	if strings.HasPrefix(old, "mk_") {
		was := sdk.New(sdk.WithURL(url), sdk.WithKey(old), sdk.WithTenant(""))
		defer was.Close()
		if who, err := was.Whoami(ctx); err == nil && who.Tenant == devTenant {
			return old, nil
		}
	}
	k, err := c.Keys.Create(ctx, sdk.KeyRequest{Name: "msgctl dev", Mode: "test"})
	if err != nil {
		return "", err
	}
	return k.Secret, nil
}
