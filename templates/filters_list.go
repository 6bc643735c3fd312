package templates

import (
	"math/bits"
	"slices"
	"strings"
)

// items is a value as a list: a list itself, the numbers of a range, or the one thing that it is.
func (r *run) items(v value) []any {
	switch v.kind {
	case kindArray:
		return v.array()
	case kindNil, kindMissing:
		return nil
	case kindRange:
		n := rangeLength(v)
		if !r.step(n) || !r.memory(24*n) {
			return nil
		}
		a := make([]any, n)
		for i := range a {
			a[i] = v.n + int64(i)
		}
		return a
	}
	return []any{v.goValue()}
}

// copied is items in a list of its own.
func (r *run) copied(v value) []any {
	a := r.items(v)
	if !r.step(len(a)/8) || !r.memory(16*len(a)) {
		return nil
	}
	return slices.Clone(a)
}

func filterSize(r *run, _ *call, in value, _ []value) value { return intValue(int64(r.length(in))) }

func filterFirst(r *run, _ *call, in value, _ []value) value { return r.item(in, 0) }

func filterLast(r *run, _ *call, in value, _ []value) value { return r.item(in, -1) }

func filterJoin(r *run, _ *call, in value, args []value) value {
	sep := " "
	if len(args) > 0 {
		sep = r.text(args[0])
	}
	var b []byte
	for i, x := range r.items(in) {
		if !r.step(1) {
			return value{}
		}
		s := r.text(r.in(x))
		if b = r.grow(b, len(s)+len(sep)); r.err != nil {
			return value{}
		}
		if i > 0 {
			b = append(b, sep...)
		}
		b = append(b, s...)
	}
	return textValue(r.kept(b))
}

func filterReverse(r *run, _ *call, in value, _ []value) value {
	a := r.copied(in)
	slices.Reverse(a)
	return arrayValue(a)
}

// property is what a list filter looks at: the item, or a field of it.
func (r *run) property(x any, args []value) value {
	v := r.in(x)
	if len(args) == 0 {
		return v
	}
	if args[0].kind != kindText {
		r.fail(CodeType, "the name of a field must be a text")
		return value{}
	}
	return r.field(v, &seg{name: args[0].s})
}

// sorter sorts numbers before texts and nothing last; natural ignores case. The order of equals stays.
func sorter(natural bool) filterFunc {
	return func(r *run, _ *call, in value, args []value) value {
		a := r.copied(in)
		n := len(a)
		if !r.step(n*bits.Len(uint(n))/2) || !r.memory(112*n) {
			return value{}
		}
		type entry struct {
			key  value
			item any
		}
		list := make([]entry, n)
		for i, x := range a {
			list[i] = entry{r.property(x, args), x}
			if k := &list[i].key; natural && k.kind == kindText {
				if !r.memory(2 * len(k.s)) {
					return value{}
				}
				k.s = strings.ToLower(k.s)
			}
		}
		compared := 0
		slices.SortStableFunc(list, func(x, y entry) int {
			if compared++; compared%1024 == 0 {
				r.look()
			}
			if r.err != nil {
				return 0
			}
			return r.order(x.key, y.key)
		})
		for i := range list {
			a[i] = list[i].item
		}
		return arrayValue(a)
	}
}

func (r *run) order(a, b value) int {
	rank := func(v value) int64 {
		switch v.kind {
		case kindInt, kindFloat:
			return 0
		case kindText:
			return 1
		case kindNil, kindMissing:
			return 3
		}
		return 2
	}
	switch x, y := rank(a), rank(b); {
	case x != y:
		return compare(x, y)
	case x == 0 && a.kind == kindInt && b.kind == kindInt:
		return compare(a.n, b.n)
	case x == 0:
		return compare(a.float(), b.float())
	case x == 1:
		r.step(min(len(a.s), len(b.s)) / 512)
		return strings.Compare(a.s, b.s)
	}
	return 0
}

func filterUniq(r *run, _ *call, in value, args []value) value {
	a := r.items(in)
	seen := map[any]struct{}{}
	var others []value
	out := []any{}
next:
	for _, x := range a {
		if !r.step(3) || !r.memory(256) { // a set grows by doubling
			return value{}
		}
		k := r.property(x, args)
		switch k.kind {
		case kindInt, kindBool, kindNil, kindMissing, kindText, kindFloat:
			r.work(len(k.s))
			key := any(value{kind: k.kind, n: k.n, f: k.f, s: k.s})
			if k.kind == kindMissing {
				key = nil
			}
			if _, ok := seen[key]; ok {
				continue next
			}
			seen[key] = struct{}{}
		default:
			for _, o := range others {
				if !r.step(1) || r.equal(k, o, 0) {
					continue next
				}
			}
			others = append(others, k)
		}
		out = append(out, x)
	}
	return arrayValue(out)
}

func filterMap(r *run, _ *call, in value, args []value) value {
	a := r.copied(in)
	if !r.step(len(a)) || !r.memory(64*len(a)) {
		return value{}
	}
	for i, x := range a {
		a[i] = r.property(x, args).goValue()
	}
	return arrayValue(a)
}

func filterWhere(r *run, _ *call, in value, args []value) value {
	return r.filter(in, func(x any) bool {
		v := r.property(x, args[:1])
		if len(args) > 1 {
			return r.equal(v, args[1], 0)
		}
		return v.truthy()
	})
}

func filterCompact(r *run, _ *call, in value, args []value) value {
	return r.filter(in, func(x any) bool { return !r.property(x, args).isNil() })
}

func (r *run) filter(in value, keep func(any) bool) value {
	a := r.items(in)
	if !r.memory(16 * len(a)) {
		return value{}
	}
	out := make([]any, 0, len(a))
	for _, x := range a {
		if !r.step(1) {
			return value{}
		}
		if keep(x) {
			out = append(out, x)
		}
	}
	return arrayValue(out)
}

func filterConcat(r *run, f *call, in value, args []value) value {
	if args[0].kind != kindArray && args[0].kind != kindRange {
		r.fail(CodeType, "%s needs a list", f.name)
		return value{}
	}
	a, b := r.items(in), r.items(args[0])
	if !r.step((len(a)+len(b))/8) || !r.memory(16*(len(a)+len(b))) {
		return value{}
	}
	return arrayValue(append(append(make([]any, 0, len(a)+len(b)), a...), b...))
}
