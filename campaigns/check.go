package campaigns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sms"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// Check is the result of a dry run. The people of the audience = People + the sum of Skipped.
type Check struct {
	People     int // who would get a message
	Segments   int // SMS parts
	ByChannel  map[delivery.Channel]Count
	Skipped    map[string]int // no_address, suppressed, missing_variable, render_failed → people
	Missing    []Missing      // most people first
	Failed     []Failed       // most people first
	UCS2       int            // SMS that a character outside the GSM alphabet makes shorter and dearer
	UCS2Sample string         // such characters, at most 10 different ones
	Seconds    float64        // estimated from the rates in force; 0 = no rate bounds it
	Problems   []Problem      // each keeps the campaign from starting, or from reaching people whom it should reach
}

// Count is a number of people and the segments they need: SMS parts, 1 each on other channels.
type Count struct{ People, Segments int }

// Missing is a variable that a template cannot do without and that some people lack, or have empty.
type Missing struct {
	Template string
	Variable string
	People   int
	Examples []string // at most 5 masked addresses, in no order
}

// Failed is an error that a template gives for some people's variables.
type Failed struct {
	Template string
	Error    string
	People   int
	Examples []string // at most 5 masked addresses, in no order
}

const (
	checkPage   = 500
	maxExamples = 5
	maxSample   = 10
	maxFailed   = 20 // different errors that are listed
)

// Check renders every message of a campaign without sending one, and says who would get what, what would go wrong, and
// how long it would take. It streams: its memory does not grow with the audience. Any state of the campaign will do.
func (s *Service) Check(ctx context.Context, tenant delivery.TenantID, name string) (Check, error) {
	c, err := s.Store.Campaign(ctx, tenant, name)
	if err != nil {
		return Check{}, err
	}
	p, err := s.lookUp(ctx, tenant, c)
	if err != nil {
		return Check{}, err
	}
	t := newTrial(p.legs)
	if p.audience.Name != "" && len(p.legs) > 0 {
		if t, err = s.tryAll(ctx, tenant, c.Audience, p); err != nil {
			return Check{}, err
		}
	}
	out := t.result(p.legs)
	out.Seconds = s.estimate(tenant, c.Rate, out)
	out.Problems = p.problems
	for _, m := range out.Missing {
		out.Problems = append(out.Problems, Problem{ProblemMissingVariable, fmt.Sprintf(
			"%s no {{%s}}, which template %q needs: give it a default, as in {{ %[2]s | default: \"…\" }}, "+
				"or complete the audience",
			have(m.People), m.Variable, m.Template)})
	}
	for _, f := range out.Failed {
		out.Problems = append(out.Problems, Problem{ProblemRender,
			fmt.Sprintf("template %q fails for %s: %s", f.Template, plural(f.People), f.Error)})
	}
	if out.People == 0 && len(out.Problems) == 0 {
		out.Problems = append(out.Problems, Problem{ProblemNobody, "nobody of the audience would get a message: see skipped"})
	}
	return out, nil
}

func plural(n int) string {
	if n == 1 {
		return "1 person"
	}
	return fmt.Sprintf("%d people", n)
}

func have(n int) string {
	if n == 1 {
		return "1 person has"
	}
	return fmt.Sprintf("%d people have", n)
}

