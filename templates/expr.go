package templates

import (
	"math"
	"strconv"
)

// expr is a value that a template names: a literal, a path, a range, or one of these with filters.
type expr interface{ eval(r *run) value }

type literal struct{ v value }

// path is a variable with its fields: user.addresses[0].city.
type path struct {
	name string
	segs []seg
	pos  int
	text string // as it stands in the source
}

// seg is one step of a path: a name after a dot, or any value in brackets.
type seg struct {
	name string
	expr expr // nil = name
}

type rangeExpr struct {
	from, to expr
	pos      int
}

// chain is a value with its filters.
type chain struct {
	base       expr
	calls      []call
	hasDefault bool
	pos        int
}

type call struct {
	name       string
	fn         filterFunc
	args       []expr
	allowFalse bool // default: x, allow_false: true
	pos        int
}

// condition is what stands after if: comparisons joined by and, or. Liquid reads them from right to left, without a
// precedence: a or b and c is a or (b and c), a and b or c is a and (b or c).
type condition struct {
	terms []comparison
	and   []bool // between terms i and i+1
}

type comparison struct {
	op    string // empty = left alone
	l, r  expr
	pos   int
	place int
}

// expression parses a value without filters.
func (p *parser) expression() expr {
	s := p.s
	t := s.tok
	switch {
	case t.kind == tokText:
		s.next()
		return literal{textValue(t.text)}
	case t.kind == tokNumber:
		s.next()
		return literal{p.number(t)}
	case s.is("("):
		s.next()
		if !p.deeper(t.pos) {
			return literal{}
		}
		e := &rangeExpr{pos: t.pos, from: p.expression()}
		s.want("..")
		e.to = p.expression()
		s.want(")")
		p.depth--
		return e
	case t.kind == tokName || s.is("["):
		return p.path()
	case t.kind == tokEnd:
		s.fail(t.pos, CodeSyntax, "a value is missing here")
	default:
		s.fail(t.pos, CodeSyntax, "%s is not a value", quoted(t.text))
	}
	return literal{}
}

func (p *parser) number(t token) value {
	if i, err := strconv.ParseInt(t.text, 10, 64); err == nil {
		return intValue(i)
	}
	f, err := strconv.ParseFloat(t.text, 64)
	if err != nil || math.IsInf(f, 0) || math.Abs(f) > maxNumber {
		p.s.fail(t.pos, CodeSyntax, "this number is too large")
		return value{}
	}
	return floatValue(f)
}

// path parses a name with what follows it, or one of the words that are values.
func (p *parser) path() expr {
	s := p.s
	start := s.tok
	e := &path{pos: start.pos}
	var end int
	if start.kind == tokName {
		s.next()
		end = start.pos + len(start.text)
		if v, ok := wordValue(start.text); ok && !s.is(".") && !s.is("[") {
			return literal{v}
		}
		e.name = start.text
	} else { // ["a name with spaces"]
		s.next()
		if s.tok.kind != tokText {
			s.fail(s.tok.pos, CodeSyntax, "expected a name in quotes")
			return e
		}
		e.name = s.tok.text
		s.next()
		end = s.tok.pos + 1
		s.want("]")
	}
	for s.failed == nil {
		switch {
		case s.accept("."):
			end = s.tok.pos + len(s.tok.text)
			e.segs = append(e.segs, seg{name: s.name("the name of a field").text})
			continue
		case s.is("["):
			if !p.deeper(s.tok.pos) {
				return e
			}
			s.next()
			inner := p.expression()
			end = s.tok.pos + 1
			s.want("]")
			p.depth--
			e.segs = append(e.segs, seg{expr: inner})
			continue
		}
		break
	}
	if s.failed == nil {
		e.text = s.src[e.pos:end]
		p.use(e.name)
	}
	return e
}

func wordValue(name string) (value, bool) {
	switch name {
	case "nil", "null":
		return value{}, true
	case "true":
		return boolValue(true), true
	case "false":
		return boolValue(false), true
	case "empty":
		return value{kind: kindEmpty}, true
	case "blank":
		return value{kind: kindBlank}, true
	}
	return value{}, false
}

// filtered parses a value with its filters.
func (p *parser) filtered() expr {
	s := p.s
	c := &chain{pos: s.tok.pos}
	mark := len(p.uses)
	c.base = p.expression()
	for s.accept("|") {
		t := s.name("the name of a filter")
		if s.failed != nil {
			break
		}
		spec, ok := filters[t.text]
		if !ok {
			s.fail(t.pos, CodeUnknown, "there is no filter %s%s", quoted(t.text), didYouMean(t.text, filterNames()))
			break
		}
		f := call{name: t.text, fn: spec.fn, pos: t.pos}
		if t.text == "default" {
			c.hasDefault = true
			for i := mark; i < len(p.uses); i++ {
				p.uses[i].optional = true
			}
		}
		p.arguments(&f, spec)
		c.calls = append(c.calls, f)
	}
	if len(c.calls) == 0 {
		return c.base
	}
	return c
}

// arguments parses what stands behind the colon of a filter.
func (p *parser) arguments(f *call, spec filterSpec) {
	s := p.s
	if s.accept(":") {
		for {
			if f.name == "default" && s.is("allow_false") {
				s.next()
				s.want(":")
				f.allowFalse = s.is("true")
				if !s.accept("true") && !s.accept("false") {
					s.fail(s.tok.pos, CodeSyntax, "allow_false is true or false")
				}
			} else {
				if s.tok.kind == tokName && s.failed == nil {
					name := s.tok
					e := p.expression()
					if s.is(":") {
						s.fail(name.pos, CodeUnknown, "the filter %s has no argument %s", f.name, quoted(name.text))
						return
					}
					f.args = append(f.args, e)
				} else {
					f.args = append(f.args, p.expression())
				}
			}
			if s.failed != nil || !s.accept(",") {
				break
			}
		}
	}
	if n := len(f.args); s.failed == nil && (n < spec.min || n > spec.max) {
		s.fail(f.pos, CodeSyntax, "the filter %s takes %s, not %d", f.name, countWords(spec.min, spec.max), n)
	}
}

func countWords(low, high int) string {
	switch {
	case high == 0:
		return "no argument"
	case low == high && low == 1:
		return "1 argument"
	case low == high:
		return strconv.Itoa(low) + " arguments"
	}
	return strconv.Itoa(low) + " to " + strconv.Itoa(high) + " arguments"
}

// condition parses what stands after if, unless and elsif. What it names is tested, and so may be missing.
func (p *parser) condition() *condition {
	s := p.s
	c := &condition{}
	mark := len(p.uses)
	for {
		t := comparison{pos: s.tok.pos, l: p.expression()}
		if op := s.tok; op.kind == tokSign || s.is("contains") {
			switch op.text {
			case "==", "!=", "<>", "<", ">", "<=", ">=", "contains":
				t.op, t.place = op.text, op.pos
				s.next()
				t.r = p.expression()
			case "=":
				s.fail(op.pos, CodeSyntax, "compare with ==")
			case "|":
				s.fail(op.pos, CodeSyntax, "a condition has no filters: use assign before it")
			}
		}
		c.terms = append(c.terms, t)
		if s.failed == nil && (s.is("and") || s.is("or")) {
			c.and = append(c.and, s.is("and"))
			s.next()
			continue
		}
		break
	}
	for i := mark; i < len(p.uses); i++ {
		p.uses[i].optional = true
	}
	return c
}
