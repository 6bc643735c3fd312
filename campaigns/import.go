package campaigns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/store"
)

// The formats of an import.
const (
	CSV    = "csv"
	NDJSON = "ndjson"
)

// Import is a file of people.
type Import struct {
	Name    string            // of the audience
	Format  string            // CSV or NDJSON; "" = CSV
	Columns map[string]string // phone, email, url, channel → the column that holds it, "-" = none; others are guessed
	Region  string            // for phone numbers without +, such as IN; "" = the tenant's
	Source  io.Reader         // must fail when its sender is gone, as the body of a request does
}

// Outcome is what an import found out beside its counts.
type Outcome struct {
	Mapping map[string]string // phone, email, url, channel → the column that was used
	First   string            // the first row that was left out, for a person; "" = none was
}

// batchRows and batchBytes bound how much goes to the store at a time.
const (
	batchRows  = 500
	batchBytes = 1 << 20
)

// Import reads a file into an audience, row by row. A row that cannot be used is left out, counted in LeftOut and
// listed for Rejected; the others go on. Rows = People + the sum of LeftOut, always.
//
// The audience is frozen when the whole file has been read. One that is not, because its import was cut off, and one
// without people are replaced by the next import to the name. A file that is refused as a whole is a *FileError and
// stores nothing.
// Other errors: store.ErrExists for an audience that is there already, ErrImporting, those of Source and of the store.
func (s *Service) Import(ctx context.Context, tenant delivery.TenantID, in Import) (store.Audience, Outcome, error) {
	if err := checkName(tenant, in.Name); err != nil {
		return store.Audience{}, Outcome{}, err
	}
	release, err := s.claimName(tenant, in.Name)
	if err != nil {
		return store.Audience{}, Outcome{}, err
	}
	defer release()
	old, err := s.Store.Audience(ctx, tenant, in.Name)
	found := err == nil
	switch {
	case found && old.Ready && old.People > 0:
		return store.Audience{}, Outcome{}, fmt.Errorf("audience %q: %w", in.Name, store.ErrExists)
	case !found && !errors.Is(err, store.ErrNotFound):
		return store.Audience{}, Outcome{}, err
	}
	rows, conv, err := s.open(ctx, tenant, in)
	if err != nil {
		return store.Audience{}, Outcome{}, err
	}
	first, err := rows.next() // nothing is stored for a file without rows
	if errors.Is(err, io.EOF) {
		err = &FileError{CodeNoRows, 0, "the file has no rows"}
	}
	if err != nil {
		return store.Audience{}, Outcome{}, err
	}
	if found {
		if err := s.Store.DeleteAudience(ctx, tenant, in.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return store.Audience{}, Outcome{}, err
		}
	}
	a := store.Audience{Name: in.Name, CreatedAt: s.Clock.Now()}
	if err := s.Store.CreateAudience(ctx, tenant, a); err != nil {
		return store.Audience{}, Outcome{}, err
	}
	rejects, err := newRejectWriter(filepath.Join(s.Dir, filepath.FromSlash(rejectFile(tenant, in.Name))))
	if err != nil {
		return a, Outcome{}, err
	}
	defer func() { _ = rejects.close() }()
	load := &loader{s: s, tenant: tenant, conv: conv, rejects: rejects, audience: &a}
	err = load.run(ctx, rows, first)
	if e := rejects.close(); err == nil {
		err = e
	}
	out := Outcome{First: rejects.first}
	out.Mapping, a.Columns = conv.used()
	a.LeftOut = rejects.counts
	if rejects.listed > 0 {
		a.RejectFile = rejectFile(tenant, in.Name)
	}
	if err != nil {
		return a, out, err
	}
	a.Ready = true
	if err := s.Store.FinishAudience(ctx, tenant, a); err != nil {
		a.Ready = false
		return a, out, err
	}
	return a, out, nil
}

// claimName keeps a second import, and a deletion, away from an audience.
func (s *Service) claimName(tenant delivery.TenantID, name string) (release func(), err error) {
	key := audienceKey{tenant, name}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.importing[key] {
		return nil, fmt.Errorf("audience %q: %w", name, ErrImporting)
	}
	s.importing[key] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.importing, key)
	}, nil
}

// rowReader is one of the two formats.
type rowReader interface {
	// next returns the next row; its error is io.EOF at the end, or ends the import.
	next() (row, error)
}

