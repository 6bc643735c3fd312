package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/itchyny/gojq"
	"github.com/spf13/cobra"
)

// formats are the values of -o.
func formats() []string {
	return []string{"table", "wide", "json", "yaml", "jsonl", "csv", "name", "id"}
}

// view says which fields of a value are the columns of its table. A field is a key of the API's JSON, with dots for
// what is nested.
type view struct {
	cols []string
	wide []string // more of them with -o wide
	id   string   // what -o id prints; "" = id, or name where there is no id
	none string   // said on a terminal when there are no rows
}

// shape remembers what a command prints, so that a bare --fields can list it without asking the engine.
func (a *app) shape(cmd *cobra.Command, v any) *cobra.Command {
	a.shapes[cmd] = reflect.TypeOf(v)
	return cmd
}

// format is the output format in force.
func (a *app) format() string {
	if a.flags.output != "" {
		return a.flags.output
	}
	if f := a.env("MSGCTL_OUTPUT"); f != "" {
		return f
	}
	return "table"
}

// human reports whether the answer goes out as text for a person rather than as data.
func (a *app) human() bool {
	f := a.format()
	return (f == "table" || f == "wide") && a.flags.jq == "" && a.flags.fields == ""
}

// checkOutput finds mistakes in the flags of the output before anything is done.
func (a *app) checkOutput(cmd *cobra.Command) error {
	if f := a.format(); !slices.Contains(formats(), f) {
		e := &usageError{
			what: fmt.Sprintf("there is no output format %q", f),
			fix:  "-o " + strings.Join(formats(), "|"),
		}
		if n := nearest(f, formats()); n != "" {
			e.what += fmt.Sprintf("; did you mean %q?", n)
		}
		return e
	}
	if a.flags.jq != "" {
		if _, err := gojq.Parse(a.flags.jq); err != nil {
			return &usageError{what: "--jq: " + err.Error(), fix: "see: https://jqlang.org/manual"}
		}
	}
	if a.flags.fields == "" {
		return nil
	}
	t, ok := a.shapes[cmd]
	if !ok {
		return &usageError{what: "--fields: this command has no fields"}
	}
	known := fieldsOf(t, "")
	if a.flags.fields == "?" {
		for _, f := range known {
			if _, err := fmt.Fprintln(a.out, f); err != nil {
				return err
			}
		}
		return errDone
	}
	for _, f := range a.fields() {
		root, _, _ := strings.Cut(f, ".")
		if !slices.Contains(known, f) && !slices.Contains(known, root+".*") {
			e := &usageError{what: fmt.Sprintf("--fields: there is no field %q", f), fix: "a bare --fields lists them"}
			if n := nearest(f, known); n != "" {
				e.what += fmt.Sprintf("; did you mean %q?", n)
			}
			return e
		}
	}
	return nil
}

func (a *app) fields() []string {
	var out []string
	for f := range strings.SplitSeq(a.flags.fields, ",") {
		if f = strings.TrimSpace(f); f != "" {
			out = append(out, f)
		}
	}
	return out
}

// fieldsOf lists the JSON keys of a struct type, with those of structs in it. A map shows as "name.*".
func fieldsOf(t reflect.Type, prefix string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	var out []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if ft := t.Field(i).Type; t.Field(i).Anonymous && name == "" && ft.Kind() == reflect.Struct {
			out = append(out, fieldsOf(ft, prefix)...)
			continue
		}
		if name == "-" || name == "" {
			continue
		}
		out = append(out, prefix+name)
		switch ft := t.Field(i).Type; {
		case ft.Kind() == reflect.Map:
			out = append(out, prefix+name+".*")
		case ft.Kind() == reflect.Struct && ft.PkgPath() != "time":
			out = append(out, fieldsOf(ft, prefix+name+".")...)
		}
	}
	return out
}

// list prints rows.
func list[T any](a *app, v view, rows []T) error {
	w, err := a.writer(v)
	if err != nil {
		return err
	}
	for i := range rows {
		if err := w.add(rows[i]); err != nil {
			return err
		}
	}
	return w.end()
}

// object prints one value: a table has a line per field then.
func (a *app) object(v view, value any) error {
	w, err := a.writer(v)
	if err != nil {
		return err
	}
	w.single = true
	if err := w.add(value); err != nil {
		return err
	}
	return w.end()
}

// rowWriter prints values in the format in force, each at once where the format allows it.
type rowWriter struct {
	a      *app
	view   view
	format string
	cols   []string
	picked bool // by --fields
	jq     *gojq.Code
	csv    *csv.Writer
	single bool
	live   bool // print table rows at once, in columns of fixed width
	head   bool // printed
	docs   []json.RawMessage
	cells  [][]string
}

