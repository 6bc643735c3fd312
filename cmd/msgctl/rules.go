package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// A tenant's routing and retry rules are lists in which the first match decides. They are read and replaced whole: from
// a file, or by reading them, changing one, and writing them back.

// rulesFile is a file of rules as it was read. It remembers where each value stands, for what the engine refuses later.
type rulesFile struct {
	name  string
	noun  string // route or retry
	nodes *ast.File
	under string // "rules" when the list stands under that key, as in the API's own form
}

// readRules reads a list of rules, or an object with the list under "rules", as YAML or JSON. Unknown keys are refused
// with their line and column.
func readRules[T any](a *app, noun, path string) (*rulesFile, []T, error) {
	f := &rulesFile{name: path, noun: noun}
	var (
		text string
		err  error
	)
	if path == "-" {
		f.name = "stdin"
		text, err = a.readText()
	} else {
		text, err = readFile(path)
	}
	if err != nil {
		return nil, nil, err
	}
	if f.nodes, err = parser.ParseBytes([]byte(text), 0); err != nil {
		return nil, nil, f.wrong(err)
	}
	f.nodes.Docs = slices.DeleteFunc(f.nodes.Docs, func(d *ast.DocumentNode) bool { return d.Body == nil })
	switch len(f.nodes.Docs) {
	case 0:
		return nil, nil, &usageError{what: f.name + ": is empty", fix: "no rules at all are an empty list: []"}
	case 1:
	default:
		return nil, nil, f.at(f.nodes.Docs[1].Body, "a second document begins; all rules stand in one list")
	}
	body := f.nodes.Docs[0].Body
	check := &scalars{}
	ast.Walk(check, body)
	if check.bad != nil {
		return nil, nil, f.at(check.bad, "a weight is a whole number")
	}
	var in struct {
		Rules *[]T `yaml:"rules"`
	}
	switch body.(type) {
	case *ast.SequenceNode:
		in.Rules = &[]T{}
		err = yaml.NodeToValue(body, in.Rules, yaml.Strict())
	case *ast.MappingNode, *ast.MappingValueNode:
		if f.under = "rules"; f.find() == nil {
			return nil, nil, f.at(body, `here are no rules: they stand in a list, each after a dash, or under "rules"`)
		}
		err = yaml.NodeToValue(body, &in, yaml.Strict())
	default:
		return nil, nil, f.at(body, "here begins no list of rules")
	}
	if err != nil {
		return nil, nil, f.wrong(err)
	}
	if in.Rules == nil {
		return nil, nil, f.at(body, `there is no list under "rules"`) // but null
	}
	return f, *in.Rules, nil
}

// scalars keeps texts as they are written. YAML takes +91 for the number 91, and a prefix is no number; only a weight
// is one.
type scalars struct{ bad ast.Node }

// Visit implements ast.Visitor.
func (s *scalars) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.MappingValueNode:
		if n.Key.GetToken().Value != "weight" {
			n.Value = asText(n.Value)
		} else if _, ok := n.Value.(*ast.IntegerNode); !ok && s.bad == nil {
			s.bad = n.Value
		}
	case *ast.SequenceNode:
		for i := range n.Values {
			n.Values[i] = asText(n.Values[i])
		}
	case *ast.AnchorNode:
		n.Value = asText(n.Value)
	}
	return s
}

func asText(n ast.Node) ast.Node {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return ast.String(n.GetToken())
	}
	return n
}

// wrong says where a file cannot be read, and why.
func (f *rulesFile) wrong(err error) error {
	var (
		y    yaml.Error
		kind *yaml.UnexpectedNodeTypeError
	)
	if !errors.As(err, &y) || y.GetToken() == nil {
		return &usageError{what: f.name + ": " + oneLine(err.Error())}
	}
	what := oneLine(y.GetMessage())
	if errors.As(err, &kind) {
		what = fmt.Sprintf("a %s stands where a %s belongs",
			strings.ToLower(kind.Actual.YAMLName()), strings.ToLower(kind.Expected.YAMLName()))
	}
	return f.mistake(y.GetToken().Position, what)
}

