package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/campaigns"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// slowest is the longest pause that an import's sender may make.
const slowest = time.Minute

// importAudience reads a file of people as it comes.
func importAudience(c *call) error {
	if c.a.Campaigns == nil {
		return noRoute()
	}
	if err := checkName("", c.vars[0]); err != nil {
		return err
	}
	media, err := c.checkMedia(append([]string{"text/csv", "application/csv", "text/tab-separated-values"},
		batchMedia...)...)
	if err != nil {
		return err
	}
	if c.gzipped() { // what a file unpacks to has no bound
		return fail("unsupported_encoding", "a file is taken as it is: send it without Content-Encoding")
	}
	in := campaigns.Import{
		Name: c.vars[0], Format: campaigns.CSV, Columns: map[string]string{}, Region: c.param("region"),
		Source: &patient{c: c, src: c.r.Body},
	}
	for _, m := range batchMedia {
		if media == m {
			in.Format = campaigns.NDJSON
		}
	}
	for _, column := range []string{"phone", "email", "url", "channel"} {
		if v := c.param(column); v != "" {
			in.Columns[column] = v
		}
	}
	a, found, err := c.a.Campaigns.Import(c.ctx(), c.tenant, in)
	if err != nil {
		return importProblem(err)
	}
	out := showAudience(a)
	out.Mapping, out.First = found.Mapping, found.First
	return c.json(http.StatusCreated, out)
}

func importProblem(err error) error {
	var bad *campaigns.FileError
	switch {
	case errors.As(err, &bad):
		code := "invalid_file"
		if bad.Code == campaigns.CodeRegion {
			code = "invalid_region"
		}
		p := fail(code, "%s", bad.Error())
		p.Fields = []sdk.FieldError{{Code: bad.Code, Detail: bad.Error()}}
		return p
	case errors.Is(err, store.ErrExists):
		return fail("already_exists", "the audience exists: delete it first, or use another name")
	case errors.Is(err, campaigns.ErrImporting):
		p := fail("conflict", "an import to this audience is running")
		p.RetryAfter = 5 * time.Second
		return p
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrOutcomeUnknown):
		return err // a database whose connection is lost speaks of an unexpected end too
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail("invalid_file", "the body ended before its end; the audience is not complete: import it again")
	}
	var read *readError
	if errors.As(err, &read) {
		return bodyError(read.err)
	}
	return err
}

// patient reads the body of a long request: each read gets its own time, so that a large file may take long and a
// sender that stands still may not.
type patient struct {
	c   *call
	src io.Reader
}

// readError marks an error as that of the sender.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func (p *patient) Read(b []byte) (int, error) {
	p.c.extend(slowest)
	n, err := p.src.Read(b)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader returns it unwrapped
		err = &readError{err}
	}
	return n, err
}

// extend gives the connection more time, for reading and for writing. Sockets go by the real clock.
func (c *call) extend(d time.Duration) {
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(time.Now().Add(d))
	_ = rc.SetWriteDeadline(time.Now().Add(d + time.Minute))
}

func listAudiences(c *call) error {
	list, err := c.a.Store.AudienceList(c.ctx(), c.tenant)
	if err != nil {
		return err
	}
	return page(c, list, func(a store.Audience) string { return a.Name }, showAudience)
}

// audience reads the one in the path.
func (c *call) audience() (store.Audience, error) {
	a, err := store.Audience{}, store.ErrNotFound
	if validName(c.vars[0]) {
		a, err = c.a.Store.Audience(c.ctx(), c.tenant, c.vars[0])
	}
	if errors.Is(err, store.ErrNotFound) {
		return a, noAudience()
	}
	return a, err
}

func noAudience() error { return fail("not_found", "there is no such audience") }

func getAudience(c *call) error {
	a, err := c.audience()
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showAudience(a))
}

// person is a member of an audience as the API shows it.
type person struct {
	Seq     int64           `json:"seq"`
	Phone   string          `json:"phone,omitempty"`
	Email   string          `json:"email,omitempty"`
	URL     string          `json:"url,omitempty"`
	Channel sdk.Channel     `json:"channel,omitempty"`
	Vars    json.RawMessage `json:"vars,omitempty"`
}

func audiencePeople(c *call) error {
	a, err := c.audience()
	if err != nil {
		return err
	}
	limit, err := c.limit()
	if err != nil {
		return err
	}
	after := int64(0)
	if s := c.param("cursor"); s != "" {
		place, err := c.a.cursors.open(c, s)
		if err != nil {
			return err
		}
		after, _ = strconv.ParseInt(place, 10, 64) // we made it
	}
	people, err := c.a.Store.People(c.ctx(), c.tenant, a.Name, after, limit)
	if err != nil {
		return err
	}
	out := sdk.Page[person]{Data: make([]person, 0, len(people)), HasMore: len(people) == limit}
	for _, p := range people {
		out.Data = append(out.Data, person{
			Seq: p.Seq, Phone: p.Phone, Email: p.Email, URL: p.URL, Channel: channel(p.Channel), Vars: p.Vars,
		})
	}
	if out.HasMore {
		out.NextCursor = c.a.cursors.seal(c, strconv.FormatInt(people[len(people)-1].Seq, 10))
	}
	return c.json(http.StatusOK, out)
}

// rejectedRows streams the file of rows that were left out.
func rejectedRows(c *call) error {
	if c.a.Campaigns == nil {
		return noRoute()
	}
	a, err := c.audience()
	if err != nil {
		return err
	}
	f, err := c.a.Campaigns.Rejected(c.ctx(), c.tenant, a.Name)
	if errors.Is(err, store.ErrNotFound) {
		return fail("not_found", "no row of this audience was rejected")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := c.w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	h.Set("Content-Disposition", `attachment; filename="`+a.Name+`.rejected.csv"`)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	c.status = http.StatusOK
	c.w.WriteHeader(http.StatusOK)
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			c.extend(slowest)
			if _, werr := c.w.Write(buf[:n]); werr != nil {
				return nil // the caller is gone
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			panic(http.ErrAbortHandler) // half a file is out: only closing the connection tells that it is broken
		}
	}
}

func deleteAudience(c *call) error {
	a, err := c.audience()
	if err != nil {
		return err
	}
	del := c.a.Store.DeleteAudience
	if c.a.Campaigns != nil {
		del = c.a.Campaigns.DeleteAudience
	}
	switch err := del(c.ctx(), c.tenant, a.Name); {
	case errors.Is(err, store.ErrNotFound):
		return noAudience()
	case errors.Is(err, store.ErrConflict):
		return fail("conflict", "a campaign that runs or is paused uses the audience: stop it first")
	case err != nil:
		return importProblem(err)
	}
	return c.empty()
}

func showAudience(a store.Audience) sdk.Audience {
	return sdk.Audience{
		Name: a.Name, Ready: a.Ready, Rows: a.Rows, People: a.People, LeftOut: a.LeftOut, Columns: a.Columns,
		Rejected: a.RejectFile != "", CreatedAt: when(a.CreatedAt),
	}
}
