package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func suppressView() view {
	return view{cols: []string{"to", "channel", "reason", "source", "at"}, id: "to", none: "nobody is suppressed"}
}

func (a *app) suppressCmd() *cobra.Command {
	return a.group("suppress", "Suppressions: addresses that must not be written to",
		a.suppressAdd(), a.suppressLs(), a.suppressCheck(), a.suppressRm(), a.suppressImport())
}

func channelFlag(cmd *cobra.Command, to *string, what string) {
	cmd.Flags().StringVar(to, "channel", "", what)
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
}

func checkChannel(s string) error {
	if s == "" {
		return nil
	}
	return oneOf("channel", s, channels())
}

func (a *app) suppressAdd() *cobra.Command {
	var channel, reason string
	cmd := &cobra.Command{
		Use: "add ADDRESS…", Short: "Write to these no more", Args: a.args("ADDRESS…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkChannel(channel); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			rows := make([]sdk.Suppression, len(args))
			for i, to := range args {
				rows[i] = sdk.Suppression{Channel: sdk.Channel(channel), To: to, Reason: reason, Source: "msgctl"}
			}
			if len(rows) == 1 {
				err = c.Suppressions.Add(cmd.Context(), rows[0])
			} else {
				err = c.Suppressions.AddAll(cmd.Context(), rows)
			}
			if err == nil {
				a.say("suppressed %s", strings.Join(args, ", "))
			}
			return err
		},
	}
	channelFlag(cmd, &channel, "only on this `CHANNEL`; default on all")
	cmd.Flags().StringVar(&reason, "reason", "", "why, `TEXT`")
	return cmd
}

func (a *app) suppressLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List suppressions", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			w, err := a.writer(suppressView())
			if err != nil {
				return err
			}
			for s, err := range c.Suppressions.All(cmd.Context()) {
				if err != nil {
					return err
				}
				if err := w.add(s); err != nil {
					return err
				}
			}
			return w.end()
		},
	}
	return a.shape(cmd, sdk.Suppression{})
}

func (a *app) suppressCheck() *cobra.Command {
	var channel string
	cmd := &cobra.Command{
		Use: "check ADDRESS", Short: "Say whether an address is suppressed; exit 3 if it is not", Args: a.args("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkChannel(channel); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			s, err := c.Suppressions.Check(cmd.Context(), sdk.Channel(channel), args[0])
			if errors.Is(err, sdk.ErrNotFound) {
				return &outcomeError{code: exitNotFound, what: args[0] + " is not suppressed"}
			}
			if err != nil {
				return err
			}
			return a.object(suppressView(), s)
		},
	}
	channelFlag(cmd, &channel, "on this `CHANNEL`")
	return a.shape(cmd, sdk.Suppression{})
}

func (a *app) suppressRm() *cobra.Command {
	var channel string
	cmd := &cobra.Command{
		Use: "rm ADDRESS…", Short: "Let these be written to again", Args: a.args("ADDRESS…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkChannel(channel); err != nil {
				return err
			}
			if err := a.confirm("Write to " + strings.Join(args, ", ") + " again? Only with their consent."); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.remove(args, func(to string) error {
				return c.Suppressions.Delete(cmd.Context(), sdk.Channel(channel), to)
			})
		},
	}
	channelFlag(cmd, &channel, "only on this `CHANNEL`")
	return cmd
}

func (a *app) suppressImport() *cobra.Command {
	var channel, reason string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Suppress the addresses of a file", Args: a.args("FILE"),
		Long: "Suppress the addresses of a file: one a line, or CSV with a header that names a\n" +
			"column \"to\" and, if you like, \"channel\" and \"reason\". - is stdin.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkChannel(channel); err != nil {
				return err
			}
			in := a.in
			if args[0] != "-" {
				f, err := openFile(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			n := 0
			base := sdk.Suppression{Channel: sdk.Channel(channel), Reason: reason, Source: "msgctl import"}
			err = readSuppressions(in, args[0], base, func(rows []sdk.Suppression) error {
				if err := c.Suppressions.AddAll(cmd.Context(), rows); err != nil {
					return fmt.Errorf("%s, from address %d on: %w", args[0], n+1, err)
				}
				n += len(rows)
				return nil
			})
			if n > 0 || err == nil {
				a.say("suppressed %s addresses", thousands(n))
			}
			return err
		},
	}
	channelFlag(cmd, &channel, "only on this `CHANNEL`; default on all")
	cmd.Flags().StringVar(&reason, "reason", "", "why, `TEXT`")
	return cmd
}

// readSuppressions gives the addresses of a file in slices of at most 1,000.
func readSuppressions(in io.Reader, name string, base sdk.Suppression, give func([]sdk.Suppression) error) error {
	cr := csv.NewReader(bufio.NewReader(in))
	cr.FieldsPerRecord = -1
	cr.TrimLeadingSpace = true
	var rows []sdk.Suppression
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		err := give(rows)
		rows = rows[:0]
		return err
	}
	var cols []string
	for first := true; ; first = false {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return errors.Join(&usageError{what: name, err: err}, flush())
		}
		if first {
			rec[0] = strings.TrimPrefix(rec[0], "\ufeff")
			if cols = header(rec); cols != nil {
				continue
			}
		}
		s := base
		for i, v := range rec {
			if v = strings.TrimSpace(v); v == "" {
				continue
			}
			switch col := column(cols, i); col {
			case "to":
				s.To = v
			case "channel":
				s.Channel = sdk.Channel(v)
			case "reason":
				s.Reason = v
			}
		}
		if s.To == "" {
			line, _ := cr.FieldPos(0)
			return errors.Join(&usageError{what: fmt.Sprintf("%s line %d: there is no address", name, line)}, flush())
		}
		if rows = append(rows, s); len(rows) == 1000 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// header returns the names of the columns when a record names them, one of them "to".
func header(rec []string) []string {
	out := make([]string, len(rec))
	found := false
	for i, v := range rec {
		out[i] = strings.ToLower(strings.TrimSpace(v))
		found = found || out[i] == "to"
	}
	if !found {
		return nil
	}
	return out
}

func column(cols []string, i int) string {
	if cols == nil && i == 0 {
		return "to"
	}
	if i < len(cols) {
		return cols[i]
	}
	return ""
}