func (a *app) writer(v view) (*rowWriter, error) {
	w := &rowWriter{a: a, view: v, format: a.format(), cols: v.cols}
	if w.format == "wide" || w.format == "csv" {
		w.cols = slices.Concat(v.cols, v.wide)
	}
	if f := a.fields(); len(f) > 0 {
		w.cols, w.picked = f, true
	}
	if a.flags.jq != "" {
		q, err := gojq.Parse(a.flags.jq)
		if err == nil {
			w.jq, err = gojq.Compile(q)
		}
		if err != nil {
			return nil, &usageError{what: "--jq: " + err.Error()}
		}
	}
	return w, nil
}

func (w *rowWriter) add(v any) error {
	doc, err := marshal(v)
	if err != nil {
		return err
	}
	var obj map[string]any
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&obj); err != nil {
		return err
	}
	if w.picked {
		if doc, err = pick(obj, w.cols); err != nil {
			return err
		}
	}
	switch {
	case w.jq != nil, w.format == "json", w.format == "yaml":
		if w.live {
			return w.doc(doc)
		}
		w.docs = append(w.docs, doc)
		return nil
	case w.format == "jsonl":
		return w.put(string(doc))
	case w.format == "name", w.format == "id":
		return w.put(clean(w.identity(obj)))
	case w.format == "csv":
		return w.record(obj)
	}
	cells := make([]string, len(w.cols))
	for i, c := range w.cols {
		cells[i] = clean(cell(field(obj, c)))
	}
	if w.live || !w.a.outTTY && !w.single {
		return w.line(cells)
	}
	w.cells = append(w.cells, cells)
	return nil
}

// identity is what names a row in a script.
func (w *rowWriter) identity(obj map[string]any) string {
	keys := []string{w.view.id, "id", "name"}
	if w.format == "name" {
		keys = []string{"name", "id", w.view.id}
	}
	for _, k := range keys {
		if s := cell(field(obj, k)); s != "" {
			return s
		}
	}
	return ""
}

// end prints what had to wait for the last row.
func (w *rowWriter) end() error {
	switch {
	case w.live:
		return nil
	case w.jq != nil, w.format == "json", w.format == "yaml":
		doc := json.RawMessage(nil)
		if w.single {
			doc = w.docs[0]
		} else {
			doc = slices.Concat([]byte("["), bytes.Join(asBytes(w.docs), []byte(",")), []byte("]"))
		}
		return w.doc(doc)
	case w.format == "csv":
		if !w.head {
			return w.csvHead()
		}
		return nil
	case w.format != "table" && w.format != "wide":
		return nil
	case w.single:
		return w.vertical()
	case !w.a.outTTY:
		return w.tableHead()
	case len(w.cells) == 0:
		if w.view.none != "" {
			w.a.say("%s", w.view.none)
		}
		return nil
	}
	return w.table()
}

func asBytes(docs []json.RawMessage) [][]byte {
	out := make([][]byte, len(docs))
	for i, d := range docs {
		out[i] = d
	}
	return out
}

// doc prints a JSON document: as it is, as YAML, or through jq.
func (w *rowWriter) doc(doc json.RawMessage) error {
	if w.jq != nil {
		return w.query(doc)
	}
	if w.format == "yaml" {
		y, err := yaml.JSONToYAML(doc)
		if err != nil {
			return err
		}
		return w.put(strings.TrimRight(string(y), "\n"))
	}
	if w.live {
		return w.put(string(doc))
	}
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "  "); err != nil {
		return err
	}
	return w.put(b.String())
}

func (w *rowWriter) query(doc json.RawMessage) error {
	var in any
	if err := json.Unmarshal(doc, &in); err != nil {
		return err
	}
	for it := w.jq.Run(in); ; {
		v, ok := it.Next()
		if !ok {
			return nil
		}
		if err, ok := v.(error); ok {
			return &usageError{what: "--jq: " + err.Error()}
		}
		s, ok := v.(string)
		if !ok {
			b, err := gojq.Marshal(v)
			if err != nil {
				return err
			}
			s = string(b)
		}
		if err := w.put(s); err != nil {
			return err
		}
	}
}

// put prints a text and a line end. On a terminal nothing in it can move the cursor.
func (w *rowWriter) put(s string) error {
	if w.a.outTTY {
		s = cleanLines(s)
	}
	_, err := fmt.Fprintln(w.a.out, s)
	return err
}

func (w *rowWriter) csvHead() error {
	w.head = true
	w.csv = csv.NewWriter(w.a.out)
	if err := w.csv.Write(w.cols); err != nil {
		return err
	}
	w.csv.Flush()
	return w.csv.Error()
}

func (w *rowWriter) record(obj map[string]any) error {
	if !w.head {
		if err := w.csvHead(); err != nil {
			return err
		}
	}
	rec := make([]string, len(w.cols))
	for i, c := range w.cols {
		rec[i] = neutral(cleanLines(cell(field(obj, c))))
	}
	if err := w.csv.Write(rec); err != nil {
		return err
	}
	w.csv.Flush()
	return w.csv.Error()
}
