package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// The exit codes. Scripts depend on them: help exit-codes lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitSignIn      = 4
	exitConflict    = 5
	exitLimit       = 6
	exitUnreachable = 7
	exitPartly      = 8
	exitUnmet       = 9
	exitInterrupted = 130
)

// usageError is a mistake in what was typed or in a file that was named.
type usageError struct {
	what string
	fix  string // the command that helps
	err  error
}

func (e *usageError) Error() string {
	if e.err != nil {
		return e.what + ": " + fileError(e.err)
	}
	return e.what
}

func (e *usageError) Unwrap() error { return e.err }

// outcomeError ends a command whose work was done and whose result is not what was hoped for.
type outcomeError struct {
	code int
	what string
	fix  string
}

func (e *outcomeError) Error() string { return e.what }

// fileError says what is wrong with a file, without the name of the system call.
func fileError(err error) string {
	var p *fs.PathError
	if !errors.As(err, &p) {
		return err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p.Path + ": there is no such file"
	case errors.Is(err, syscall.EISDIR):
		return p.Path + ": is a directory"
	case errors.Is(err, fs.ErrPermission):
		return p.Path + ": no permission"
	case errors.Is(err, syscall.ENOSPC):
		return p.Path + ": the disk is full"
	}
	return p.Path + ": " + p.Err.Error()
}

// problem is an error as -o json prints it: the engine's problem document, or one of the same form.
type problem struct {
	*sdk.Error
	Fix  string `json:"fix,omitempty"`
	Exit int    `json:"exit"`
}

// report prints an error, once, and returns the exit code.
func (a *app) report(ctx context.Context, cmd *cobra.Command, args []string, err error) int {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		return exitOK // the reader has seen enough
	}
	p := a.describe(ctx, cmd, err)
	if a.jsonErrors(args) {
		b, _ := json.Marshal(p)
		_, _ = fmt.Fprintf(a.err, "%s\n", b)
		return p.Exit
	}
	line := clean(strings.ReplaceAll(p.text(), "\n", " "))
	if where := strings.TrimPrefix(cmd.CommandPath(), "msgctl "); where != "msgctl" {
		line = where + ": " + line
	}
	if p.Fix != "" {
		line += "  fix: " + p.Fix
	}
	if p.RequestID != "" {
		line += "  (request " + clean(p.RequestID) + ")"
	}
	_, _ = fmt.Fprintln(a.err, "msgctl: "+line)
	return p.Exit
}

// text is the problem in one line, without the request id.
func (p problem) text() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	if s == "" {
		s = p.Code
	}
	for _, f := range p.Fields {
		at := strings.TrimPrefix(strings.ReplaceAll(f.Pointer, "/", "."), ".")
		if at == "" || strings.Contains(s, f.Detail) && f.Detail != "" {
			continue
		}
		s += "; " + at + " " + f.Detail
	}
	if p.Status != 0 && p.Code != "" && !strings.Contains(s, p.Code) {
		s = p.Code + ": " + s
	}
	return s
}

