package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

const (
	batchOfDead = 500    // how many one call decides on; the engine takes up to 1,000
	knownDead   = 10_000 // as many are counted, and kept in mind, before the question
	toldSkipped = 20     // as many are named on stderr
	keptSkipped = 10_000 // as many are named in the result
)

// verdict is what becomes of dead letters.
type verdict struct {
	verb, ask, would, done string
	act                    func(context.Context, *sdk.Client, []string) (*sdk.DeadLetterResult, error)
}

// deadResult is what retry and drop print.
type deadResult struct {
	Done         int                    `json:"done"`
	SkippedCount int                    `json:"skipped_count"`
	Skipped      []sdk.DeadLetterNoMove `json:"skipped,omitempty"` // the first of them
}

// decide finds the dead letters that are meant, asks where a filter has chosen them, and does with them what v says.
func (a *app) decide(cmd *cobra.Command, ids []string, s *deadFlags, v verdict) error {
	f, err := s.selection(a, cmd)
	if err != nil {
		return err
	}
	filter := words(cmd)
	see := "see: " + cmd.CommandPath() + " --help"
	switch {
	case slices.Contains(ids, ""):
		return &usageError{what: "an ID is empty", fix: see}
	case len(ids) > 0 && (filter != "" || s.every || s.limit > 0):
		return &usageError{what: "ids and a filter exclude each other", fix: see}
	case filter != "" && s.every:
		return &usageError{what: "--all and a filter exclude each other", fix: see}
	case len(ids) == 0 && filter == "" && !s.every:
		return &usageError{what: "which ones? give ids, a filter such as --reason, or --all", fix: "see them: msgctl dlq ls"}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	run := deadRun{a: a, cmd: cmd, c: c, v: v, named: len(ids) > 0}
	if run.named {
		run.ids = unique(ids)
		run.total = len(run.ids)
		return run.all()
	}
	run.walk = deadWalk{c: c, filter: f, left: everything, more: true}
	if s.limit > 0 {
		run.walk.left = s.limit
	}
	if err := run.count(); err != nil {
		return err
	}
	if len(run.ids) > 0 {
		if err := run.confirm(filter); err != nil {
			return err
		}
	}
	return run.all()
}

func unique(ids []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		was := seen[id]
		seen[id] = true
		return was
	})
}

// deadRun decides on dead letters, a batch at a time.
type deadRun struct {
	a       *app
	cmd     *cobra.Command
	c       *sdk.Client
	v       verdict
	named   bool // by ids
	walk    deadWalk
	ids     []string // found and not yet decided on
	total   int      // 0 = more than knownDead
	unknown int      // of those counted: ended as unknown
	asked   int      // of a call under way
	result  deadResult
}

// count finds out how many there are, up to a bound, and remembers them: what is asked about is what is decided on.
func (r *deadRun) count() error {
	for r.walk.more && len(r.ids) < knownDead {
		rows, err := r.walk.next(r.cmd.Context())
		if err != nil {
			return err
		}
		for _, m := range rows {
			r.ids = append(r.ids, m.ID)
			if m.Status == sdk.Unknown {
				r.unknown++
			}
		}
	}
	if r.total = len(r.ids); r.walk.more {
		r.total = 0
	}
	return nil
}

// many is "1,204 dead letters", or "more than 10,000 dead letters".
func (r *deadRun) many() string {
	if r.total == 0 {
		return "more than " + count(len(r.ids), "dead letter")
	}
	return count(r.total, "dead letter")
}

func (r *deadRun) confirm(filter string) error {
	what := r.many()
	if filter != "" {
		what += " (" + clean(filter) + ")"
	}
	if !r.a.flags.yes && (r.a.flags.noInput || !r.a.inTTY) {
		return &usageError{what: what + " " + r.v.would + ", and there is nobody to ask", fix: "give --yes"}
	}
	question := fmt.Sprintf(r.v.ask+"?", what)
	if r.unknown > 0 && r.v.verb == "retry" {
		question += fmt.Sprintf(" %s of them ended as unknown: who got those would get them twice.", thousands(r.unknown))
	}
	return r.a.confirm(question)
}

