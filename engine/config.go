package engine

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/broker"
)

// DefaultListen is where the server listens when nothing else is said.
const DefaultListen = "127.0.0.1:8020"

// Config says how an engine runs. The zero Config with a Dir is a good embedded engine that does not listen.
type Config struct {
	// Dir holds the database, the master key, the attempt journal and rejected rows. It is made when it is not there.
	Dir string `yaml:"dir"`
	// Listen is the address of the HTTP API; "" = only Handler and Client.
	Listen string `yaml:"listen"`
	// PublicURL is how providers reach the API for callbacks; "" = http://Listen.
	PublicURL string `yaml:"public_url"`
	// Broker is the URL of the hint broker; "" = in process.
	Broker string `yaml:"broker"`
	// AllowPrivate lets connectors reach loopback and private addresses and plain http. For development.
	AllowPrivate bool `yaml:"allow_private"`
	// Retry are the delays between attempts after temporary failures; the last one repeats until the message expires.
	// Empty = 5s, 30s, 5m, 30m, 2h.
	Retry []time.Duration `yaml:"retry"`
	// DrainTimeout bounds how long Shutdown waits for attempts under way; 0 = 30 s.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	// Log says what is logged by a server; an embedder passes Logger instead.
	Log LogConfig `yaml:"log"`

	Logger  *slog.Logger    `yaml:"-"` // nil = silent
	Clock   clockwork.Clock `yaml:"-"` // nil = the real one
	Version string          `yaml:"-"`
}

// LogConfig is the form of a server's log.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn or error
	Format string `yaml:"format"` // json (default) or text
}

// ReadConfig reads a YAML file over the server's defaults. Unknown keys are refused, with the line they stand in.
func ReadConfig(path string) (Config, error) {
	c := Config{Dir: "./data", Listen: DefaultListen}
	if path == "" {
		return c, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return c, fmt.Errorf("configuration: %s is a directory: name a YAML file", path)
	}
	with := c
	err = yaml.NewDecoder(f, yaml.Strict()).Decode(&with)
	if errors.Is(err, io.EOF) { // nothing but comments
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("configuration %s:\n%s", path, yaml.FormatError(err, false, true))
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
	if c.DrainTimeout < 0 {
		return fmt.Errorf("configuration: drain_timeout: %s is negative", c.DrainTimeout)
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
	if c.Broker == "" {
		c.Broker = broker.Memory
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return c
}

// String returns the configuration as YAML, as it would be used.
func (c Config) String() string {
	b, err := yaml.Marshal(c)
	if err != nil {
		return err.Error() + "\n"
	}
	return string(b)
}