// open reads as much of the file as is needed to refuse it as a whole.
func (s *Service) open(ctx context.Context, tenant delivery.TenantID, in Import) (rowReader, *converter, error) {
	r, err := newRanks(in.Columns)
	if err != nil {
		return nil, nil, err
	}
	c := &converter{ranks: r, region: in.Region, mapping: map[string]string{}}
	if c.region == "" {
		t, err := s.Store.Tenant(ctx, store.AsSystem("import"), tenant)
		if err != nil {
			return nil, nil, err
		}
		c.region = t.Region
	}
	if c.region != "" {
		var invalid *recipient.Invalid
		_, err := recipient.Normalize(delivery.SMS, "2025550100", c.region)
		if errors.As(err, &invalid) && invalid.Code == recipient.CodeRegion {
			return nil, nil, &FileError{CodeRegion, 0, "region: " + invalid.Rule}
		}
	}
	if c.suppressed, err = readSuppressions(ctx, s.Store, tenant); err != nil {
		return nil, nil, err
	}
	switch in.Format {
	case CSV, "":
		rows, err := newCSV(in.Source)
		if err != nil {
			return nil, nil, err
		}
		c.columns = rows.columns
		if c.at, err = r.assign(c.columns); err != nil {
			return nil, nil, err
		}
		for _, name := range c.columns {
			key, err := jsontext.AppendQuote(nil, name)
			if err != nil {
				return nil, nil, err
			}
			c.keys = append(c.keys, key)
		}
		return rows, c, nil
	case NDJSON:
		rows, err := newNDJSON(in.Source)
		return rows, c, err
	}
	return nil, nil, &FileError{CodeFormat, 0, fmt.Sprintf("unknown format %q: use csv or ndjson", in.Format)}
}

// loader brings rows into an audience: one goroutine reads, several make people of rows, one stores them in the order
// of the file. What is in flight is bounded by the number of batches.
type loader struct {
	s        *Service
	tenant   delivery.TenantID
	conv     *converter
	rejects  *rejectWriter
	audience *store.Audience
}

type batch struct {
	rows []row
	done chan struct{} // closed when the rest is filled in

	people   []store.Person
	lines    []int        // of people
	columns  []string     // of people: the column with the first address
	rejected []*rejection // in the order of the file
	err      error
}

func (l *loader) run(ctx context.Context, rows rowReader, first row) error {
	workers := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *batch)
	ordered := make(chan *batch, 2*workers)
	for range workers {
		g.Go(func() error {
			for b := range work {
				l.convert(ctx, b)
				close(b.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range ordered {
			select {
			case <-b.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := l.store(ctx, b); err != nil {
				return err
			}
		}
		return nil
	})
	err := l.read(ctx, rows, first, work, ordered)
	close(work)
	close(ordered)
	// A reading error is the cause; it must not be hidden by what it made the others say.
	if werr := g.Wait(); err == nil || errors.Is(err, context.Canceled) && werr != nil {
		err = werr
	}
	return err
}

// read runs on the caller's goroutine, so that nothing outlives the import when Source blocks.
func (l *loader) read(ctx context.Context, rows rowReader, in row, work, ordered chan<- *batch) error {
	b := &batch{done: make(chan struct{})}
	size := 0
	send := func() error {
		if len(b.rows) == 0 {
			return nil
		}
		for _, ch := range []chan<- *batch{ordered, work} {
			select {
			case ch <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		b, size = &batch{done: make(chan struct{}), rows: make([]row, 0, batchRows)}, 0
		return nil
	}
	for {
		b.rows = append(b.rows, in)
		size += len(in.object)
		for _, c := range in.cells {
			size += len(c)
		}
		if len(b.rows) == batchRows || size >= batchBytes {
			if err := send(); err != nil {
				return err
			}
		}
		var err error
		if in, err = rows.next(); errors.Is(err, io.EOF) {
			return send()
		} else if err != nil {
			return err
		}
	}
}

func (l *loader) convert(ctx context.Context, b *batch) {
	for _, in := range b.rows {
		p, column, bad, err := l.conv.person(ctx, in)
		if err != nil {
			b.err = err
			return
		}
		if bad != nil {
			b.rejected = append(b.rejected, bad)
			continue
		}
		b.people = append(b.people, p)
		b.lines = append(b.lines, in.line)
		b.columns = append(b.columns, column)
	}
}

func (l *loader) store(ctx context.Context, b *batch) error {
	if b.err != nil {
		return b.err
	}
	var added []bool
	if len(b.people) > 0 {
		var err error
		if added, err = l.s.Store.AddPeople(ctx, l.tenant, l.audience.Name, b.people); err != nil {
			return err
		}
	}
	l.audience.Rows += len(b.rows)
	rejected := b.rejected
	for i, ok := range added {
		for len(rejected) > 0 && rejected[0].line < b.lines[i] {
			if err := l.rejects.add(rejected[0]); err != nil {
				return err
			}
			rejected = rejected[1:]
		}
		if ok {
			l.audience.People++
			continue
		}
		p := b.people[i]
		dup := &rejection{line: b.lines[i], column: b.columns[i], reason: reasonDuplicate,
			detail: "the audience has this person already", value: cut([]byte(firstAddress(p)))}
		if err := l.rejects.add(dup); err != nil {
			return err
		}
	}
	for _, bad := range rejected {
		if err := l.rejects.add(bad); err != nil {
			return err
		}
	}
	return nil
}

func firstAddress(p store.Person) string {
	for _, a := range []string{p.Phone, p.Email, p.URL} {
		if a != "" {
			return a
		}
	}
	return ""
}
