package main

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"

	"github.com/spf13/cobra"
)

// contextRow is a context as it is shown: never with its key.
type contextRow struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Tenant  string `json:"tenant,omitempty"`
	Key     string `json:"key,omitempty"` // masked
	Current bool   `json:"current"`
}

func (a *app) contextCmd() *cobra.Command {
	return a.group("context", "Contexts: engines and how to sign in to them",
		a.contextLs(), a.contextUse(), a.contextSet(), a.contextRm())
}

func (a *app) completeContexts(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return c.names(), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) contextLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List contexts", Args: a.args(),
		RunE: func(*cobra.Command, []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			rows := make([]contextRow, 0, len(c.Contexts))
			for _, x := range c.Contexts {
				rows = append(rows, rowOf(c, x))
			}
			return list(a, view{
				cols: []string{"current", "name", "url", "tenant", "key"}, id: "name",
				none: "no contexts; make one: msgctl context set NAME --url URL",
			}, rows)
		},
	}
	return a.shape(cmd, contextRow{})
}

func rowOf(c *config, x contact) contextRow {
	r := contextRow{Name: x.Name, URL: x.URL, Tenant: x.Tenant, Current: x.Name == c.Current}
	if x.Key != "" {
		r.Key = masked(x.Key)
	}
	return r
}

func (a *app) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: a.args("NAME"), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			if c.find(args[0]) == nil {
				return noContext(c, args[0])
			}
			c.Current = args[0]
			if err := a.saveConfig(c); err != nil {
				return err
			}
			a.say("context %q", args[0])
			return nil
		},
	}
}

// contextName is what a context may be called: it is typed, and stands in a file.
const contextName = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`

func (a *app) contextSet() *cobra.Command {
	var noKey bool
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make or change a context, and make it the current one", Args: a.args("NAME"),
		Long: "Make or change a context, and make it the current one. The key is read from\n" +
			"--key-file (- is stdin), or asked for on a terminal. It is kept in the file of\n" +
			"contexts, which only you can read.",
		Example: "  msgctl context set prod --url https://msg.example.com --key-file prod.key\n" +
			"  msgctl context set ops -t acme",
		ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if ok, _ := regexp.MatchString(contextName, name); !ok {
				return &usageError{
					what: fmt.Sprintf("%q cannot be a context's name", clean(name)),
					fix:  "1 to 64 letters, digits, dots, hyphens or underscores",
				}
			}
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			old := c.find(name)
			x := contact{Name: name}
			if old != nil {
				x = *old
			}
			if u := a.flags.url; u != "" {
				if p, err := url.Parse(u); err != nil || p.Scheme != "http" && p.Scheme != "https" || p.Host == "" || p.User != nil {
					return &usageError{
						what: fmt.Sprintf("--url %q: needs http:// or https:// and a host", clean(u)),
						fix:  "such as https://msg.example.com",
					}
				}
				if x.URL != u {
					x.Key = "" // the key was for the other engine
				}
				x.URL = u
			}
			if x.URL == "" {
				return &usageError{what: "--url is missing", fix: "msgctl context set " + name + " --url URL"}
			}
			if a.flags.tenant != "" {
				x.Tenant = a.flags.tenant
			}
			switch {
			case noKey:
				x.Key = ""
			case a.flags.keyFile != "":
				if x.Key, err = readSecret(a.flags.keyFile, a.in); err != nil {
					return err
				}
			case x.Key == "" && a.inTTY && !a.flags.noInput:
				if x.Key, err = a.askSecret("API key (mk_…, empty for none): "); err != nil {
					return err
				}
			}
			if old != nil {
				*old = x
			} else {
				c.Contexts = append(c.Contexts, x)
			}
			c.Current = name
			if err := a.saveConfig(c); err != nil {
				return err
			}
			if x.Key == "" {
				a.say("the context has no key yet: msgctl context set %s --key-file FILE", name)
			}
			return a.object(view{cols: []string{"name", "url", "tenant", "key", "current"}, id: "name"}, rowOf(c, x))
		},
	}
	cmd.Flags().BoolVar(&noKey, "no-key", false, "forget the key")
	return a.shape(cmd, contextRow{})
}

func (a *app) contextRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME…", Short: "Forget contexts and their keys", Args: a.args("NAME…"), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			for _, name := range args {
				if c.find(name) == nil {
					return noContext(c, name)
				}
				c.Contexts = slices.DeleteFunc(c.Contexts, func(x contact) bool { return x.Name == name })
				if c.Current == name {
					c.Current = ""
				}
			}
			if err := a.saveConfig(c); err != nil {
				return err
			}
			for _, name := range args {
				a.say("removed %s", name)
			}
			return nil
		},
	}
}
