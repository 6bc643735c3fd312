package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/jonboulle/clockwork"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/msgctl/msgctl/broker"
)

// DefaultListen is where the server listens when nothing else is said.
const DefaultListen = "127.0.0.1:8020"

// minLease leaves a worker time to begin: below it every claim would run out in its queue.
const minLease = 100 * time.Millisecond

// Config says how an engine runs. The zero Config with a Dir is a good embedded engine that does not listen.
type Config struct {
	// Dir holds the database, unless Store names another, the master key, the attempt journal and rejected rows. It is made
	// when it is not there. No two engines share one; the master key is the same on all nodes of a cluster.
	Dir string `yaml:"dir"`
	// Listen is the address of the HTTP API; "" = only Handler and Client.
	Listen string `yaml:"listen"`
	// PublicURL is how providers reach the API for callbacks; "" = http://Listen.
	PublicURL string `yaml:"public_url"`
	// Store is the URL of the store: postgres://user:password@host/database, which several engines share; "" or sqlite: =
	// a file in Dir, which is this engine's alone.
	Store string `yaml:"store"`
	// Broker is the URL of the hint broker: amqp:// or amqps://; "" or memory: = in process.
	Broker string `yaml:"broker"`
	// Limits is the URL of what engines share rate limits through: redis:// or rediss://; "" or memory: = each keeps its own.
	Limits string `yaml:"limits"`
	// Node names this engine among those that share the store; "" = the name of the host. At most one process has a name.
	Node string `yaml:"node"`
	// Roles are what this node does for the others: api, deliver, schedule, webhook; empty = everything.
	Roles []string `yaml:"roles"`
	// Heartbeat is how long a node's sign of life holds; it gives one in every third of it. From 300 ms to 1 min; 0 = 3 s.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// AllowPrivate lets connectors reach loopback and private addresses and plain http. For development.
	AllowPrivate bool `yaml:"allow_private"`
	// Retry are the delays between attempts after temporary failures; the last one repeats until the message expires.
	// Empty = 5s, 30s, 5m, 30m, 2h.
	Retry []time.Duration `yaml:"retry"`
	// RetryJitter is the share of each of these delays that is drawn at random, 0–1: with 1 an attempt is made at any time
	// up to the delay, which spreads messages that failed together best; with 0 exactly after it. Unset = 1.
	RetryJitter *float64 `yaml:"retry_jitter"`
	// DrainTimeout bounds how long Shutdown waits for attempts under way; 0 = 30 s.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	// Lease is how long a worker may keep a message before it counts as lost, at least 100 ms; 0 = 1 min, and 10 s on a
	// store that is shared. It is never less than twice the longest timeout of a connector. For slow providers, and for
	// tests.
	Lease time.Duration `yaml:"lease"`
	// Admission bounds what the API takes on at once.
	Admission AdmissionConfig `yaml:"admission"`
	// Log says what is logged by a server; an embedder passes Logger instead.
	Log LogConfig `yaml:"log"`
	// Telemetry says where traces go.
	Telemetry TelemetryConfig `yaml:"telemetry"`

	Logger  *slog.Logger    `yaml:"-"` // nil = silent
	Clock   clockwork.Clock `yaml:"-"` // nil = the real one
	Version string          `yaml:"-"`
}

// AdmissionConfig bounds what the API takes on at once, so that an engine with too much to do stays fast at what it does
// and says so to the rest. Zero fields take the defaults.
type AdmissionConfig struct {
	// MaxConnections is how many connections the server has open at once; one more closes the one that has been idle for
	// longest. 0 = 2,048.
	MaxConnections int `yaml:"max_connections"`
	// MaxRequests is how many requests with a single message may be in progress at once; the number of others follows
	// from it. It falls by itself while the disk is slow. 0 = 640.
	MaxRequests int `yaml:"max_requests"`
	// MaxBodies is how many bytes of request bodies may be held at once, at least 16MiB; "" = 64MiB.
	MaxBodies string `yaml:"max_bodies"`
	// TargetDelay is how long writes may stand in front of the store before fewer single messages are taken. Fewer lists
	// and reports are taken from a twentieth of it, fewer batches from an eighth, fewer provider reports from the double.
	// 0 = 1 s.
	TargetDelay time.Duration `yaml:"target_delay"`
	// MinFree is what must be free on the file system of dir for messages to be accepted: a size such as 256MB, a share
	// such as 10%, or 0 for no check; "" = 5% or 256MB, whichever is more.
	MinFree string `yaml:"min_free"`
}

