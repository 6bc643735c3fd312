package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/viper"

	"github.com/msgctl/msgctl/sdk"
)

// config is the file of contexts. It holds keys, so only its owner may read it.
type config struct {
	Current  string    `mapstructure:"current" yaml:"current,omitempty"`
	Contexts []contact `mapstructure:"contexts" yaml:"contexts,omitempty"`
}

// contact is a context: an engine and how to sign in there. A list, not a map: viper lower-cases map keys.
type contact struct {
	Name   string `mapstructure:"name" yaml:"name" json:"name"`
	URL    string `mapstructure:"url" yaml:"url" json:"url"`
	Tenant string `mapstructure:"tenant" yaml:"tenant,omitempty" json:"tenant,omitempty"`
	Key    string `mapstructure:"key" yaml:"key,omitempty" json:"-"`
}

func (c *config) find(name string) *contact {
	for i := range c.Contexts {
		if c.Contexts[i].Name == name {
			return &c.Contexts[i]
		}
	}
	return nil
}

func (c *config) names() []string {
	out := make([]string, 0, len(c.Contexts))
	for _, x := range c.Contexts {
		out = append(out, x.Name)
	}
	return out
}

// configPath is where the file of contexts is: MSGCTL_CONFIG, or msgctl/config.yaml in the user's folder.
func (a *app) configPath() (string, error) {
	if p := a.env("MSGCTL_CONFIG"); p != "" {
		return p, nil
	}
	if d := a.env("XDG_CONFIG_HOME"); d != "" {
		return filepath.Join(d, "msgctl", "config.yaml"), nil
	}
	home := a.env("HOME")
	if home == "" {
		home = a.env("USERPROFILE")
	}
	if home == "" {
		return "", &usageError{what: "there is no HOME to look for contexts in", fix: "set MSGCTL_CONFIG to a file"}
	}
	return filepath.Join(home, ".config", "msgctl", "config.yaml"), nil
}

// loadConfig reads the contexts; a file that is not there is an empty one.
func (a *app) loadConfig() (*config, error) {
	path, err := a.configPath()
	if err != nil {
		if a.env("MSGCTL_URL") != "" || a.flags.url != "" {
			return &config{}, nil
		}
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &config{}, nil
	}
	if err != nil {
		return nil, &usageError{what: "contexts", err: err}
	}
	if info.IsDir() {
		return nil, &usageError{what: path + ": is a directory", fix: "set MSGCTL_CONFIG to a file"}
	}
	if exposed(info) {
		return nil, &usageError{
			what: fmt.Sprintf("%s holds keys and others may read it (mode %04o)", path, info.Mode().Perm()),
			fix:  "chmod 600 " + path,
		}
	}
	v := viper.New()
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	if err := v.ReadInConfig(); err != nil {
		return nil, &usageError{
			what: path + " cannot be read: " + oneLine(err.Error()),
			fix:  "correct it, or remove it and start over with: msgctl context set NAME --url URL",
		}
	}
	c := &config{}
	if err := v.UnmarshalExact(c); err != nil {
		return nil, &usageError{
			what: path + ": " + oneLine(err.Error()),
			fix:  "known are: current, contexts with name, url, tenant, key",
		}
	}
	return c, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// saveConfig writes the contexts whole, or leaves the old file.
func (a *app) saveConfig(c *config) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return &usageError{what: "contexts", err: err}
	}
	return writeFile(path, append([]byte("# Written by msgctl context. It holds keys: keep it to yourself.\n"), b...), 0o600)
}

// writeFile writes a file beside its place and moves it there.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".msgctl-*")
	if err != nil {
		return &usageError{what: "cannot write", err: err}
	}
	name := f.Name()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		_ = os.Remove(name)
		return fmt.Errorf("cannot write: %w", err)
	}
	return nil
}

// target is which engine to talk to, and as whom.
type target struct {
	url, key, tenant, context string
}

// target resolves flags over environment over context. A context that was asked for by -c goes before the environment.
// The key of a context is for its own URL only: it is never sent to another one.
func (a *app) target() (target, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return target{}, err
	}
	name, asked := a.flags.context, a.flags.context != ""
	if !asked {
		if name = a.env("MSGCTL_CONTEXT"); name == "" {
			name = cfg.Current
		}
	}
	var ctx contact
	if name != "" {
		c := cfg.find(name)
		if c == nil {
			return target{}, noContext(cfg, name)
		}
		ctx = *c
	}
	t := target{url: ctx.URL, context: ctx.Name}
	if u := a.env("MSGCTL_URL"); u != "" && !asked {
		t.url = u
	}
	if a.flags.url != "" {
		t.url = a.flags.url
	}
	if t.url == "" {
		t.url = sdk.DefaultURL
	}
	if same := strings.TrimRight(t.url, "/") == strings.TrimRight(ctx.URL, "/"); same {
		t.key, t.tenant = ctx.Key, ctx.Tenant
	} else {
		t.context = ""
	}
	if k := a.env("MSGCTL_API_KEY"); k != "" && !(asked && t.key != "") {
		t.key = k
	}
	if a.flags.keyFile != "" {
		if t.key, err = readSecret(a.flags.keyFile, a.in); err != nil {
			return target{}, err
		}
	}
	if v := a.env("MSGCTL_TENANT"); v != "" && !asked {
		t.tenant = v
	}
	if a.flags.tenant != "" {
		t.tenant = a.flags.tenant
	}
	return t, nil
}

func noContext(cfg *config, name string) error {
	e := &usageError{what: fmt.Sprintf("there is no context %q", name), fix: "see: msgctl context ls"}
	if n := nearest(name, cfg.names()); n != "" {
		e.what += fmt.Sprintf("; did you mean %q?", n)
	}
	return e
}

// maxSecret bounds a file that holds one secret: a PEM key with its chain fits.
const maxSecret = 64 << 10

// readSecret reads a secret from a file, or from stdin for "-". The white space around it goes.
func readSecret(path string, in io.Reader) (string, error) {
	r := in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", &usageError{what: "secret", err: err}
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", &usageError{what: "secret", err: err}
	}
	s := strings.TrimSpace(string(b))
	if len(b) > maxSecret {
		return "", &usageError{what: path + ": is longer than a secret may be (64 KiB)"}
	}
	if s == "" {
		return "", &usageError{what: path + ": is empty"}
	}
	return s, nil
}
