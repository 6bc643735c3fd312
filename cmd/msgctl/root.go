package main

import (
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The groups of commands, in the order the help shows them.
const (
	groupStart    = "start"
	groupSend     = "send"
	groupCampaign = "campaign"
	groupOperate  = "operate"
	groupOther    = "other"
)

func (a *app) root() *cobra.Command {
	a.shapes = map[*cobra.Command]reflect.Type{}
	root := &cobra.Command{
		Use:           "msgctl",
		Short:         "Send messages and campaigns, and see what became of each",
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkOutput(cmd) },
		RunE:              a.groupRun, Args: cobra.ArbitraryArgs,
		Long: "msgctl sends SMS, WhatsApp, e-mail and webhooks through an msgctl engine, runs\n" +
			"campaigns, and shows why each message is where it is.",
		Example: "  msgctl dev                                   # an engine and a simulator, here\n" +
			"  msgctl send sms +12025550100 \"Hello\" --wait   # in another window",
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.flags.output, "output", "o", "", "`FORMAT`: table, wide, json, yaml, jsonl, csv, name or id")
	f.StringVar(&a.flags.fields, "fields", "", "only these fields, `A,B`; bare, it lists them")
	f.StringVar(&a.flags.jq, "jq", "", "filter the JSON with a jq `EXPR`")
	f.StringVarP(&a.flags.context, "context", "c", "", "use the context `NAME`")
	f.StringVarP(&a.flags.tenant, "tenant", "t", "", "act for the tenant `ID` (operator's keys)")
	f.StringVar(&a.flags.url, "url", "", "the engine's `URL`")
	f.StringVar(&a.flags.keyFile, "key-file", "", "read the API key from `FILE`; - is stdin")
	f.BoolVarP(&a.flags.quiet, "quiet", "q", false, "say nothing but results and errors")
	f.BoolVarP(&a.flags.verbose, "verbose", "v", false, "say more")
	f.BoolVar(&a.flags.debug, "debug", false, "show HTTP requests, secrets masked")
	f.BoolVar(&a.flags.yes, "yes", false, "answer yes to every question")
	f.BoolVar(&a.flags.noInput, "no-input", false, "never ask")
	a.globals = map[string]bool{}
	f.VisitAll(func(f *pflag.Flag) { a.globals[f.Name] = true })

	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "START"}, &cobra.Group{ID: groupSend, Title: "SEND"},
		&cobra.Group{ID: groupCampaign, Title: "CAMPAIGN"}, &cobra.Group{ID: groupOperate, Title: "OPERATE"},
		&cobra.Group{ID: groupOther, Title: "OTHER"},
	)
	for _, g := range []struct {
		id   string
		cmds []*cobra.Command
	}{
		{groupStart, []*cobra.Command{a.initCmd(), a.devCmd(), a.simCmd(), a.doctorCmd(), a.whoamiCmd(), a.contextCmd()}},
		{groupSend, []*cobra.Command{a.sendCmd(), a.messageCmd(), a.tailCmd(), a.segmentsCmd()}},
		{groupCampaign, []*cobra.Command{a.campaignCmd(), a.audienceCmd(), a.templateCmd(), a.suppressCmd()}},
		{groupOperate, []*cobra.Command{
			a.connectorCmd(), a.routeCmd(), a.retryCmd(), a.dlqCmd(), a.receiptCmd(), a.tenantCmd(), a.keyCmd(), a.auditCmd(),
			a.clusterCmd(), a.migrateCmd(), a.backupCmd(), a.restoreCmd(),
			a.retainCmd(),
		}},
		{groupOther, []*cobra.Command{a.versionCmd()}},
	} {
		for _, c := range g.cmds {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(topics()...)
	root.SetHelpCommand(a.helpCmd())
	root.SetCompletionCommandGroupID(groupOther)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "Write a completion script for bash, zsh, fish or powershell"
		}
	}
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.help(cmd) })
	_ = root.RegisterFlagCompletionFunc("output", fixed(formats()...))
	_ = root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		c, err := a.loadConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.names(), cobra.ShellCompDirectiveNoFileComp
	})
	return root
}

// group makes a noun: a command that only holds verbs.
func (a *app) group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: a.groupRun}
	g.AddCommand(verbs...)
	return g
}

// groupRun shows the help of a noun, or refuses a verb it does not have.
func (a *app) groupRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		a.help(cmd)
		return nil
	}
	var known []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			known = append(known, c.Name())
			known = append(known, c.Aliases...)
		}
	}
	e := &usageError{
		what: fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+args[0]),
		fix:  "see: " + cmd.CommandPath() + " --help",
	}
	if n := nearest(args[0], known); n != "" {
		e.what += fmt.Sprintf("; did you mean %q?", cmd.CommandPath()+" "+n)
	}
	return e
}

// args checks the number of arguments, and names the missing one.
func (a *app) args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if a.flags.fields == "?" {
			return nil
		}
		see := "see: " + cmd.CommandPath() + " --help"
		need, many := 0, false
		for _, n := range names {
			if !strings.HasPrefix(n, "[") {
				need++
			}
			many = many || strings.HasSuffix(n, "…")
		}
		if len(args) < need {
			return &usageError{what: names[len(args)] + " is missing", fix: see}
		}
		if len(args) > len(names) && !many {
			return &usageError{what: fmt.Sprintf("one argument too many: %q", args[len(names)]), fix: see}
		}
		for i, v := range args {
			if v == "" && !strings.HasPrefix(names[min(i, len(names)-1)], "[") {
				return &usageError{what: names[min(i, len(names)-1)] + " is empty", fix: see}
			}
		}
		return nil
	}
}

// flagError explains a flag that cannot be.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	e := &usageError{what: err.Error(), fix: "see: " + cmd.CommandPath() + " --help"}
	name := ""
	if _, s, ok := strings.Cut(err.Error(), "unknown flag: --"); ok {
		name = s
	}
	switch {
	case slices.Contains([]string{"api-key", "key", "token", "password", "apikey"}, name):
		e.what = "there is no --" + name + ": other users of this machine could read it in the list of processes"
		e.fix = "MSGCTL_API_KEY, --key-file FILE, or: msgctl context set NAME --url URL"
	case name != "":
		e.what = "there is no flag --" + name
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if n := nearest(name, known); n != "" {
			e.what += "; did you mean --" + n + "?"
		}
	}
	return e
}

// fixed completes with a list of words.
func fixed(words ...string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// version is set at build time with -ldflags "-X main.version=…".
var version string

// release is what the build says of itself.
func release() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" && info.Main.Version != "(devel)" {
		v = info.Main.Version
	}
	if v == "" {
		return "dev"
	}
	return strings.TrimPrefix(v, "v")
}
