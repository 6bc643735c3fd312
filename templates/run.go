package templates

import (
	"math"
	"strings"
	"time"
)

// run is one rendering: its variables and what is left of its budget. The first error stays and stops everything.
type run struct {
	t    *Template
	vars map[string]any
	out  []byte
	buf  []byte // scratch of a Set, kept between renderings
	err  *Error
	pos  int // of what is evaluated, for errors

	steps     int
	nextLook  int // at which step to look at the clock
	began     time.Time
	built     int // bytes of memory
	written   int // bytes of output of the parts before
	start     int // of the output in out
	capturing int

	loops    []loop
	assigned map[string]value
	counters map[string]int64
	cycles   map[string]int
	args     [3]value
}

// loop is an open for.
type loop struct {
	name   string
	item   value
	index  int
	length int
}

const (
	lookEvery  = 256
	maxScratch = 64 << 10
)

// reset forgets everything of a rendering but scratch memory.
func (r *run) reset() {
	buf, loops := r.buf, r.loops[:0]
	clear(loops[:cap(loops)])
	if cap(buf) > maxScratch {
		buf = nil
	}
	*r = run{buf: buf, loops: loops}
}

// nextPart keeps the budget and forgets the names: the parts of a set do not see each other's.
func (r *run) nextPart(out []byte) {
	r.written += len(out)
	r.buf = out[:0]
	r.assigned, r.counters, r.cycles = nil, nil, nil
}

func (r *run) fail(code, format string, args ...any) {
	if r.err == nil {
		r.err = errorAt(r.t.src, r.pos, code, format, args...)
	}
}

// step spends n steps and reports whether that was allowed.
func (r *run) step(n int) bool {
	if r.err != nil {
		return false
	}
	r.steps += n
	if r.steps >= r.nextLook {
		return r.look()
	}
	return true
}

// look checks the number of steps, and the clock. It is the machine's and not the engine's clock that is asked, since
// it is the machine's time that is spent.
func (r *run) look() bool {
	if r.err != nil {
		return false
	}
	if r.steps > MaxSteps {
		r.fail(CodeBudget, "the template takes more than %d steps", MaxSteps)
		return false
	}
	if r.began.IsZero() {
		r.began = time.Now()
	} else if time.Since(r.began) > maxMillis*time.Millisecond {
		r.fail(CodeBudget, "the template takes more than %d milliseconds", maxMillis)
		return false
	}
	r.nextLook = min(r.steps+lookEvery, MaxSteps+1)
	return true
}

// work spends steps for going through n bytes.
func (r *run) work(n int) bool { return r.step(n / 128) }

// memory spends n bytes and reports whether that was allowed.
func (r *run) memory(n int) bool {
	if r.err != nil {
		return false
	}
	if n < 0 || n > MaxMemory-r.built {
		r.fail(CodeBudget, "the template needs more than %d MB of memory", MaxMemory>>20)
		return false
	}
	r.built += n
	return r.work(n)
}

func (r *run) body(nodes []node) flow {
	for _, n := range nodes {
		if !r.step(1) {
			return breakLoop
		}
		if f := n.exec(r); f != goOn || r.err != nil {
			return f
		}
	}
	return goOn
}

// room reports whether n more bytes may be printed.
func (r *run) room(n int) bool {
	if r.err != nil {
		return false
	}
	if r.capturing > 0 {
		r.out = r.grow(r.out, n)
		return r.err == nil
	}
	if n > MaxOutput-(r.written+len(r.out)-r.start) {
		r.fail(CodeBudget, "the output is longer than %d bytes", MaxOutput)
		return false
	}
	return true
}

// grow makes room for n more bytes in b, and pays for it. It doubles, so that the garbage is no more than what is kept.
func (r *run) grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	size := max(2*cap(b), len(b)+n, 64)
	if !r.memory(size) {
		return b
	}
	return append(make([]byte, 0, size), b...)
}

// kept is b as a text.
func (r *run) kept(b []byte) string {
	if !r.memory(len(b)) {
		return ""
	}
	return string(b)
}

