package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func connectorView() view {
	return view{
		cols: []string{"name", "kind", "channel", "state", "priority", "rate", "reason"},
		wide: []string{"id", "burst", "shared", "settings", "secrets", "callback_url", "created_at", "updated_at"},
		id:   "name", none: "no connectors; see: msgctl connector types",
	}
}

func oneConnector() view {
	v := connectorView()
	return view{cols: append(v.cols, v.wide...), id: "name"}
}

func (a *app) connectorCmd() *cobra.Command {
	return a.group("connector", "Connectors: accounts at providers",
		a.connectorTypes(), a.connectorAdd(), a.connectorLs(), a.connectorGet(), a.connectorTest(),
		a.connectorAct("pause", "Stop traffic through connectors", false),
		a.connectorAct("resume", "Let traffic through connectors again", true), a.connectorRm())
}

func (a *app) connectorTypes() *cobra.Command {
	cmd := &cobra.Command{
		Use: "types [KIND]", Short: "List kinds of connectors, or the settings of one", Args: a.args("[KIND]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			kinds, err := c.Connectors.Types(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return list(a, view{
					cols: []string{"name", "channel", "ambiguity", "receipts", "doc"}, wide: []string{"concurrency"}, id: "name",
				}, kinds)
			}
			k, err := kindOf(kinds, args[0])
			if err != nil {
				return err
			}
			if f := a.format(); f == "json" || f == "yaml" || f == "jsonl" || a.flags.jq != "" || a.flags.fields != "" {
				return a.object(view{cols: []string{"name"}, id: "name"}, k)
			}
			return list(a, view{cols: []string{"key", "type", "required", "secret", "default", "doc"}, id: "key"}, k.Settings)
		},
	}
	return a.shape(cmd, sdk.ConnectorType{})
}

func kindOf(kinds []sdk.ConnectorType, name string) (*sdk.ConnectorType, error) {
	names := make([]string, len(kinds))
	for i := range kinds {
		if names[i] = kinds[i].Name; names[i] == name {
			return &kinds[i], nil
		}
	}
	return nil, oneOf("kind", name, names)
}

// connectorFlags are the flags of connector add.
type connectorFlags struct {
	r           sdk.ConnectorRequest
	set         []string
	secretFiles []string
	secretStdin string
	rate        string
	replace     bool
}

