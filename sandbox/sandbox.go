// Package sandbox runs an engine whose connectors all lead to a provider simulator on the same machine.
//
// It is what "msgctl dev", the features, the examples and the benchmark stand on. Nothing in it leaves loopback.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// Options says what to run. The zero value runs in a temporary directory on free ports.
type Options struct {
	Dir     string // of the engine; "" = a temporary one that Close removes
	Listen  string // of the API; "" = a free port
	SMPP    string // of the simulator's SMSC; "" = a free port, as for the next two
	SMTP    string
	HTTP    string
	Tenant  string // "" = demo
	Clock   clockwork.Clock
	Logger  *slog.Logger
	Retry   []time.Duration
	Version string

	// RetryJitter is the share of each delay of Retry that is drawn at random; nil = the engine's default.
	RetryJitter *float64

	// ReceiptDelay is how long ordinary receipts take.
	ReceiptDelay time.Duration

	// Engine changes the engine's configuration before the engine is made, also by Restart; nil = it stays as it is.
	Engine func(*engine.Config)
}

// Secrets of the simulated providers. They guard nothing: everything listens on loopback only.
const (
	Password       = "simulator"
	WhatsAppToken  = "simulator-token"
	WhatsAppSecret = "simulator-app-secret"
	VerifyToken    = "simulator-verify"
	HookSecret     = "whsec_c2ltdWxhdG9yLXdlYmhvb2stc2VjcmV0LTAx"
)

// PhoneNumberID is the WhatsApp sender that Connect sets up.
const PhoneNumberID = "100200300400500"

// Sandbox is a running engine with its simulator.
type Sandbox struct {
	Engine *engine.Engine
	Sim    *simulator.Sim
	Tenant string
	Client *sdk.Client // the tenant's, over the API's own socket
	Key    string      // the tenant's API key
	URL    string      // of the API
	Dir    string

	options   Options
	temporary bool
}

// SimulatorOptions returns how a simulator must run for the connectors that Connect makes.
func SimulatorOptions() simulator.Options {
	return simulator.Options{
		Password: Password, WhatsAppToken: WhatsAppToken, WhatsAppSecret: WhatsAppSecret, HookSecret: HookSecret,
	}
}