// tryAll reads the audience page by page and tries the pages on all cores.
func (s *Service) tryAll(ctx context.Context, tenant delivery.TenantID, audience string, p *plan) (*trial, error) {
	blocked, err := readSuppressions(ctx, s.Store, tenant)
	if err != nil {
		return nil, err
	}
	total := newTrial(p.legs)
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var after int64
	for gctx.Err() == nil {
		page, err := s.Store.People(gctx, tenant, audience, after, checkPage)
		if err != nil {
			_ = g.Wait() // their error is the consequence of this one, or the cause of it
			return nil, err
		}
		if len(page) > 0 {
			after = page[len(page)-1].Seq
			g.Go(func() error {
				part := newTrial(p.legs)
				for i := range page {
					if err := part.try(gctx, &page[i], p, blocked); err != nil {
						return err
					}
				}
				mu.Lock()
				defer mu.Unlock()
				total.add(part)
				return nil
			})
		}
		if len(page) < checkPage {
			break
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return total, ctx.Err()
}

// trial is the outcome for some of the people.
type trial struct {
	byLeg   []Count
	skipped map[string]int
	missing map[troubleKey]*trouble
	failed  map[troubleKey]*trouble
	ucs2    int
	sample  map[rune]bool
}

type troubleKey struct {
	leg  int
	what string // a variable or an error
}

type trouble struct {
	people   int
	examples []string
}

func newTrial(legs []store.Leg) *trial {
	return &trial{byLeg: make([]Count, len(legs)), skipped: map[string]int{}, sample: map[rune]bool{},
		missing: map[troubleKey]*trouble{}, failed: map[troubleKey]*trouble{}}
}

func note(m map[troubleKey]*trouble, key troubleKey, people int, examples ...string) {
	t := m[key]
	if t == nil {
		t = &trouble{}
		m[key] = t
	}
	t.people += people
	t.examples = append(t.examples, examples[:min(len(examples), maxExamples-len(t.examples))]...)
}

// try does for one person what the expansion and the render stage will do.
func (t *trial) try(ctx context.Context, who *store.Person, p *plan, blocked *suppressions) error {
	leg, to, ok := legFor(who, p.legs)
	if !ok {
		t.skipped[skipNoAddress]++
		return nil
	}
	ch := p.legs[leg].Channel
	hit, err := blocked.has(ctx, ch, to)
	if err != nil {
		return err
	}
	if hit {
		t.skipped[skipSuppressed]++
		return nil
	}
	compiled := p.templates[leg]
	if compiled == nil { // a problem that has been told
		t.skipped[skipRender]++
		return nil
	}
	var vars map[string]any
	if len(who.Vars) > 0 {
		if err := json.Unmarshal(who.Vars, &vars); err != nil {
			return fmt.Errorf("variables of person %d: %w", who.Seq, err)
		}
	}
	content, err := compiled.Render(vars)
	if missing := lacking(compiled, p.required[leg], vars, err); len(missing) > 0 {
		for _, name := range missing {
			note(t.missing, troubleKey{leg, name}, 1, mask(to))
		}
		t.skipped[skipMissing]++
		return nil
	}
	if err != nil {
		t.skipped[skipRender]++
		if key := (troubleKey{leg, err.Error()}); t.failed[key] != nil || len(t.failed) < maxFailed {
			note(t.failed, key, 1, mask(to))
		}
		return nil
	}
	t.byLeg[leg].People++
	segments := 1
	if ch == delivery.SMS {
		segments = t.segments(content.Text)
	}
	t.byLeg[leg].Segments += segments
	return nil
}

// lacking names the variables that a template prints for a person who has none, or an empty one: every row of a CSV has
// every column, so that there an empty cell is what is missing. What a template needs depends on the branches it takes;
// therefore it is rendered again, but only for a person with a gap. It changes vars.
func lacking(compiled *templates.Set, required []string, vars map[string]any, err error) (names []string) {
	missing := func(err error) string {
		var bad *templates.Error
		if errors.As(err, &bad) && bad.Code == templates.CodeMissing {
			return bad.Variable
		}
		return ""
	}
	for name := missing(err); name != "" && !slices.Contains(names, name); name = missing(err) {
		names = append(names, name)
		if vars == nil {
			vars = map[string]any{}
		}
		vars[name] = "–" // goes on to the next
		_, err = compiled.Render(vars)
	}
	for _, name := range required {
		if vars[name] != "" {
			continue
		}
		delete(vars, name)
		if _, err := compiled.Render(vars); missing(err) == name {
			names = append(names, name)
		}
		vars[name] = ""
	}
	return names
}

func (t *trial) segments(text string) int {
	n, encoding := sms.Count(text)
	if encoding == sms.UCS2 {
		t.ucs2++
		if len(t.sample) < maxSample {
			for _, f := range sms.Split(text).Forced {
				if len(t.sample) < maxSample {
					t.sample[f.Rune] = true
				}
			}
		}
	}
	return n
}

func (t *trial) add(part *trial) {
	for i, c := range part.byLeg {
		t.byLeg[i].People += c.People
		t.byLeg[i].Segments += c.Segments
	}
	for reason, n := range part.skipped {
		t.skipped[reason] += n
	}
	for key, m := range part.missing {
		note(t.missing, key, m.people, m.examples...)
	}
	for key, m := range part.failed {
		if t.failed[key] != nil || len(t.failed) < maxFailed {
			note(t.failed, key, m.people, m.examples...)
		}
	}
	t.ucs2 += part.ucs2
	for r := range part.sample {
		if len(t.sample) < maxSample {
			t.sample[r] = true
		}
	}
}

func (t *trial) result(legs []store.Leg) Check {
	out := Check{ByChannel: map[delivery.Channel]Count{}, Skipped: t.skipped, UCS2: t.ucs2}
	for i, c := range t.byLeg {
		ch := legs[i].Channel
		all := out.ByChannel[ch]
		out.ByChannel[ch] = Count{all.People + c.People, all.Segments + c.Segments}
		out.People += c.People
		if ch == delivery.SMS {
			out.Segments += c.Segments
		}
	}
	for _, key := range worstFirst(t.missing) {
		m := t.missing[key]
		out.Missing = append(out.Missing, Missing{legs[key.leg].Template, key.what, m.people, m.examples})
	}
	for _, key := range worstFirst(t.failed) {
		m := t.failed[key]
		out.Failed = append(out.Failed, Failed{legs[key.leg].Template, key.what, m.people, m.examples})
	}
	sample := slices.Sorted(maps.Keys(t.sample))
	out.UCS2Sample = string(sample)
	return out
}

func worstFirst(m map[troubleKey]*trouble) []troubleKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b troubleKey) int {
		if d := m[b].people - m[a].people; d != 0 {
			return d
		}
		if a.leg != b.leg {
			return a.leg - b.leg
		}
		return strings.Compare(a.what, b.what)
	})
}

// estimate adds up what the rates allow: the campaign's own rate counts messages over all channels, while channels
// work side by side and count segments.
func (s *Service) estimate(tenant delivery.TenantID, rate float64, c Check) float64 {
	seconds := 0.0
	if rate > 0 {
		seconds = float64(c.People) / rate
	}
	for ch, n := range c.ByChannel {
		if r := s.Rates(tenant, ch); r > 0 {
			seconds = max(seconds, float64(n.Segments)/r)
		}
	}
	return seconds
}

// mask shows enough of an address to find the person in one's own list, and not enough to write to the person.
func mask(to string) string {
	const hidden = "***"
	switch {
	case strings.HasPrefix(to, "+") && len(to) > 6:
		return to[:3] + hidden + to[len(to)-2:]
	case strings.HasPrefix(to, "http"):
		if i := strings.Index(to, "://"); i >= 0 {
			host, _, _ := strings.Cut(to[i+3:], "/")
			return to[:i+3] + host + "/" + hidden
		}
	case strings.Contains(to, "@"):
		at := strings.LastIndexByte(to, '@')
		return to[:min(1, at)] + hidden + to[at:]
	}
	return hidden
}
