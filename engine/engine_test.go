package engine_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// taker is a connector that takes everything.
type taker struct{}

func (taker) Send(_ context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	return delivery.Sent{ProviderID: m.ID.String()}, nil
}

func kind() connectors.Kind {
	return connectors.Kind{
		Name: "taker", Channel: delivery.SMS, Doc: "Takes everything.", Ambiguity: connectors.None,
		Settings: []connectors.Setting{{Key: "password", Type: connectors.Text, Secret: true, Doc: "A secret."}},
		Open:     func(*connectors.Account) (connectors.Connector, error) { return taker{}, nil },
	}
}

func TestStartAndShutdownInAnyOrder(t *testing.T) {
	ctx := context.Background()
	for name, calls := range map[string]func(e *engine.Engine) error{
		"never started": func(e *engine.Engine) error { return e.Close() },
		"closed twice": func(e *engine.Engine) error {
			if err := e.Start(ctx); err != nil {
				return err
			}
			if err := e.Close(); err != nil {
				return err
			}
			return e.Close()
		},
		"started twice": func(e *engine.Engine) error {
			if err := e.Start(ctx); err != nil {
				return err
			}
			if err := e.Start(ctx); err != nil {
				return err
			}
			return e.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := engine.New(engine.Config{Dir: t.TempDir()}, kind())
			require.NoError(t, err)
			require.NoError(t, calls(e))
		})
	}
}

func TestAClientWithoutASocket(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	open := func() (*engine.Engine, *sdk.Client) {
		e, err := engine.New(engine.Config{Dir: dir}, kind())
		require.NoError(t, err)
		require.NoError(t, e.Start(ctx))
		c, err := e.Client("acme")
		require.NoError(t, err)
		return e, c
	}
	e, c := open()
	_, err := c.Connectors.Put(ctx, "main", sdk.ConnectorRequest{Kind: "taker", Settings: map[string]string{"password": "canary-31415"}})
	require.NoError(t, err)
	m, err := c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)
	m, err = c.Messages.Wait(ctx, m.ID, sdk.Sent)
	require.NoError(t, err)
	require.Equal(t, "main", m.Connector)
	require.NoError(t, e.Close())

	e, c = open() // the same store, a new key
	again, err := c.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, sdk.Sent, again.Status)
	require.NoError(t, e.Close())
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NotContains(t, string(b), "canary-31415", "a secret in clear in %s", path)
		}
		return err
	}))
}

func TestAPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	e, err := engine.New(engine.Config{Dir: t.TempDir(), Listen: ln.Addr().String()})
	require.NoError(t, err)
	err = e.Start(context.Background())
	require.ErrorContains(t, err, ln.Addr().String())
	require.ErrorContains(t, err, "--listen")
	require.NoError(t, e.Close())
}

func TestReadConfig(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "engine.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	c, err := engine.ReadConfig(write("dir: /srv/msgctl\nretry: [1s, 1m]\nretry_jitter: 0\nlog: { level: debug }\n"))
	require.NoError(t, err)
	require.Equal(t, "/srv/msgctl", c.Dir)
	require.Equal(t, engine.DefaultListen, c.Listen)
	require.Equal(t, []time.Duration{time.Second, time.Minute}, c.Retry)
	require.Zero(t, *c.RetryJitter, "exact delays are not the default")
	for name, bad := range map[string]struct{ text, says string }{
		"unknown key":   {"dir: x\nlisen: 1\n", "lisen"},
		"wrong type":    {"dir: [x]\n", "dir"},
		"bad level":     {"log: { level: loud }\n", "log.level"},
		"bad format":    {"log: { format: xml }\n", "log.format"},
		"bad retry":     {"retry: [0s]\n", "retry"},
		"bad jitter":    {"retry_jitter: 1.5\n", "retry_jitter"},
		"no number":     {"retry_jitter: .nan\n", "retry_jitter"},
		"negative":      {"drain_timeout: -1s\n", "drain_timeout"},
		"short lease":   {"lease: 5ms\n", "lease"},
		"empty dir":     {"dir: \"\"\n", "dir"},
		"not yaml":      {"dir: {\n", "engine.yaml"},
		"key twice":     {"dir: a\ndir: b\n", "dir"},
		"wrong nesting": {"log: info\n", "log"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := engine.ReadConfig(write(bad.text))
			require.ErrorContains(t, err, bad.says)
		})
	}
	_, err = engine.ReadConfig(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorContains(t, err, "none.yaml")
	_, err = engine.ReadConfig(t.TempDir())
	require.ErrorContains(t, err, "is a directory")
	empty, err := engine.ReadConfig(write(""))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(empty.Listen, "127.0.0.1"))
}