// textNode is literal text.
type textNode string

func (n textNode) exec(r *run) flow {
	if r.room(len(n)) {
		r.out = append(r.out, n...)
	}
	return goOn
}

// outputNode is {{ … }}.
type outputNode struct {
	e    expr
	name string // of a variable without fields and filters; else empty
	esc  escaping
	pos  int
}

func (n *outputNode) exec(r *run) flow {
	r.pos = n.pos
	if n.name != "" && len(r.loops) == 0 && r.assigned == nil && r.counters == nil {
		// The way of most templates: a name and a text.
		if s, ok := r.vars[n.name].(string); ok {
			r.print(textValue(s), n.esc)
			return goOn
		}
	}
	v := r.need(n.e)
	r.pos = n.pos
	r.print(v, n.esc)
	return goOn
}

// need evaluates e, which may not be missing. An error points at the path that is.
func (r *run) need(e expr) value {
	v := e.eval(r)
	if v.kind == kindMissing {
		r.missing(v)
		return value{}
	}
	return v
}

func (r *run) missing(v value) {
	if r.t.lenient || r.err != nil {
		return
	}
	r.pos = int(v.n)
	r.fail(CodeMissing, "the variable %s is missing: give it, or add | default: \"…\"", quoted(v.s))
	r.err.Variable = v.s
}

func (l literal) eval(*run) value { return l.v }

func (e *rangeExpr) eval(r *run) value {
	from, to := r.need(e.from), r.need(e.to)
	r.pos = e.pos
	return rangeValue(r.integer(from, "the ends of a range"), r.integer(to, "the ends of a range"))
}

func (c *chain) eval(r *run) value {
	v := c.base.eval(r)
	if v.kind == kindMissing && !c.hasDefault {
		r.missing(v)
		v = value{}
	}
	for i := range c.calls {
		f := &c.calls[i]
		if !r.step(1 + len(v.s)/1024) {
			return value{}
		}
		if f.name == "default" && v.truthy() && !v.isEmpty() {
			continue // its argument may be missing when nobody needs it
		}
		for j, a := range f.args {
			r.args[j] = r.need(a)
		}
		r.pos = f.pos
		v = f.fn(r, f, v, r.args[:len(f.args)])
		if r.err != nil {
			return value{}
		}
	}
	return v
}

// eval looks a path up. What is not there is kindMissing, with the path's text and place.
func (e *path) eval(r *run) value {
	if !r.step(1 + len(e.segs)) {
		return value{}
	}
	v, ok := r.lookup(e.name)
	if !ok {
		r.pos = e.pos
		r.fail(CodeType, "the variable %s is of a kind that a template cannot read", quoted(e.name))
	}
	for i := range e.segs {
		if r.err != nil || v.isNil() {
			break
		}
		v = r.field(v, &e.segs[i])
	}
	if v.isNil() {
		return value{kind: kindMissing, s: e.text, n: int64(e.pos)}
	}
	return v
}

func (r *run) lookup(name string) (value, bool) {
	for i := len(r.loops) - 1; i >= 0; i-- {
		if r.loops[i].name == name {
			return r.loops[i].item, true
		}
	}
	if name == "forloop" && len(r.loops) > 0 {
		return value{kind: kindLoop, n: int64(len(r.loops) - 1)}, true
	}
	if v, ok := r.assigned[name]; ok {
		return v, true
	}
	if n, ok := r.counters[name]; ok {
		return intValue(n), true
	}
	x, ok := r.vars[name]
	if !ok {
		return value{}, true
	}
	switch x.(type) {
	case []string, []map[string]any, map[string]string:
		return r.in(x), true
	}
	return valueOf(x)
}

