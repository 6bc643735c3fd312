package templates

import (
	"encoding/json"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// value is what an expression is worth. Arrays are []any and maps map[string]any, as in the variables.
type value struct {
	kind kind
	safe bool // HTML that is escaped already
	n    int64
	f    float64
	s    string
	ref  any
}

type kind uint8

const (
	kindNil kind = iota
	kindMissing
	kindBool // n
	kindInt
	kindFloat
	kindText
	kindArray
	kindMap
	kindTime  // ref
	kindRange // n to f's bits
	kindLoop  // n = index into run.loops
	kindEmpty
	kindBlank
)

// maxNumber keeps numbers printable: above it a float has more digits than anybody reads.
const maxNumber = 1e18

func textValue(s string) value   { return value{kind: kindText, s: s} }
func intValue(n int64) value     { return value{kind: kindInt, n: n} }
func boolValue(b bool) value     { return value{kind: kindBool, n: int64(b2i(b))} }
func arrayValue(a []any) value   { return value{kind: kindArray, ref: a} }
func floatValue(f float64) value { return value{kind: kindFloat, f: f} }

// valueOf takes in a Go value. JSON knows one kind of number: a float that is whole is an integer here, so that 42 is
// printed as 42.
func valueOf(x any) (value, bool) {
	switch x := x.(type) {
	case nil:
		return value{}, true
	case string:
		return textValue(x), true
	case bool:
		return boolValue(x), true
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
			return intValue(int64(x)), true
		}
		return floatValue(x), !math.IsNaN(x) && !math.IsInf(x, 0)
	case int:
		return intValue(int64(x)), true
	case int64:
		return intValue(x), true
	case []any:
		return arrayValue(x), true
	case map[string]any:
		return value{kind: kindMap, ref: x}, true
	case kept:
		return value(x), true
	case time.Time:
		return value{kind: kindTime, ref: x}, true
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return intValue(n), true
		}
		f, err := x.Float64()
		if err != nil {
			return value{}, false
		}
		return valueOf(f)
	case int32:
		return intValue(int64(x)), true
	case uint32:
		return intValue(int64(x)), true
	case uint64:
		return intValue(int64(x)), x <= math.MaxInt64
	case float32:
		return valueOf(float64(x))
	case []string:
		a := make([]any, len(x))
		for i := range x {
			a[i] = x[i]
		}
		return arrayValue(a), true
	case []map[string]any:
		a := make([]any, len(x))
		for i := range x {
			a[i] = x[i]
		}
		return arrayValue(a), true
	case map[string]string:
		m := make(map[string]any, len(x))
		for k, v := range x {
			m[k] = v
		}
		return value{kind: kindMap, ref: m}, true
	}
	return value{}, false
}

// kept is a value inside of an array that the template made, where a Go value would lose something: 2.0 is not 2.
type kept value

// goValue is the way back.
func (v value) goValue() any {
	switch v.kind {
	case kindBool:
		return v.n != 0
	case kindInt:
		return v.n
	case kindText:
		return v.s
	case kindArray, kindMap, kindTime:
		return v.ref
	case kindFloat, kindRange:
		return kept(v)
	}
	return nil
}

func (v value) isNil() bool { return v.kind == kindNil || v.kind == kindMissing }

// truthy: everything is but nil and false. The empty string and 0 are true in Liquid.
func (v value) truthy() bool { return !v.isNil() && (v.kind != kindBool || v.n != 0) }

func (v value) array() []any { a, _ := v.ref.([]any); return a }

func (v value) mapped() map[string]any { m, _ := v.ref.(map[string]any); return m }

// length is the number of items, and for text of characters.
func (r *run) length(v value) int {
	switch v.kind {
	case kindText:
		r.work(len(v.s))
		return runeCount(v.s)
	case kindArray:
		return len(v.array())
	case kindMap:
		return len(v.mapped())
	case kindRange:
		return rangeLength(v)
	}
	return 0
}

func runeCount(s string) int {
	n := 0
	for range s {
		n++
	}
	return n
}

func rangeValue(from, to int64) value {
	return value{kind: kindRange, n: from, f: math.Float64frombits(uint64(to))}
}

func rangeLength(v value) int {
	to := int64(math.Float64bits(v.f))
	if to < v.n {
		return 0
	}
	if d := uint64(to) - uint64(v.n); d < math.MaxInt32 {
		return int(d) + 1
	}
	return math.MaxInt32
}