func (a *app) connectorAdd() *cobra.Command {
	var s connectorFlags
	cmd := &cobra.Command{
		Use: "add NAME --kind KIND", Short: "Add a connector", Args: a.args("NAME"),
		Long: "Add a connector. Its settings are listed by: msgctl connector types KIND\n\n" +
			"Secrets are asked for on a terminal, or come from a file or stdin; never from an\n" +
			"argument, which other users of the machine could read.",
		Example: "  msgctl connector add alpha --kind smpp --set host=smsc.example.com \\\n" +
			"      --set system_id=acme --secret-file password=/run/secrets/alpha",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if s.r.Rate, err = perSecond(s.rate); err != nil {
				return err
			}
			if s.r.Kind == "" {
				return &usageError{what: "--kind is missing", fix: "see: msgctl connector types"}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			kinds, err := c.Connectors.Types(cmd.Context())
			if err != nil {
				return err
			}
			kind, err := kindOf(kinds, s.r.Kind)
			if err != nil {
				return err
			}
			old, err := c.Connectors.Get(cmd.Context(), args[0])
			if err != nil && !errors.Is(err, sdk.ErrNotFound) {
				return err
			}
			if err == nil && !s.replace && (!old.Shared || s.r.Shared) {
				return &outcomeError{
					code: exitConflict, what: fmt.Sprintf("the connector %q exists", args[0]),
					fix: "use another name, or --replace",
				}
			}
			if errors.Is(err, sdk.ErrNotFound) {
				old = nil
			}
			if s.r.Settings, err = a.settings(kind, &s, old); err != nil {
				return err
			}
			made, err := c.Connectors.Put(cmd.Context(), args[0], s.r)
			if err != nil {
				return err
			}
			a.say("next: msgctl connector test %s", args[0])
			return a.object(oneConnector(), made)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.r.Kind, "kind", "", "the `KIND`: see connector types")
	f.StringArrayVar(&s.set, "set", nil, "a setting that is no secret, `KEY=VALUE`; repeat it")
	f.StringArrayVar(&s.secretFiles, "secret-file", nil, "a secret from a file, `KEY=PATH`; repeat it")
	f.StringVar(&s.secretStdin, "secret-stdin", "", "the secret `KEY` from stdin")
	f.IntVar(&s.r.Priority, "priority", 0, "lower goes first, `N`")
	f.StringVar(&s.rate, "rate", "", "at most `N/s` for all who use it")
	f.Float64Var(&s.r.Burst, "burst", 0, "so many at once, `N`")
	f.BoolVar(&s.r.Shared, "shared", false, "operator: offer it to every tenant")
	f.BoolVar(&s.replace, "replace", false, "replace the one of this name")
	return a.shape(cmd, sdk.Connector{})
}

// settings collects and checks the settings of a kind. Secrets of old that are not given again stay as they are.
func (a *app) settings(kind *sdk.ConnectorType, s *connectorFlags, old *sdk.Connector) (map[string]string, error) {
	keys := make([]string, len(kind.Settings))
	secret := map[string]bool{}
	for i, k := range kind.Settings {
		keys[i], secret[k.Key] = k.Key, k.Secret
	}
	known := func(key string) error {
		if slices.Contains(keys, key) {
			return nil
		}
		return oneOf("setting of "+kind.Name, key, keys)
	}
	out := map[string]string{}
	for _, p := range s.set {
		k, v, ok := strings.Cut(p, "=")
		if !ok {
			return nil, &usageError{
				what: fmt.Sprintf("--set %q: has no =", clean(k)),
				fix:  "--set host=smsc.example.com",
			}
		}
		if err := known(k); err != nil {
			return nil, err
		}
		if secret[k] {
			return nil, &usageError{
				what: fmt.Sprintf("%s is a secret: an argument can be read by other users, and stands in the shell's history", k),
				fix:  fmt.Sprintf("--secret-file %s=PATH, --secret-stdin %s, or leave it out to be asked", k, k),
			}
		}
		out[k] = v
	}
	for _, p := range s.secretFiles {
		k, path, ok := strings.Cut(p, "=")
		if !ok || path == "" || path == "-" {
			return nil, &usageError{
				what: "--secret-file: needs KEY=PATH",
				fix:  "--secret-file password=/run/secrets/alpha",
			}
		}
		if err := known(k); err != nil {
			return nil, err
		}
		v, err := readSecret(path, nil)
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	if k := s.secretStdin; k != "" {
		if err := known(k); err != nil {
			return nil, err
		}
		v, err := readSecret("-", a.in)
		if err != nil {
			return nil, &usageError{what: fmt.Sprintf("--secret-stdin %s: stdin is empty or too long", k)}
		}
		out[k] = v
	}
	return out, a.askSettings(kind, out, old)
}

// askSettings asks for required settings that are missing, or names them all.
func (a *app) askSettings(kind *sdk.ConnectorType, out map[string]string, old *sdk.Connector) error {
	var missing []string
	for _, k := range kind.Settings {
		_, given := out[k.Key]
		kept := old != nil && old.Kind == kind.Name && slices.Contains(old.Secrets, k.Key)
		if given || !k.Required || k.Default != "" || kept {
			continue
		}
		v, err := "", errNoTerminal
		switch prompt := fmt.Sprintf("%s (%s): ", k.Key, k.Doc); {
		case k.Secret:
			v, err = a.askSecret(prompt)
		case a.inTTY && !a.flags.noInput:
			v, err = a.ask(prompt)
		}
		if err != nil && !errors.Is(err, errNoTerminal) {
			return err
		}
		if v == "" {
			how := "--set " + k.Key + "=…"
			if k.Secret {
				how = "--secret-file " + k.Key + "=PATH"
			}
			missing = append(missing, how)
			continue
		}
		out[k.Key] = v
	}
	if len(missing) > 0 {
		return &usageError{
			what: fmt.Sprintf("%s needs: %s", kind.Name, strings.Join(missing, ", ")),
			fix:  "see: msgctl connector types " + kind.Name,
		}
	}
	return nil
}

func (a *app) connectorLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List connectors", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Connectors.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, connectorView(), all)
		},
	}
	return a.shape(cmd, sdk.Connector{})
}

func (a *app) connectorGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a connector; never its secrets", Args: a.args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			got, err := c.Connectors.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.object(oneConnector(), got)
		},
	}
	return a.shape(cmd, sdk.Connector{})
}

// testRow is the result of one connector's test.
type testRow struct {
	Name string `json:"name"`
	sdk.ConnectorTest
}

func (a *app) connectorTest() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test NAME…", Short: "Log in at the provider without sending; exit 9 if it fails", Args: a.args("NAME…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			bad := 0
			err = each(a, args, view{cols: []string{"name", "ok", "seconds", "detail"}, id: "name"}, func(name string) (testRow, error) {
				got, err := c.Connectors.Test(cmd.Context(), name)
				if err != nil {
					return testRow{}, err
				}
				if !got.OK {
					bad++
				}
				return testRow{name, *got}, nil
			})
			if err == nil && bad > 0 {
				err = &outcomeError{code: exitUnmet, what: count(bad, "connector") + " failed the test"}
			}
			return err
		},
	}
	return cmd
}

func (a *app) connectorAct(verb, short string, resume bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " NAME…", Short: short, Args: a.args("NAME…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return each(a, args, connectorView(), func(name string) (*sdk.Connector, error) {
				if resume {
					return c.Connectors.Resume(cmd.Context(), name)
				}
				return c.Connectors.Pause(cmd.Context(), name)
			})
		},
	}
	return a.shape(cmd, sdk.Connector{})
}

func (a *app) connectorRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME…", Short: "Remove connectors", Args: a.args("NAME…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm("Remove " + strings.Join(args, ", ") + "? Messages that wait for it go another way, or wait."); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.remove(args, func(name string) error { return c.Connectors.Delete(cmd.Context(), name) })
		},
	}
}

// secretTo writes a secret to a new file that only its owner can read.
func secretTo(path, secret string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &usageError{what: "cannot write", err: err}
	}
	_, err = f.WriteString(secret + "\n")
	return errors.Join(err, f.Close())
}