// LogConfig is the form of a server's log.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn or error
	Format string `yaml:"format"` // json (default) or text
}

// TelemetryConfig says where traces go. Without a receiver nothing is traced, and it costs nothing.
type TelemetryConfig struct {
	// OTLP is the URL of a receiver of OpenTelemetry traces, OTLP over HTTP, such as http://localhost:4318; "" = none.
	OTLP string `yaml:"otlp"`
	// Sample is the share of messages that are traced, 0–1, the same on all nodes; unset = 1. Messages of callers that
	// record a trace of their own are traced beyond it, up to 100 a second.
	Sample *float64 `yaml:"sample"`

	// Exporter takes spans instead of OTLP. The engine shuts it down.
	Exporter sdktrace.SpanExporter `yaml:"-"`
}

// ReadConfig reads a YAML file over the server's defaults. Unknown keys are refused, with the line they stand in.
func ReadConfig(path string) (Config, error) {
	c := Config{Dir: "./data", Listen: DefaultListen}
	if path == "" {
		return c, nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return c, fmt.Errorf("configuration: %s is a directory: name a YAML file", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	with := c
	err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&with)
	if errors.Is(err, io.EOF) { // nothing but comments
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, configError(text, err))
	}
	return with, with.Check()
}

// Check reports the first value that cannot be used.
func (c *Config) Check() error {
	if c.Dir == "" {
		return errors.New("configuration: dir is empty: name the directory that holds the database")
	}
	for _, d := range c.Retry {
		if d <= 0 {
			return fmt.Errorf("configuration: retry: %s is not a delay: use values such as 5s or 30m", d)
		}
	}
	if j := c.RetryJitter; j != nil && !(*j >= 0 && *j <= 1) { // not a number is neither
		return fmt.Errorf("configuration: retry_jitter: %v is not a share: use a number from 0 to 1", *j)
	}
	if c.DrainTimeout < 0 {
		return fmt.Errorf("configuration: drain_timeout: %s is negative", c.DrainTimeout)
	}
	if c.Lease != 0 && c.Lease < minLease {
		return fmt.Errorf("configuration: lease: %s is too short: use at least %s", c.Lease, minLease)
	}
	if err := c.Admission.check(); err != nil {
		return err
	}
	if err := c.checkCluster(); err != nil {
		return err
	}
	if err := c.Telemetry.check(); err != nil {
		return err
	}
	if _, err := c.Log.level(); err != nil {
		return err
	}
	if c.Log.Format != "" && c.Log.Format != "json" && c.Log.Format != "text" {
		return fmt.Errorf("configuration: log.format: %q is unknown: use json or text", c.Log.Format)
	}
	return nil
}

func (l LogConfig) level() (slog.Level, error) {
	var level slog.Level
	if l.Level == "" {
		return level, nil
	}
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return level, fmt.Errorf("configuration: log.level: %q is unknown: use debug, info, warn or error", l.Level)
	}
	return level, nil
}

// ServerLog makes the logger that the configuration describes.
func (c *Config) ServerLog(w *os.File) *slog.Logger {
	level, _ := c.Log.level()
	opt := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opt))
	}
	return slog.New(slog.NewJSONHandler(w, opt))
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clockwork.NewRealClock()
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.Admission.MaxConnections == 0 {
		c.Admission.MaxConnections = defaultConnections
	}
	if c.Broker == "" {
		c.Broker = broker.Memory
	}
	if c.Node == "" {
		c.Node, _ = os.Hostname() // Check has seen that there is one where it matters
	}
	if c.Lease == 0 && c.shared() {
		c.Lease = clusterLease
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return c
}

// String returns the configuration as YAML, as it would be used, without passwords.
func (c Config) String() string {
	for _, raw := range []*string{&c.Store, &c.Broker, &c.Limits} {
		*raw = redacted(*raw)
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return err.Error() + "\n"
	}
	return string(b)
}