// at says what is wrong with a value.
func (f *rulesFile) at(n ast.Node, what string) error { return f.mistake(begin(n), what) }

// begin is where a value begins. The token of an object is its first colon.
func begin(n ast.Node) *token.Position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return begin(n.Values[0])
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken().Position
	}
	return n.GetToken().Position
}

func (f *rulesFile) mistake(at *token.Position, what string) error {
	return &usageError{
		what: fmt.Sprintf("%s:%d:%d: %s", f.name, at.Line, at.Column, what),
		fix:  "see the form: msgctl " + f.noun + " set --help",
	}
}

// refused adds the place in the file to what the engine refuses, by its JSON Pointer (RFC 6901). What is missing has the
// place of what it is missing in.
func (f *rulesFile) refused(err error) error {
	var e *sdk.Error
	if f == nil || !errors.As(err, &e) || len(e.Fields) == 0 {
		return err
	}
	steps := strings.Split(strings.TrimPrefix(e.Fields[0].Pointer, "/"), "/")
	if len(steps) < 2 || steps[0] != "rules" {
		return err
	}
	for steps = steps[1:]; len(steps) > 0; steps = steps[:len(steps)-1] {
		if n := f.find(steps...); n != nil {
			at := begin(n)
			return fmt.Errorf("%s:%d:%d: %w", f.name, at.Line, at.Column, err)
		}
	}
	return err
}

// find returns the value at a place in the list, or the list itself; nil when there is none.
func (f *rulesFile) find(steps ...string) ast.Node {
	path := (&yaml.PathBuilder{}).Root()
	if f.under != "" {
		path = path.Child(f.under)
	}
	for _, s := range steps {
		if i, err := strconv.ParseUint(s, 10, 31); err == nil {
			path = path.Index(uint(i))
		} else {
			path = path.Child(s)
		}
	}
	n, err := path.Build().FilterFile(f.nodes)
	if err != nil || n == nil || n.GetToken() == nil {
		return nil
	}
	return n
}

// place is where an added rule goes: the place N from 1, or the end for 0.
func place[T any](rules []T, rule T, at int) ([]T, error) {
	switch {
	case at == 0:
		return append(rules, rule), nil
	case at < 0 || at > len(rules)+1:
		return nil, &usageError{what: fmt.Sprintf("--at %d: there is no such place", at),
			fix: fmt.Sprintf("1 to %d, or without --at at the end", len(rules)+1)}
	}
	return slices.Insert(rules, at-1, rule), nil
}

// rulesWithout takes rules away by their numbers from 1. It returns what stays and what goes.
func rulesWithout[T any](noun string, rules []T, numbers []string) (stay, gone []T, err error) {
	out := map[int]bool{}
	for _, s := range numbers {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, nil, &usageError{what: fmt.Sprintf("%q is no number of a rule", s), fix: "see: msgctl " + noun + " ls"}
		}
		if n > len(rules) {
			return nil, nil, &outcomeError{
				code: exitNotFound, what: fmt.Sprintf("there is no rule %d; there are %d", n, len(rules)),
				fix: "see: msgctl " + noun + " ls",
			}
		}
		out[n-1] = true
	}
	for i, r := range rules {
		if out[i] {
			gone = append(gone, r)
		} else {
			stay = append(stay, r)
		}
	}
	return stay, gone, nil
}

// plain reports whether rules go out as they go in: in the form that set reads.
func (a *app) plain() bool {
	f := a.format()
	return a.flags.fields == "" && (a.flags.jq != "" || f == "json" || f == "yaml" || f == "jsonl")
}

// numbersOnly completes with nothing: a number is at hand in what ls shows.
func numbersOnly(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}