// describe finds the exit code of an error and the command that helps.
func (a *app) describe(ctx context.Context, cmd *cobra.Command, err error) problem {
	local := func(exit int, code, fix string) problem {
		return problem{Error: &sdk.Error{Title: code, Code: code, Detail: err.Error()}, Exit: exit, Fix: fix}
	}
	var (
		usage   *usageError
		outcome *outcomeError
		engine  *sdk.Error
		path    *fs.PathError
	)
	switch {
	case errors.As(err, &outcome):
		return local(outcome.code, codeOf(outcome.code), outcome.fix)
	case ctx.Err() != nil && !errors.As(err, &engine):
		p := local(exitInterrupted, "interrupted", "")
		p.Detail = "interrupted"
		return p
	case errors.As(err, &usage):
		return local(exitUsage, "usage", usage.fix)
	case errors.As(err, &engine):
		p := problem{Error: engine, Exit: exitOf(engine), Fix: fixFor(cmd, engine)}
		if prefix, _, ok := strings.Cut(err.Error(), engine.Error()); ok && prefix != "" && engine.Detail != "" {
			c := *engine // what was being done when the engine refused
			c.Detail = prefix + engine.Detail
			p.Error = &c
		}
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return local(exitUnreachable, "timed_out", "")
	case errors.Is(err, sdk.ErrEnded):
		return local(exitUnmet, "ended_otherwise", "")
	case errors.Is(err, sdk.ErrInvalid):
		p := local(exitUsage, "usage", "")
		p.Detail = strings.TrimPrefix(p.Detail, sdk.ErrInvalid.Error()+": ")
		return p
	case errors.Is(err, sdk.ErrUnavailable):
		return local(exitUnreachable, "unreachable", "start an engine here with: msgctl dev   or name another with --url")
	case errors.As(err, &path):
		p := local(exitUsage, "file", "")
		p.Detail = fileError(err)
		if errors.Is(err, syscall.ENOSPC) {
			p.Exit = exitFailed
		}
		return p
	}
	return local(exitFailed, "failed", "")
}

func exitOf(e *sdk.Error) int {
	switch {
	case errors.Is(e, sdk.ErrUnauthorized):
		return exitSignIn
	case errors.Is(e, sdk.ErrNotFound):
		return exitNotFound
	case errors.Is(e, sdk.ErrQuota), e.Status == 429:
		return exitLimit
	case errors.Is(e, sdk.ErrConflict):
		return exitConflict
	case errors.Is(e, sdk.ErrInvalid):
		return exitUsage
	case e.Status == 408 || e.Status >= 502 && e.Status <= 504:
		return exitUnreachable
	}
	return exitFailed
}

// codeOf names an exit code in a problem document.
func codeOf(exit int) string {
	switch exit {
	case exitConflict:
		return "conflict"
	case exitUnreachable:
		return "timed_out"
	case exitPartly:
		return "partly_done"
	case exitUnmet:
		return "expectation_unmet"
	case exitInterrupted:
		return "interrupted"
	case exitUsage:
		return "usage"
	}
	return "failed"
}

// fixFor names the command that helps with an engine's refusal.
func fixFor(cmd *cobra.Command, e *sdk.Error) string {
	noun := strings.Fields(strings.TrimPrefix(cmd.CommandPath(), "msgctl"))
	switch {
	case errors.Is(e, sdk.ErrUnauthorized):
		return "set MSGCTL_API_KEY, or: msgctl context set NAME --url URL --key-file FILE"
	case len(e.Actions) > 0:
		return "possible now: " + strings.Join(e.Actions, ", ")
	case errors.Is(e, sdk.ErrNotFound) && len(noun) > 1 && hasLs(cmd):
		return "see: msgctl " + noun[0] + " ls"
	case e.Code == "quota_exceeded":
		return "an operator can raise it: msgctl tenant set ID --quota N"
	case e.Code == "idempotency_mismatch" && cmd.Name() == "send":
		return "the same key or run needs the same content: use another one for other content"
	}
	return ""
}

func hasLs(cmd *cobra.Command) bool {
	if cmd.Parent() == nil {
		return false
	}
	for _, c := range cmd.Parent().Commands() {
		if c.Name() == "ls" {
			return true
		}
	}
	return false
}

// jsonErrors reports whether errors go out as JSON. The flags themselves may be what is wrong, so it looks at the
// arguments.
func (a *app) jsonErrors(args []string) bool {
	format := a.env("MSGCTL_OUTPUT")
	for i, s := range args {
		if s == "--" {
			break
		}
		switch {
		case (s == "-o" || s == "--output") && i+1 < len(args):
			format = args[i+1]
		case strings.HasPrefix(s, "--output="):
			format = s[len("--output="):]
		case strings.HasPrefix(s, "-o") && len(s) > 2:
			format = strings.TrimPrefix(s[2:], "=")
		}
	}
	return format == "json" || format == "jsonl"
}
