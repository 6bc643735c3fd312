package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func keyView() view {
	return view{
		cols: []string{"id", "name", "tenant", "mode", "admin", "hint", "created_at", "revoked_at"}, id: "id", none: "no keys",
	}
}

func (a *app) keyCmd() *cobra.Command {
	return a.group("key", "API keys: create, list, revoke", a.keyCreate(), a.keyLs(), a.keyRevoke())
}

func (a *app) keyCreate() *cobra.Command {
	var (
		r    sdk.KeyRequest
		file string
	)
	cmd := &cobra.Command{
		Use: "create", Short: "Make a key; it is shown once", Args: a.args(),
		Example: "  msgctl key create --name shop --mode live --to-file shop.key\n  msgctl key create -t acme --name first",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("mode", r.Mode, []string{"live", "test"}); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			k, err := c.Keys.Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			if file != "" {
				if err := secretTo(file, k.Secret); err != nil {
					a.say("the key %s was made and is kept nowhere; revoke it: msgctl key revoke %s", k.ID, k.ID)
					return err
				}
				k.Secret = ""
			} else {
				a.say("keep the secret now: it is not shown again")
			}
			v := keyView()
			return a.object(view{cols: append([]string{"secret"}, v.cols...), id: "id"}, k)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Name, "name", "", "what it is for, `TEXT`")
	f.StringVar(&r.Mode, "mode", "test", "`MODE`: live or test")
	f.BoolVar(&r.Admin, "admin", false, "an operator's key (operators)")
	f.StringVar(&file, "to-file", "", "write the secret to a new `FILE` instead of showing it")
	_ = cmd.RegisterFlagCompletionFunc("mode", fixed("live", "test"))
	return a.shape(cmd, sdk.Key{})
}

func (a *app) keyLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List keys; never their secrets", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Keys.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, keyView(), all)
		},
	}
	return a.shape(cmd, sdk.Key{})
}

func (a *app) keyRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID…", Short: "End keys at once", Args: a.args("ID…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm("Revoke " + strings.Join(args, ", ") + "? Programs that use it stop working."); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.remove(args, func(id string) error { return c.Keys.Revoke(cmd.Context(), id) })
		},
	}
}
