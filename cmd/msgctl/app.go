package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/msgctl/msgctl/sdk"
)

// app is one run of the program: its streams, its environment and what the flags said.
type app struct {
	in                    io.Reader
	out, err              io.Writer
	inTTY, outTTY, errTTY bool
	width                 int // columns of the terminal
	env                   func(string) string
	now                   func() time.Time
	sleep                 func(ctx context.Context, d time.Duration) error

	flags   globals
	globals map[string]bool // names of the flags that every command has
	shapes  map[*cobra.Command]reflect.Type
	clients []*sdk.Client
	tuning  []sdk.Option // of every client
}

// globals are the flags of every command.
type globals struct {
	output, fields, jq                  string
	context, tenant, url, keyFile       string
	quiet, verbose, debug, yes, noInput bool
}

// errDone ends a command early and well.
var errDone = errors.New("done")

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, err io.Writer, env func(string) string) int {
	a := &app{
		in: in, out: out, err: err, env: env, now: time.Now, sleep: pause, width: 80,
		inTTY: terminal(in), outTTY: terminal(out), errTTY: terminal(err),
	}
	if _, ok := in.(*os.File); ok {
		a.in = &interruptible{ctx: ctx, r: in}
	}
	if f, ok := out.(*os.File); ok && a.outTTY {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			a.width = w
		}
	}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(bareFields(args))
	cmd, err := root.ExecuteContextC(ctx)
	for _, c := range a.clients {
		c.Close()
	}
	if err == nil || errors.Is(err, errDone) {
		return exitOK
	}
	return a.report(ctx, cmd, args, err)
}

// bareFields lets --fields stand without a value, to list what it may name.
func bareFields(args []string) []string {
	out := make([]string, 0, len(args))
	for i, s := range args {
		if s == "--" {
			return append(out, args[i:]...)
		}
		if s == "--fields" && (i+1 == len(args) || strings.HasPrefix(args[i+1], "-")) {
			s = "--fields=?"
		}
		out = append(out, s)
	}
	return out
}

func terminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// client makes an SDK client of the engine and the key that flags, environment and context name.
func (a *app) client() (*sdk.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	opts := []sdk.Option{
		sdk.WithURL(t.url), sdk.WithKey(t.key), sdk.WithTenant(t.tenant), sdk.WithUserAgent("msgctl/" + release()),
	}
	if a.flags.debug {
		rt := http.DefaultTransport.(*http.Transport).Clone()
		opts = append(opts, sdk.WithHTTPClient(&http.Client{
			Transport:     &debugTransport{next: rt, w: a.err},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}))
	}
	c := sdk.New(append(opts, a.tuning...)...)
	a.clients = append(a.clients, c)
	return c, nil
}

// say writes a line for a person to stderr, unless -q.
func (a *app) say(format string, args ...any) {
	if !a.flags.quiet {
		_, _ = fmt.Fprintf(a.err, format+"\n", cleanAll(args)...)
	}
}

// cleanAll takes control characters out of texts that came from elsewhere.
func cleanAll(args []any) []any {
	out := make([]any, len(args))
	for i, v := range args {
		if s, ok := v.(string); ok {
			v = clean(s)
		}
		out[i] = v
	}
	return out
}

// confirm asks a yes-or-no question. Without a terminal the answer has to be --yes.
func (a *app) confirm(question string) error {
	if a.flags.yes {
		return nil
	}
	answer, err := a.ask(question + " [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return &usageError{what: "not confirmed", fix: "answer y, or give --yes"}
	}
	return nil
}

// ask prints a prompt on stderr and reads a line from the terminal.
func (a *app) ask(prompt string) (string, error) {
	if a.flags.noInput || !a.inTTY {
		return "", &usageError{what: "this needs an answer, and there is nobody to ask", fix: "give --yes"}
	}
	_, _ = fmt.Fprint(a.err, prompt)
	return readLine(a.in)
}

// askSecret reads a line without showing it.
func (a *app) askSecret(prompt string) (string, error) {
	if a.flags.noInput || !a.inTTY {
		return "", errNoTerminal
	}
	_, _ = fmt.Fprint(a.err, prompt)
	in := a.in
	if i, ok := in.(*interruptible); ok {
		in = i.r
	}
	f, ok := in.(*os.File)
	if !ok {
		return readLine(a.in)
	}
	b, err := term.ReadPassword(int(f.Fd()))
	_, _ = fmt.Fprintln(a.err)
	return strings.TrimSpace(string(b)), err
}

var errNoTerminal = errors.New("there is no terminal to ask on")

// readLine reads up to the end of the line, byte by byte, so that nothing behind it is taken.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < 4096 {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' {
			break
		}
		line = append(line, b[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	return strings.TrimSpace(string(line)), nil
}