// isEmpty is x == empty; isBlank is x == blank.
func (v value) isEmpty() bool {
	switch v.kind {
	case kindText:
		return v.s == ""
	case kindArray:
		return len(v.array()) == 0
	case kindMap:
		return len(v.mapped()) == 0
	}
	return v.kind == kindEmpty
}

func (v value) isBlank() bool {
	return v.isNil() || v.kind == kindBlank || v.kind == kindBool && v.n == 0 || v.isEmpty() ||
		v.kind == kindText && strings.TrimSpace(v.s) == ""
}

// equal is ==.
func (r *run) equal(a, b value, depth int) bool {
	if a.kind == kindEmpty || a.kind == kindBlank {
		a, b = b, a
	}
	switch {
	case b.kind == kindEmpty:
		return a.isEmpty()
	case b.kind == kindBlank:
		r.work(len(a.s))
		return a.isBlank()
	case a.isNil() || b.isNil():
		return a.isNil() && b.isNil()
	case a.kind == kindInt && b.kind == kindInt, a.kind == kindBool && b.kind == kindBool:
		return a.n == b.n
	case a.number() && b.number():
		return a.float() == b.float()
	case a.kind == kindText && b.kind == kindText:
		r.work(min(len(a.s), len(b.s)))
		return a.s == b.s
	case a.kind == kindTime && b.kind == kindTime:
		return a.ref.(time.Time).Equal(b.ref.(time.Time))
	case a.kind == kindRange && b.kind == kindRange:
		return a.n == b.n && a.f == b.f
	case a.kind != b.kind || depth > MaxDepth:
		return false
	case a.kind == kindArray:
		x, y := a.array(), b.array()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !r.step(1) || !r.equal(r.in(x[i]), r.in(y[i]), depth+1) {
				return false
			}
		}
		return true
	case a.kind == kindMap:
		x, y := a.mapped(), b.mapped()
		if len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !r.step(1) || !r.equal(r.in(v), r.in(w), depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

func (v value) number() bool { return v.kind == kindInt || v.kind == kindFloat }

func (v value) float() float64 {
	if v.kind == kindInt {
		return float64(v.n)
	}
	return v.f
}

// in takes in an item of an array or a map. What no template can hold is nil.
func (r *run) in(x any) value {
	switch x := x.(type) {
	case []string:
		r.memory(32 * len(x))
	case []map[string]any:
		r.memory(32 * len(x))
	case map[string]string:
		r.memory(96 * len(x))
	}
	if r.err != nil {
		return value{}
	}
	v, _ := valueOf(x)
	return v
}

// sortedKeys gives maps an order: Go has none, and two renderings must be the same.
func (r *run) sortedKeys(m map[string]any) []string {
	if !r.step(len(m)) || !r.memory(16*len(m)) {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// appendScalar prints a value that is neither text nor a container.
func appendScalar(dst []byte, v value) []byte {
	switch v.kind {
	case kindBool:
		return strconv.AppendBool(dst, v.n != 0)
	case kindInt:
		return strconv.AppendInt(dst, v.n, 10)
	case kindFloat:
		return appendFloat(dst, v.f)
	case kindTime:
		return v.ref.(time.Time).AppendFormat(dst, "2006-01-02 15:04:05 -0700")
	case kindRange:
		dst = strconv.AppendInt(dst, v.n, 10)
		dst = append(dst, ".."...)
		return strconv.AppendInt(dst, int64(math.Float64bits(v.f)), 10)
	}
	return dst
}

// appendFloat prints as Liquid does: 2.0, 0.5, never an exponent.
func appendFloat(dst []byte, f float64) []byte {
	n := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[n:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// text is a value as filters for text see it.
func (r *run) text(v value) string { return r.textAt(v, 0) }

func (r *run) textAt(v value, depth int) string {
	switch v.kind {
	case kindText:
		return v.s
	case kindArray:
		if depth >= MaxDepth {
			r.fail(CodeBudget, "lists are nested more than %d deep", MaxDepth)
			return ""
		}
		var b []byte
		for _, x := range v.array() {
			if !r.step(1) {
				return ""
			}
			s := r.textAt(r.in(x), depth+1)
			if b = r.grow(b, len(s)); r.err != nil {
				return ""
			}
			b = append(b, s...)
		}
		return r.kept(b)
	case kindMap:
		r.fail(CodeType, "an object cannot be printed: name one of its fields, or use the filter json")
		return ""
	case kindNil, kindMissing, kindEmpty, kindBlank, kindLoop:
		return ""
	}
	if !r.memory(32) {
		return ""
	}
	return string(appendScalar(nil, v))
}
