package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func audienceView() view {
	return view{
		cols: []string{"name", "ready", "rows", "people", "left_out", "created_at"},
		wide: []string{"columns", "mapping", "rejected", "first"},
		id:   "name", none: "no audiences; make one: msgctl audience import people.csv",
	}
}

func (a *app) audienceCmd() *cobra.Command {
	return a.group("audience", "Audiences: people to write to, from CSV",
		a.audienceImport(), a.audienceLs(), a.audienceGet(), a.audienceSample(), a.audienceRejected(), a.audienceRm())
}

func (a *app) audienceImport() *cobra.Command {
	var (
		opt          sdk.ImportOptions
		name, format string
	)
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Make an audience of a CSV or JSON lines file", Args: a.args("FILE"),
		Long: "Make an audience of a CSV or JSON lines file; - is stdin.\n\n" +
			"The engine finds the columns of addresses by their names and by what is in them.\n" +
			"Rows without a usable address are left out and written to NAME.rejected.csv\n" +
			"beside the file, with the reason.",
		Example: "  msgctl audience import customers.csv --region IN\n" +
			"  zcat big.csv.gz | msgctl audience import - --name big --phone-col mobile",
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			if name == "" {
				if path == "-" {
					return &usageError{what: "rows from stdin need a name", fix: "--name NAME"}
				}
				name = audienceName(path)
			}
			switch {
			case format == "csv" || format == "" && !isLines(path):
				opt.Format = sdk.CSV
			case format == "" || format == "ndjson" || format == "jsonl":
				opt.Format = sdk.NDJSON
			default:
				return oneOf("format", format, []string{"csv", "jsonl"})
			}
			return a.importAudience(cmd.Context(), path, name, opt)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "call it `NAME`; default the file's name")
	f.StringVar(&opt.Phone, "phone-col", "", "the phone number is in column `C`")
	f.StringVar(&opt.Email, "email-col", "", "the mailbox is in column `C`")
	f.StringVar(&opt.URL, "url-col", "", "the webhook URL is in column `C`")
	f.StringVar(&opt.Channel, "channel-col", "", "the channel a person asks for is in column `C`")
	f.StringVar(&opt.Region, "region", "", "where numbers without + are from, such as `IN`")
	f.StringVar(&format, "format", "", "csv or jsonl; default by the file's name")
	return a.shape(cmd, sdk.Audience{})
}

// audienceName makes a name of a file's: "My Customers (1).csv" becomes my-customers-1.
func audienceName(path string) string {
	base := filepath.Base(path)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	words := strings.FieldsFunc(strings.ToLower(base), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_')
	})
	return strings.Trim(strings.Join(words, "-"), "_-")
}

func isLines(path string) bool {
	return slices.Contains([]string{".jsonl", ".ndjson", ".json"}, strings.ToLower(filepath.Ext(path)))
}

func (a *app) importAudience(ctx context.Context, path, name string, opt sdk.ImportOptions) error {
	src, size := a.in, int64(0)
	if path != "-" {
		f, err := openFile(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			if size = info.Size(); size == 0 {
				return &usageError{
					what: path + ": is empty",
					fix:  "the first line names the columns, such as: phone,first_name",
				}
			}
		}
		src = f
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	r, end := a.byteProgress(src, size, name)
	got, err := c.Audiences.Import(ctx, name, r, opt)
	end()
	if isConflict(err) {
		return fmt.Errorf("audience %q: use another --name, or remove it first: msgctl audience rm %s: %w", name, name, err)
	}
	if ctx.Err() != nil && err != nil {
		return &outcomeError{
			code: exitInterrupted, what: fmt.Sprintf("interrupted; the audience %q is not complete", name),
			fix: "msgctl audience rm " + name,
		}
	}
	if err != nil {
		return err
	}
	rejected := ""
	if got.Rejected {
		dir := "."
		if path != "-" {
			dir = filepath.Dir(path)
		}
		rejected = filepath.Join(dir, name+".rejected.csv")
		if err := saveRejected(ctx, c, name, rejected); err != nil {
			a.say("%s is not written: %s", rejected, fileError(err))
			rejected = ""
		}
	}
	if !a.human() {
		return a.object(audienceView(), got)
	}
	if _, err := fmt.Fprint(a.out, importText(got, rejected)); err != nil {
		return err
	}
	if got.People == 0 {
		return &outcomeError{
			code: exitFailed, what: "no row has a usable address",
			fix: "name the column: --phone-col, --email-col or --url-col",
		}
	}
	a.say("next: msgctl campaign new NAME --audience %s --template T", name)
	return nil
}

// importText says what became of the rows of an import.
func importText(got *sdk.Audience, rejected string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s   %s rows → %s", clean(got.Name), thousands(got.Rows), count(got.People, "person"))
	for _, k := range []string{"phone", "email", "url", "channel"} {
		if col := got.Mapping[k]; col != "" {
			fmt.Fprintf(&b, "   %s column %q", k, clean(col))
		}
	}
	b.WriteString("\n")
	if len(got.LeftOut) > 0 {
		fmt.Fprintf(&b, "  left out  %s", counts(got.LeftOut))
		if rejected != "" {
			fmt.Fprintf(&b, "  → %s", rejected)
		}
		b.WriteString("\n")
	}
	if got.First != "" {
		fmt.Fprintf(&b, "            first: %s\n", clean(got.First))
	}
	return b.String()
}

// saveRejected writes the rows that were left out, whole or not at all.
func saveRejected(ctx context.Context, c *sdk.Client, name, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".msgctl-*")
	if err != nil {
		return err
	}
	err = c.Audiences.Rejected(ctx, name, f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (a *app) audienceLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List audiences", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Audiences.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, audienceView(), all)
		},
	}
	return a.shape(cmd, sdk.Audience{})
}

