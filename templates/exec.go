package templates

import (
	"math"
	"strconv"
)

type jump flow

func (n jump) exec(*run) flow { return flow(n) }

type ifNode struct{ arms []arm }

// arm is a branch; without a condition it is the else.
type arm struct {
	when   *condition
	negate bool
	body   []node
}

func (n *ifNode) exec(r *run) flow {
	for i := range n.arms {
		a := &n.arms[i]
		if a.when == nil || a.when.test(r) != a.negate {
			return r.body(a.body)
		}
		if r.err != nil {
			break
		}
	}
	return goOn
}

type caseNode struct {
	e    expr
	arms []whenArm
	pos  int
}

// whenArm without values is the else.
type whenArm struct {
	values []expr
	body   []node
}

func (n *caseNode) exec(r *run) flow {
	v := n.e.eval(r)
	for i := range n.arms {
		a := &n.arms[i]
		match := len(a.values) == 0
		for _, w := range a.values {
			if !r.step(1) {
				return goOn
			}
			match = match || r.equal(v, r.need(w), 0)
		}
		if match {
			return r.body(a.body)
		}
	}
	return goOn
}

type forNode struct {
	name          string
	in            expr
	limit, offset expr
	reversed      bool
	body, orElse  []node
	pos           int
}

func (n *forNode) exec(r *run) flow {
	v := r.need(n.in)
	var items items
	r.pos = n.pos
	switch v.kind {
	case kindArray:
		items = overArray(v.array())
	case kindRange:
		items = overRange(v)
	case kindMap:
		items = r.overMap(v.mapped())
	case kindText:
		if v.s != "" {
			items = overArray([]any{v.s})
		}
	case kindNil, kindEmpty, kindBlank:
	default:
		r.fail(CodeType, "for goes through a list, an object or a range")
	}
	from, count := 0, items.n
	if n.offset != nil {
		from = int(max(0, min(r.integer(r.need(n.offset), "offset"), int64(count))))
		count -= from
	}
	if n.limit != nil {
		count = int(max(0, min(r.integer(r.need(n.limit), "limit"), int64(count))))
	}
	if r.err != nil {
		return goOn
	}
	if count == 0 {
		return r.body(n.orElse)
	}
	r.loops = append(r.loops, loop{name: n.name, length: count})
	at := len(r.loops) - 1
	for i := range count {
		if !r.step(1) {
			break
		}
		k := from + i
		if n.reversed {
			k = from + count - 1 - i
		}
		item := items.at(r, k)
		r.loops[at].item, r.loops[at].index = item, i
		if r.body(n.body) == breakLoop || r.err != nil {
			break
		}
	}
	r.loops = r.loops[:at]
	return goOn
}

// items is what a for goes through.
type items struct {
	n     int
	array []any
	keys  []string
	m     map[string]any
	first int64
}

func overArray(a []any) items { return items{n: len(a), array: a} }

func overRange(v value) items { return items{n: rangeLength(v), first: v.n} }

func (r *run) overMap(m map[string]any) items {
	keys := r.sortedKeys(m)
	return items{n: len(keys), keys: keys, m: m}
}

func (it *items) at(r *run, i int) value {
	switch {
	case it.array != nil:
		return r.in(it.array[i])
	case it.m != nil:
		if !r.memory(64) {
			return value{}
		}
		return arrayValue([]any{it.keys[i], it.m[it.keys[i]]})
	}
	return intValue(it.first + int64(i))
}

type assignNode struct {
	name string
	e    expr
}

func (n *assignNode) exec(r *run) flow {
	v := r.need(n.e)
	r.assign(n.name, v)
	return goOn
}

func (r *run) assign(name string, v value) {
	if r.err != nil || !r.memory(64) {
		return
	}
	if r.assigned == nil {
		r.assigned = map[string]value{}
	}
	r.assigned[name] = v
}

type captureNode struct {
	name string
	safe bool
	body []node
}

func (n *captureNode) exec(r *run) flow {
	outer := r.out
	r.out = nil
	r.capturing++
	f := r.body(n.body)
	r.capturing--
	text := r.kept(r.out)
	r.out = outer
	r.assign(n.name, value{kind: kindText, s: text, safe: n.safe})
	return f
}

// countNode is increment and decrement. They count by themselves: assign does not see them, and they do not see it.
type countNode struct {
	name string
	step int64
}

func (n *countNode) exec(r *run) flow {
	if !r.memory(32) {
		return goOn
	}
	if r.counters == nil {
		r.counters = map[string]int64{}
	}
	was := r.counters[n.name]
	r.counters[n.name] = was + n.step
	if n.step < 0 { // decrement counts first and prints then
		was += n.step
	}
	r.print(intValue(was), escNone)
	return goOn
}

type cycleNode struct {
	group  expr
	values []expr
	key    string
	esc    escaping
	pos    int
}

func (n *cycleNode) exec(r *run) flow {
	key := n.key
	if n.group != nil {
		key = "=" + r.text(r.need(n.group))
	}
	r.pos = n.pos
	if !r.memory(32 + len(key)) {
		return goOn
	}
	if r.cycles == nil {
		r.cycles = map[string]int{}
	}
	i := r.cycles[key] % len(n.values)
	r.cycles[key] = i + 1
	v := r.need(n.values[i])
	r.pos = n.pos
	r.print(v, n.esc)
	return goOn
}

// integer reads a whole number, or fails with what it was for.
func (r *run) integer(v value, what string) int64 {
	switch v.kind {
	case kindInt:
		return v.n
	case kindFloat:
		if f := math.Trunc(v.f); math.Abs(f) < maxNumber {
			return int64(f)
		}
	case kindText:
		if n, err := strconv.ParseInt(v.s, 10, 64); err == nil {
			return n
		}
	}
	r.fail(CodeType, "%s must be a whole number", what)
	return 0
}
