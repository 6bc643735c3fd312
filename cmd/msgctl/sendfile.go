package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// maxLine bounds one line of JSON, and one CSV record.
const maxLine = 1 << 20

// sendFile sends every row of a file and says of each what became of it.
func (a *app) sendFile(cmd *cobra.Command, args []string, s *sendFlags) error {
	see := "see: msgctl send --help"
	switch {
	case len(args) > 1:
		return &usageError{what: "with --file, TO and TEXT stand in the file", fix: see}
	case s.key != "":
		return &usageError{what: "--idempotency-key is for one message", fix: "with --file: --resume RUN"}
	case s.wait != "":
		return &usageError{what: "--wait is for one message", fix: "msgctl tail -f"}
	}
	if err := cmp.Or(s.fallback.refuse(cmd), s.fallback.checkGiven(cmd)); err != nil {
		return err
	}
	base, err := a.requestBase(s)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		if err := oneOf("channel", args[0], channels()); err != nil {
			return err
		}
		base.Channel = sdk.Channel(args[0])
	}
	in := a.in
	if s.file != "-" {
		f, err := openFile(s.file)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	rows, err := readRows(in, s.file, base)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	run := s.resume
	if run == "" {
		run = sdk.NewRunID()
	}
	if s.file == "-" {
		rows = pumped(cmd.Context(), rows)
	}
	return a.sendRows(cmd.Context(), c, rows, run, s)
}

func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &usageError{what: "cannot read", err: err}
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &os.PathError{Op: "read", Path: path, Err: errors.New("is a directory")}
	}
	if err != nil {
		_ = f.Close()
		return nil, &usageError{what: "cannot read", err: err}
	}
	return f, nil
}