// Start runs an engine and a simulator, makes the tenant, its key and a connector per channel.
func Start(ctx context.Context, o Options) (_ *Sandbox, err error) {
	s := &Sandbox{Dir: o.Dir, Tenant: o.Tenant, options: o}
	if s.Tenant == "" {
		s.Tenant = "demo"
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if s.Dir == "" {
		if s.Dir, err = os.MkdirTemp("", "msgctl-"); err != nil {
			return nil, err
		}
		s.temporary = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	sim := SimulatorOptions()
	sim.SMPPAddr, sim.SMTPAddr, sim.HTTPAddr = o.SMPP, o.SMTP, o.HTTP
	sim.Clock, sim.Log, sim.ReceiptDelay = o.Clock, o.Logger, o.ReceiptDelay
	if s.Sim, err = simulator.Start(ctx, sim); err != nil {
		return nil, err
	}
	if err := s.startEngine(ctx, o.Listen); err != nil {
		return nil, err
	}
	s.URL = "http://" + s.Engine.Addr()
	if s.Key, err = s.signIn(ctx); err != nil {
		return nil, err
	}
	s.Client = sdk.New(sdk.WithURL(s.URL), sdk.WithKey(s.Key))
	return s, s.Connect(ctx)
}

func (s *Sandbox) startEngine(ctx context.Context, listen string) (err error) {
	o := s.options
	cfg := engine.Config{
		Dir: s.Dir, Listen: listen, AllowPrivate: true, Clock: o.Clock, Logger: o.Logger, Version: o.Version,
		Retry: o.Retry, RetryJitter: o.RetryJitter,
	}
	if o.Engine != nil {
		o.Engine(&cfg)
	}
	if s.Engine, err = engine.New(cfg, all.Kinds()...); err != nil {
		return err
	}
	return s.Engine.Start(ctx)
}

// Restart drains the engine and starts a new one on the same directory and address. The simulator goes on.
func (s *Sandbox) Restart(ctx context.Context) error {
	listen := s.Engine.Addr()
	if err := s.Engine.Close(); err != nil {
		return err
	}
	return s.startEngine(ctx, listen)
}

// Connect makes the connectors sim-sms, sim-whatsapp, sim-mail and sim-hook, and tells the simulator where the engine
// takes WhatsApp callbacks.
func (s *Sandbox) Connect(ctx context.Context) error {
	callback, err := Connect(ctx, s.Client, Addresses{SMPP: s.Sim.SMPPAddr(), SMTP: s.Sim.SMTPAddr(), HTTP: s.Sim.URL()}, s.URL)
	if err != nil {
		return err
	}
	s.Sim.SetWhatsAppCallback(callback)
	return nil
}

// Addresses are where a simulator listens.
type Addresses struct {
	SMPP, SMTP string // host:port
	HTTP       string // base URL
}

// Connect makes a connector per channel that leads to the simulator, for the client's tenant. It returns the callback
// URL to give to the simulator; engineURL is how the simulator reaches the engine.
func Connect(ctx context.Context, c *sdk.Client, at Addresses, engineURL string) (callback string, err error) {
	for name, r := range map[string]sdk.ConnectorRequest{
		"sim-sms": {Kind: "smpp", Settings: map[string]string{
			"addr": at.SMPP, "system_id": "sim-sms", "password": Password, "from": "msgctl",
		}},
		"sim-mail": {Kind: "smtp", Settings: map[string]string{
			"addr": at.SMTP, "from": "msgctl <news@sim.test>", "tls": "none", "username": "sim-mail", "password": Password,
		}},
		"sim-whatsapp": {Kind: "whatsapp", Settings: map[string]string{
			"base_url": at.HTTP, "phone_number_id": PhoneNumberID, "token": WhatsAppToken, "app_secret": WhatsAppSecret,
			"verify_token": VerifyToken,
		}},
		"sim-hook": {Kind: "webhook", Settings: map[string]string{"secret": HookSecret}},
	} {
		got, err := c.Connectors.Put(ctx, name, r)
		if err != nil {
			return "", fmt.Errorf("connector %s: %w", name, err)
		}
		if r.Kind == "whatsapp" {
			callback = strings.TrimSuffix(engineURL, "/") + "/v1/inbound/" + got.ID
		}
	}
	return callback, nil
}

// keyFile keeps the tenant's key, so that a sandbox that starts again in the same directory has the same one.
const keyFile = "tenant.key"

// signIn returns a key of the tenant, making tenant and key when this is the first start.
func (s *Sandbox) signIn(ctx context.Context) (string, error) {
	path := filepath.Join(s.Dir, s.Tenant+"."+keyFile)
	if b, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	operator, err := s.Engine.Client("")
	if err != nil {
		return "", err
	}
	if _, err := operator.Tenants.Create(ctx, sdk.TenantRequest{ID: s.Tenant, Name: s.Tenant}); err != nil && !errors.Is(err, sdk.ErrConflict) {
		return "", err
	}
	k, err := operator.Keys.Create(ctx, sdk.KeyRequest{Tenant: s.Tenant, Name: "sandbox", Mode: "test"})
	if err != nil {
		return "", err
	}
	return k.Secret, os.WriteFile(path, []byte(k.Secret+"\n"), 0o600)
}

// Operator returns the operator's client.
func (s *Sandbox) Operator() (*sdk.Client, error) { return s.Engine.Client("") }

// Close drains the engine, then stops the simulator. Safe twice.
func (s *Sandbox) Close() error {
	var errs []error
	if s.Engine != nil {
		errs = append(errs, s.Engine.Close())
	}
	if s.Sim != nil {
		errs = append(errs, s.Sim.Close())
	}
	if s.temporary {
		errs = append(errs, os.RemoveAll(s.Dir))
	}
	return errors.Join(errs...)
}