func (a *app) audienceGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show an audience", Args: a.args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			got, err := c.Audiences.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := audienceView()
			return a.object(view{cols: append(v.cols, v.wide...), id: "name"}, got)
		},
	}
	return a.shape(cmd, sdk.Audience{})
}

func (a *app) audienceSample() *cobra.Command {
	limit := 10
	cmd := &cobra.Command{
		Use: "sample NAME", Short: "Show the first people of an audience", Args: a.args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > 1000 {
				return &usageError{what: fmt.Sprintf("--limit %d: 1 to 1000", limit)}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			people, err := c.Audiences.People(cmd.Context(), args[0], limit)
			if err != nil {
				return err
			}
			return list(a, view{cols: personKeys(people), none: "nobody"}, people)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 10, "at most `N`")
	return cmd
}

// personKeys are the columns of people: the keys of the first, in their order.
func personKeys(people []json.RawMessage) []string {
	var keys []string
	if len(people) == 0 {
		return []string{"phone", "email", "url"}
	}
	dec := json.NewDecoder(strings.NewReader(string(people[0])))
	if _, err := dec.Token(); err != nil {
		return nil
	}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return keys
		}
		name, _ := k.(string)
		keys = append(keys, name)
		var skip json.RawMessage
		if dec.Decode(&skip) != nil {
			return keys
		}
	}
	return keys
}

func (a *app) audienceRejected() *cobra.Command {
	out := "-"
	cmd := &cobra.Command{
		Use: "rejected NAME", Short: "Fetch the rows that were left out, as CSV", Args: a.args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if out == "-" {
				if a.outTTY {
					return c.Audiences.Rejected(cmd.Context(), args[0], cleanWriter{a.out})
				}
				return c.Audiences.Rejected(cmd.Context(), args[0], a.out)
			}
			if _, err := os.Stat(filepath.Dir(out)); errors.Is(err, fs.ErrNotExist) {
				return &usageError{what: "cannot write", err: err}
			}
			return saveRejected(cmd.Context(), c, args[0], out)
		},
	}
	cmd.Flags().StringVar(&out, "to", "-", "write to `FILE`; - is stdout")
	return cmd
}

// cleanWriter keeps foreign text from moving the cursor of a terminal.
type cleanWriter struct{ w io.Writer }

func (c cleanWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.w, cleanLines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (a *app) audienceRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME…", Short: "Remove audiences", Args: a.args("NAME…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm("Remove " + strings.Join(args, ", ") + "?"); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.remove(args, func(name string) error { return c.Audiences.Delete(cmd.Context(), name) })
		},
	}
}

// remove does away with several things and says which.
func (a *app) remove(names []string, do func(string) error) error {
	failed := 0
	for _, name := range names {
		err := do(name)
		if err != nil && len(names) == 1 {
			return err
		}
		if err != nil {
			failed++
			a.say("%s: %s", name, err.Error())
			continue
		}
		a.say("removed %s", name)
	}
	if failed > 0 {
		return &outcomeError{code: exitPartly, what: fmt.Sprintf("%d of %d failed", failed, len(names))}
	}
	return nil
}