func (a *app) sendRows(ctx context.Context, c *sdk.Client, rows iter.Seq[sdk.Sendable], run string, s *sendFlags) error {
	resume := fmt.Sprintf("msgctl send … --file %s --resume %s", s.file, run)
	var (
		w                                *rowWriter
		taken, refused, suppressed, told int
	)
	if !a.human() {
		var err error
		if w, err = a.writer(view{cols: []string{"row", "id", "status", "reason", "client_ref", "error"}, id: "id"}); err != nil {
			return err
		}
		w.live = w.format == "jsonl" || w.format == "csv"
	}
	for r, err := range c.SendAll(ctx, rows, sdk.Window(s.window), sdk.Resume(run)) {
		if err != nil {
			a.say("%d rows accepted, %d refused, then it stopped", taken, refused)
			if ctx.Err() != nil {
				return &outcomeError{code: exitInterrupted, what: "interrupted", fix: resume}
			}
			if s.window < 1 || s.window > 64 {
				return err
			}
			return fmt.Errorf("go on with --resume %s: %w", run, err)
		}
		switch {
		case r.Error != nil:
			if refused++; w == nil && told < 20 {
				told++
				a.say("row %d: %s", r.Row, rowError(r.Error))
			}
		case r.Status == sdk.Suppressed:
			suppressed++
			fallthrough
		default:
			taken++
		}
		if w != nil {
			if err := w.add(sdk.BatchRow(r)); err != nil {
				return err
			}
		}
	}
	if w != nil {
		if err := w.end(); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(a.out, "%s  %d rows → %d accepted, %d of them suppressed; %d refused\n",
		run, taken+refused, taken, suppressed, refused); err != nil {
		return err
	}
	switch {
	case refused == 0:
		return nil
	case taken == 0:
		return &outcomeError{code: exitUsage, what: count(refused, "row") + " refused, and none accepted"}
	}
	return &outcomeError{code: exitPartly, what: count(refused, "row") + " refused", fix: "-o csv shows each row"}
}

func rowError(e *sdk.Error) string {
	p := problem{Error: e}
	return p.text()
}

// pumped reads a source that may block for ever, such as a terminal, without keeping the run from ending: the reader's
// goroutine ends with its source, or with the program.
func pumped(ctx context.Context, rows iter.Seq[sdk.Sendable]) iter.Seq[sdk.Sendable] {
	return func(yield func(sdk.Sendable) bool) {
		ch := make(chan sdk.Sendable)
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			defer close(ch)
			for m := range rows {
				select {
				case ch <- m:
				case <-stop:
					return
				}
			}
		}()
		for {
			select {
			case m, ok := <-ch:
				if !ok || !yield(m) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// readRows reads CSV, or JSON lines where the name or the first character says so.
func readRows(in io.Reader, name string, base sdk.MessageRequest) (iter.Seq[sdk.Sendable], error) {
	r := bufio.NewReaderSize(in, 64<<10)
	lines := false
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jsonl", ".ndjson", ".json":
		lines = true
	case ".csv":
	default:
		first, err := firstByte(r)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, &usageError{what: "cannot read", err: err}
		}
		lines = first == '{'
	}
	if lines {
		return jsonRows(r, name, base), nil
	}
	return csvRows(r, name, base)
}

func firstByte(r *bufio.Reader) (byte, error) {
	for n := 1; n <= 4096; n++ {
		b, err := r.Peek(n)
		if len(b) < n {
			return 0, err
		}
		if c := b[n-1]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, nil
		}
	}
	return 0, nil
}

// jsonRows reads a MessageRequest from each line, over the values that the flags gave.
func jsonRows(r *bufio.Reader, name string, base sdk.MessageRequest) iter.Seq[sdk.Sendable] {
	return func(yield func(sdk.Sendable) bool) {
		sc := bufio.NewScanner(r)
		sc.Buffer(make([]byte, 64<<10), maxLine)
		line := 0
		for sc.Scan() {
			line++
			text := bytes.TrimSpace(sc.Bytes())
			if len(text) == 0 {
				continue
			}
			m := base
			m.Vars = maps.Clone(base.Vars)
			if base.Approved != nil {
				approved := *base.Approved
				approved.Params = slices.Clone(approved.Params)
				m.Approved = &approved
			}
			dec := json.NewDecoder(bytes.NewReader(text))
			dec.DisallowUnknownFields()
			err := dec.Decode(&m)
			if err == nil && dec.More() {
				err = errors.New("there is more behind the object")
			}
			row := sdk.Sendable(m)
			if err != nil {
				row = sdk.Unsendable(fmt.Errorf("%s line %d: %s", name, line, strings.TrimPrefix(err.Error(), "json: ")))
			}
			if !yield(row) {
				return
			}
		}
		if err := sc.Err(); err != nil {
			yield(sdk.Unsendable(fmt.Errorf("%s line %d: %w; the rest is not read", name, line+1, err)))
		}
	}
}

// csvRows reads a header and then a message from each record.
func csvRows(r *bufio.Reader, name string, base sdk.MessageRequest) (iter.Seq[sdk.Sendable], error) {
	if b, _ := r.Peek(3); bytes.Equal(b, []byte("\xef\xbb\xbf")) {
		_, _ = r.Discard(3)
	}
	cr := csv.NewReader(r)
	cr.ReuseRecord = true
	head, err := cr.Read()
	if errors.Is(err, io.EOF) {
		return nil, &usageError{what: name + ": is empty", fix: "the first line names the columns, such as: to,text"}
	}
	if err != nil {
		return nil, &usageError{what: name, err: err}
	}
	cols := make([]string, len(head))
	seen := map[string]bool{}
	for i, h := range head {
		cols[i] = strings.TrimSpace(h)
		if cols[i] == "" || seen[cols[i]] {
			return nil, &usageError{what: fmt.Sprintf("%s: column %d has no name of its own: %q", name, i+1, cols[i])}
		}
		seen[cols[i]] = true
	}
	if seen["fallback"] {
		return nil, &usageError{
			what: name + ": column \"fallback\": CSV has no place for it",
			fix:  "JSON lines, with the field \"fallback\" of the API",
		}
	}
	to := toColumn(seen, base.Channel)
	if to == "" {
		return nil, &usageError{
			what: name + ": there is no column \"to\"",
			fix:  "rename the column that holds the addresses to: to",
		}
	}
	if base.Channel == "" && !seen["channel"] {
		return nil, &usageError{
			what: name + ": there is no column \"channel\"",
			fix:  "msgctl send CHANNEL --file " + name,
		}
	}
	return func(yield func(sdk.Sendable) bool) {
		for {
			rec, err := cr.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			var row sdk.Sendable
			var bad *csv.ParseError
			switch {
			case errors.As(err, &bad):
				row = sdk.Unsendable(fmt.Errorf("%s line %d: %w", name, bad.StartLine, bad.Err))
			case err != nil:
				yield(sdk.Unsendable(fmt.Errorf("%s: %w; the rest is not read", name, err)))
				return
			default:
				row = fromRecord(cols, rec, to, base)
			}
			if !yield(row) {
				return
			}
		}
	}, nil
}

// toColumn finds the column of the addresses.
func toColumn(seen map[string]bool, ch sdk.Channel) string {
	names := []string{"to"}
	switch ch {
	case sdk.ChannelEmail:
		names = append(names, "email", "mail")
	case sdk.ChannelWebhook:
		names = append(names, "url")
	case sdk.ChannelSMS, sdk.ChannelWhatsApp:
		names = append(names, "phone", "mobile", "number")
	}
	for _, n := range names {
		if seen[n] {
			return n
		}
	}
	return ""
}

// fromRecord makes a message: columns that are fields fill them, the others are variables of the template.
func fromRecord(cols, rec []string, to string, base sdk.MessageRequest) sdk.Sendable {
	m := base
	vars := maps.Clone(base.Vars)
	fields := map[string]*string{
		"text": &m.Text, "subject": &m.Subject, "html": &m.HTML, "from": &m.From, "reply_to": &m.ReplyTo, "event": &m.Event,
		"template": &m.Template, "send_at": &m.SendAt, "zone": &m.Zone, "expires_at": &m.ExpiresAt, "ttl": &m.TTL,
		"connector": &m.Connector, "client_ref": &m.ClientRef, "unsubscribe_url": &m.UnsubscribeURL, "delivery": &m.Delivery,
		"category": &m.Category, "tag": &m.Tag, "ordering_key": &m.OrderingKey,
	}
	for i, col := range cols {
		v := strings.Clone(rec[i])
		field := fields[col]
		switch {
		case col == to:
			m.To = v
		case col == "channel":
			if v != "" {
				m.Channel = sdk.Channel(v)
			}
		case col == "lane":
			if v != "" {
				m.Lane = sdk.Lane(v)
			}
		case col == "data":
			if v != "" {
				m.Data = json.RawMessage(v)
			}
		case field != nil:
			if v != "" {
				*field = v
			}
		default:
			if vars == nil {
				vars = sdk.Vars{}
			}
			vars[col] = v
		}
	}
	if m.Template != "" {
		m.Vars = vars
	}
	return m
}