// field takes one step of a path.
func (r *run) field(v value, s *seg) value {
	name := s.name
	if s.expr != nil {
		key := r.need(s.expr)
		if key.kind == kindInt {
			return r.item(v, key.n)
		}
		if key.kind != kindText {
			return value{}
		}
		name = key.s
	}
	switch v.kind {
	case kindMap:
		if x, ok := v.mapped()[name]; ok {
			return r.in(x)
		}
		if name == "size" {
			return intValue(int64(r.length(v)))
		}
	case kindLoop:
		return r.loopField(int(v.n), name)
	case kindText, kindArray, kindRange:
		switch {
		case name == "size":
			return intValue(int64(r.length(v)))
		case name == "first" && v.kind != kindText:
			return r.item(v, 0)
		case name == "last" && v.kind != kindText:
			return r.item(v, -1)
		}
	}
	return value{}
}

// item is one of an array or a range; a negative index counts from the end.
func (r *run) item(v value, i int64) value {
	switch v.kind {
	case kindArray:
		a := v.array()
		if i < 0 {
			i += int64(len(a))
		}
		if i >= 0 && i < int64(len(a)) {
			return r.in(a[i])
		}
	case kindRange:
		n := int64(rangeLength(v))
		if i < 0 {
			i += n
		}
		if i >= 0 && i < n {
			return intValue(v.n + i)
		}
	}
	return value{}
}

func (r *run) loopField(i int, name string) value {
	if i >= len(r.loops) { // kept by assign beyond its loop
		return value{}
	}
	l := &r.loops[i]
	switch name {
	case "index":
		return intValue(int64(l.index + 1))
	case "index0":
		return intValue(int64(l.index))
	case "rindex":
		return intValue(int64(l.length - l.index))
	case "rindex0":
		return intValue(int64(l.length - l.index - 1))
	case "first":
		return boolValue(l.index == 0)
	case "last":
		return boolValue(l.index == l.length-1)
	case "length":
		return intValue(int64(l.length))
	case "name":
		return textValue(l.name)
	case "parentloop":
		if i > 0 {
			return value{kind: kindLoop, n: int64(i - 1)}
		}
	}
	return value{}
}

func (c *condition) test(r *run) bool {
	for i := range c.terms {
		ok := c.terms[i].test(r)
		if i == len(c.and) || r.err != nil || ok != c.and[i] {
			return ok
		}
	}
	return false
}

func (c *comparison) test(r *run) bool {
	if !r.step(1) {
		return false
	}
	l := c.l.eval(r)
	if c.op == "" {
		return l.truthy()
	}
	rhs := c.r.eval(r)
	r.pos = c.place
	switch c.op {
	case "==":
		return r.equal(l, rhs, 0)
	case "!=", "<>":
		return !r.equal(l, rhs, 0)
	case "contains":
		return r.contains(l, rhs)
	}
	if l.isNil() || rhs.isNil() {
		return false
	}
	order := 0
	switch {
	case l.kind == kindInt && rhs.kind == kindInt:
		order = compare(l.n, rhs.n)
	case l.number() && rhs.number():
		order = compare(l.float(), rhs.float())
	case l.kind == kindText && rhs.kind == kindText:
		r.work(min(len(l.s), len(rhs.s)))
		order = strings.Compare(l.s, rhs.s)
	case l.kind == kindTime && rhs.kind == kindTime:
		order = l.ref.(time.Time).Compare(rhs.ref.(time.Time))
	default:
		r.fail(CodeType, "%s compares two numbers or two texts", c.op)
		return false
	}
	switch c.op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func compare[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *run) contains(l, v value) bool {
	switch l.kind {
	case kindText:
		if v.isNil() {
			return false
		}
		s := r.text(v)
		r.work(len(l.s) + len(s))
		return r.err == nil && strings.Contains(l.s, s)
	case kindArray:
		for _, x := range l.array() {
			if !r.step(1) {
				return false
			}
			if r.equal(r.in(x), v, 0) {
				return true
			}
		}
	case kindMap:
		_, ok := l.mapped()[v.s]
		return ok && v.kind == kindText
	case kindRange:
		return v.kind == kindInt && v.n >= l.n && v.n <= int64(math.Float64bits(l.f))
	}
	return false
}