// all decides on everything that was found, and says what came of it.
func (r *deadRun) all() error {
	ctx := r.cmd.Context()
	p := r.a.bulkProgress(strings.TrimPrefix(r.cmd.CommandPath(), "msgctl "), r.total, batchOfDead)
	err := r.batches(ctx, p)
	p.close()
	handled := r.result.Done + r.result.SkippedCount
	switch {
	case err != nil && ctx.Err() != nil:
		return r.interrupted()
	case err != nil:
		if handled > 0 {
			r.a.say("%s %s, %s skipped, then it stopped", thousands(r.result.Done), r.v.done, thousands(r.result.SkippedCount))
		}
		return err
	}
	return r.report()
}

// batches decides on one batch after the other.
func (r *deadRun) batches(ctx context.Context, p *bulkProgress) error {
	for {
		if len(r.ids) == 0 && r.walk.more {
			rows, err := r.walk.next(ctx)
			if err != nil {
				return err
			}
			for _, m := range rows {
				r.ids = append(r.ids, m.ID)
			}
			continue
		}
		if len(r.ids) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		batch := r.ids[:min(len(r.ids), batchOfDead)]
		r.asked = len(batch)
		got, err := r.v.act(ctx, r.c, batch)
		if err != nil {
			return err
		}
		r.ids, r.asked = r.ids[len(batch):], 0
		r.result.Done += got.Done
		r.result.SkippedCount += len(got.Skipped)
		room := max(keptSkipped-len(r.result.Skipped), 0)
		r.result.Skipped = append(r.result.Skipped, got.Skipped[:min(len(got.Skipped), room)]...)
		p.show(r.result.Done + r.result.SkippedCount)
	}
}

// interrupted says how far it came. The engine may have done what it was asked last: that is not known.
func (r *deadRun) interrupted() error {
	what := "interrupted: " + thousands(r.result.Done)
	if r.total > 0 {
		what += " of " + thousands(r.total)
	}
	what += " " + r.v.done
	if r.asked > 0 {
		what += fmt.Sprintf("; whether the next %s are too is not known", thousands(r.asked))
	}
	fix := "go on: " + again(r.cmd)
	if r.named {
		fix = "see what is left: msgctl dlq ls"
	}
	return &outcomeError{code: exitInterrupted, what: what, fix: fix}
}

// report prints the result. What was named and is no dead letter is an error; of several, that some were left out.
func (r *deadRun) report() error {
	if r.named && r.total == 1 && r.result.SkippedCount == 1 {
		return notDead(r.result.Skipped[0].ID, r.result.Skipped[0].Status)
	}
	if !r.a.human() {
		if err := r.a.object(view{cols: []string{"done", "skipped_count", "skipped"}}, r.result); err != nil {
			return err
		}
	} else {
		for i, s := range r.result.Skipped {
			if i == toldSkipped {
				r.a.say("… and %s more; -o json names them", thousands(r.result.SkippedCount-i))
				break
			}
			r.a.say("skipped: %s", notDead(s.ID, s.Status).what)
		}
		text := "no dead letters match"
		if r.result.Done+r.result.SkippedCount > 0 {
			text = fmt.Sprintf("%s %s", count(r.result.Done, "dead letter"), r.v.done)
		}
		if _, err := fmt.Fprintln(r.a.out, text); err != nil {
			return err
		}
	}
	if r.result.SkippedCount > 0 {
		return &outcomeError{
			code: exitPartly,
			what: fmt.Sprintf("%s of %s skipped: no dead letters any more", thousands(r.result.SkippedCount),
				thousands(r.result.Done+r.result.SkippedCount)),
		}
	}
	return nil
}
