// Package templates compiles, checks and renders message templates written in Liquid.
//
// A template is text by a stranger that runs on our machine. Nothing in it can reach a file, a clock, the network or a
// variable that was not given, and each rendering has a budget: whatever is spent first ends it with an *Error. A
// variable is only ever data: its value is printed, never read as a template.
//
// The language is that of Shopify (https://shopify.github.io/liquid, read 2026-11) with these differences, all towards
// an error where Liquid prints nothing: a missing variable without default, a division by zero, an unknown filter or
// tag, text where a number is needed.
package templates

import (
	"fmt"
	"sync"
)

// The budget of one rendering; a Set shares it between its parts.
const (
	MaxSource = 256 << 10 // bytes of source
	MaxOutput = 256 << 10 // bytes of output
	MaxSteps  = 100_000   // evaluated nodes, and work in proportion
	MaxMemory = 8 << 20   // bytes built on the way, counted and never given back
	MaxDepth  = 32        // nested tags
	maxMillis = 50        // on the monotonic clock
)

// Mode says what a template renders to, which decides how values are escaped.
type Mode uint8

// The modes.
const (
	// Plain prints values as they are.
	Plain Mode = iota
	// HTML escapes every value for the place it stands in, except after the filters raw and escape.
	HTML
	// JSON writes a value inside quotes as the inside of a JSON string, and elsewhere as a JSON value of its own type.
	JSON
	// line is Plain with the template's own line breaks turned into spaces: a subject.
	line
)

// The codes of Error.
const (
	CodeSyntax     = "syntax"
	CodeUnknown    = "unknown_name"     // a tag or filter that does not exist
	CodeForbidden  = "forbidden"        // a tag that would reach outside of the template
	CodeMissing    = "missing_variable" // Variable says which
	CodeDivision   = "division_by_zero"
	CodeType       = "wrong_type"
	CodeBudget     = "too_expensive"
	CodeUnsafe     = "unsafe_place" // a value where escaping cannot make it safe
	CodeControl    = "control_character"
	CodeEmpty      = "empty"
	CodeBadJSON    = "invalid_json"
	CodeNotForKind = "not_for_channel"
)

// Error says what is wrong with a template, or with the variables it was given. No field holds a variable's value.
type Error struct {
	Part         string // of a Set: text, subject, html, data, params[0]; else empty
	Line, Column int    // from 1, in characters; 0 when no place is to blame
	Code         string
	Reason       string // one sentence for the author
	Variable     string // with CodeMissing
}

func (e *Error) Error() string {
	s := e.Reason
	if e.Line > 0 {
		s = fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, s)
	}
	if e.Part != "" {
		s = e.Part + ": " + s
	}
	return s
}

// Variable is a name that a template reads from what it is given.
type Variable struct {
	Name     string
	Optional bool // every use has a default, is a test, or stands under a test of the same name
}

// Template is a compiled template. It never changes and may be used from many goroutines.
type Template struct {
	src     string
	mode    Mode
	nodes   []node
	vars    []Variable
	lenient bool
	weight  int // bytes of memory, roughly
	runs    sync.Pool
}

// Compile checks src and prepares it. Every error is an *Error with line and column.
func Compile(src string, mode Mode) (*Template, error) {
	t := &Template{src: src, mode: mode}
	if len(src) > MaxSource {
		return nil, &Error{Code: CodeBudget, Reason: fmt.Sprintf("a template has at most %d bytes", MaxSource)}
	}
	p := newParser(src, mode)
	t.nodes = p.parse()
	if p.err != nil {
		return nil, p.err
	}
	t.vars = p.variables()
	t.weight = len(src) + 150*p.tokens
	return t, nil
}

// Lenient returns a template that prints nothing for a missing variable, for previews.
func (t *Template) Lenient() *Template {
	return &Template{src: t.src, mode: t.mode, nodes: t.nodes, vars: t.vars, lenient: true}
}

// Variables lists the variables that the template reads, in order of their first use. Fields of a variable are not
// listed, and neither are names that the template itself assigns.
func (t *Template) Variables() []Variable { return append([]Variable(nil), t.vars...) }

// Render appends the rendered template to dst. Vars holds what JSON holds: nil, bool, numbers, string, time.Time, []any
// and map[string]any, and may be read by other goroutines meanwhile. A JSON null counts as missing. Every error is an
// *Error; dst is then returned as it was.
func (t *Template) Render(dst []byte, vars map[string]any) ([]byte, error) {
	r, _ := t.runs.Get().(*run)
	if r == nil {
		r = &run{}
	}
	out, err := t.render(r, dst, vars)
	r.reset()
	t.runs.Put(r)
	return out, err
}

// render spends r's budget.
func (t *Template) render(r *run, dst []byte, vars map[string]any) ([]byte, error) {
	r.t, r.vars, r.out, r.start = t, vars, dst, len(dst)
	r.body(t.nodes)
	if r.err != nil {
		return dst, r.err
	}
	return r.out, nil
}

// errorAt makes an error that points at an offset in src.
func errorAt(src string, pos int, code, format string, args ...any) *Error {
	lineNo, column := 1, 1
	for _, c := range src[:min(pos, len(src))] {
		if c == '\n' {
			lineNo, column = lineNo+1, 1
		} else {
			column++
		}
	}
	return &Error{Line: lineNo, Column: column, Code: code, Reason: fmt.Sprintf(format, args...)}
}
