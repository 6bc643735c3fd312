package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is how wide help may be: the narrowest terminal in use.
const helpWidth = 80

// help prints the help of a command on stdout.
func (a *app) help(cmd *cobra.Command) {
	var b strings.Builder
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(&b, "%s\n", text)
	if cmd.IsAdditionalHelpTopicCommand() {
		_, _ = fmt.Fprint(a.out, b.String())
		return
	}
	use := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		use = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(&b, "\n%s\n  %s\n", a.paint(bold, "USAGE"), strings.ReplaceAll(use, " [flags]", ""))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "  also: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\n%s\n%s\n", a.paint(bold, "EXAMPLES"), cmd.Example)
	}
	a.helpCommands(&b, cmd)
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	own.SortFlags = cmd.Flags().SortFlags
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && !a.globals[f.Name] {
			own.AddFlag(f)
		}
	})
	if own.HasFlags() {
		fmt.Fprintf(&b, "\n%s\n%s", a.paint(bold, "FLAGS"),
			// pflag shows what a flag means that stands without its value; the value itself is of more use.
			strings.ReplaceAll(own.FlagUsagesWrapped(helpWidth), ` STATUS[="best"]`, `[=STATUS]       `))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, "\nFlags of every command: msgctl --help\n")
	} else {
		fmt.Fprintf(&b, "\n%s\n%s", a.paint(bold, "FLAGS OF EVERY COMMAND"), cmd.PersistentFlags().FlagUsagesWrapped(helpWidth))
	}
	_, _ = fmt.Fprint(a.out, b.String())
}

// helpCmd is "msgctl help".
func (a *app) helpCmd() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | TOPIC]", Short: "Show the help of a command or a topic", GroupID: groupOther,
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) == 0 {
				a.help(found)
				return nil
			}
			var known []string
			for _, c := range cmd.Root().Commands() {
				known = append(known, c.Name())
			}
			e := &usageError{
				what: fmt.Sprintf("there is no help on %q", strings.Join(args, " ")),
				fix:  "see: msgctl --help",
			}
			if n := nearest(args[0], known); n != "" {
				e.what += fmt.Sprintf("; did you mean %q?", "msgctl help "+n)
			}
			return e
		},
	}
}

func (a *app) helpCommands(b *strings.Builder, cmd *cobra.Command) {
	line := func(c *cobra.Command) { fmt.Fprintf(b, "  %-11s %s\n", c.Name(), c.Short) }
	if len(cmd.Groups()) == 0 {
		if cmd.HasAvailableSubCommands() {
			fmt.Fprintf(b, "\n%s\n", a.paint(bold, "COMMANDS"))
		}
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				line(c)
			}
		}
		return
	}
	for _, g := range cmd.Groups() {
		fmt.Fprintf(b, "\n%s\n", a.paint(bold, g.Title))
		for _, c := range cmd.Commands() {
			if c.GroupID == g.ID && (c.IsAvailableCommand() || c.Name() == "help") {
				line(c)
			}
		}
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAdditionalHelpTopicCommand() {
			names = append(names, c.Name())
		}
	}
	fmt.Fprintf(b, "\n%s  (msgctl help TOPIC)\n  %s\n", a.paint(bold, "TOPICS"), strings.Join(names, " "))
}

// topics are help pages without a command.
func topics() []*cobra.Command {
	topic := func(name, short, long string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: strings.TrimSpace(long)}
	}
	return []*cobra.Command{
		topic("environment", "Variables that msgctl reads", `
Variables that msgctl reads

  MSGCTL_URL        the engine's address; default http://127.0.0.1:8020
  MSGCTL_API_KEY    the API key; there is no flag for it, because other users of
                    a machine can read what a program was started with
  MSGCTL_TENANT     the tenant that an operator's key acts for
  MSGCTL_CONTEXT    the context to use
  MSGCTL_OUTPUT     the output format, as -o
  MSGCTL_CONFIG     the file of contexts; default ~/.config/msgctl/config.yaml
  NO_COLOR          no colour, when set to anything

A flag goes before a variable, a variable before a context. A context that -c
names goes before variables. The key of a context is sent to that context's URL
and nowhere else.`),
		topic("exit-codes", "What the exit code says", `
What the exit code says

    0  done
    1  failed
    2  wrong usage or invalid input
    3  not found
    4  sign-in needed: no key, a wrong one, or one that may not do this
    5  conflict: the thing is in another state, or exists already
    6  a limit or quota was reached
    7  the engine could not be reached, or time ran out
    8  partly done: some rows or ids of a bulk command were refused or skipped
    9  an expectation was not met: wait, audit, doctor, campaign check
  130  interrupted; what runs in the engine goes on`),
		topic("formatting", "Output for people and for programs", `
Output for people and for programs

  -o table   columns; in a pipe, tab separated with a header and no colour
  -o wide    more columns
  -o json    one document; the keys are those of the API
  -o jsonl   one document a line, as they come
  -o yaml    the same as YAML
  -o csv     every column, with a header; a cell that a spreadsheet would take
             for a formula gets an apostrophe in front
  -o name    only the names      -o id   only the ids

  --fields id,status,fact.code   only these; a bare --fields lists what there is
  --jq '.[] | .id'               filter the JSON; strings come out bare

With -o json an error is a problem document on stderr (RFC 9457).

  msgctl message ls --status failed -o id | xargs -n1 msgctl message explain`),
		topic("sim-outcomes", "Recipients that make the simulator act", `
Recipients that make the simulator act

Phones +1 NXX 555 01nn, any area code NXX. The last two digits decide:

  00 delivered                    01 delivered after 5 minutes
  02 delivered, then read         10 two temporary errors, then delivered
  11 temporary errors for ever    12 throttled for 30 s, then delivered
  20 unknown subscriber           21 not on WhatsApp
  22 absent                       23 blocked
  30 taken, and the answer lost   31 receipt twice
  32 receipts out of order        33 no receipt
  34 receipt before the answer    40 replies STOP
  41 replies YES                  anyone else: delivered

Mail: delivered, delayed, softbounce, hardbounce, complaint, timeout, 4n or 5n,
with or without +label, at sim.test.
Hooks: /sim/hook/200, 500, timeout, gone, flaky.`),
		topic("idempotency", "Sending again without sending twice", `
Sending again without sending twice

Every send carries a key. When an answer is lost, msgctl asks again with the
same key, and the engine answers what it answered first: the message is accepted
once.

  msgctl send sms +12025550100 "Hi" --idempotency-key order-4711

does so across runs of your script: within 72 hours the same key and the same
content make no second message, and the same key with other content is refused.

  msgctl send --file rows.csv

names its run. After an interruption, --resume RUN with the same file goes on
without accepting a row twice.`),
	}
}
