package templates

import (
	"math"
	"strconv"
	"strings"
)

// filterFunc makes a value of a value. It pays for what it builds before it builds it. An error is left in r.
type filterFunc func(r *run, f *call, in value, args []value) value

// filterSpec is a filter with the number of its arguments.
type filterSpec struct {
	fn       filterFunc
	min, max int
}

// filters is the one list of filters. It is only read.
var filters = allFilters()

func allFilters() map[string]filterSpec {
	return map[string]filterSpec{
		"default": {filterDefault, 1, 1},
		"raw":     {filterRaw, 0, 0},
		"json":    {filterJSON, 0, 0},
		"date":    {filterDate, 1, 1},

		"upcase":         {textFilter(1, strings.ToUpper), 0, 0},
		"downcase":       {textFilter(1, strings.ToLower), 0, 0},
		"capitalize":     {textFilter(1, capitalize), 0, 0},
		"strip":          {textFilter(0, strings.TrimSpace), 0, 0},
		"lstrip":         {textFilter(0, trimLeft), 0, 0},
		"rstrip":         {textFilter(0, trimRight), 0, 0},
		"strip_newlines": {textFilter(1, stripNewlines), 0, 0},
		"strip_html":     {textFilter(1, stripHTML), 0, 0},
		"escape":         {filterEscape, 0, 0},
		"escape_once":    {filterEscapeOnce, 0, 0},
		"newline_to_br":  {filterNewlineToBr, 0, 0},
		"url_encode":     {textFilter(3, urlEncode), 0, 0},
		"url_decode":     {filterURLDecode, 0, 0},
		"append":         {filterAppend, 1, 1},
		"prepend":        {filterPrepend, 1, 1},
		"replace":        {replacer(-1, false), 1, 2},
		"replace_first":  {replacer(1, false), 1, 2},
		"replace_last":   {replacer(1, true), 2, 2},
		"remove":         {replacer(-1, false), 1, 1},
		"remove_first":   {replacer(1, false), 1, 1},
		"remove_last":    {replacer(1, true), 1, 1},
		"truncate":       {filterTruncate, 0, 2},
		"truncatewords":  {filterTruncateWords, 0, 2},
		"split":          {filterSplit, 1, 1},
		"slice":          {filterSlice, 1, 2},

		"plus":       {arithmetic(add), 1, 1},
		"minus":      {arithmetic(subtract), 1, 1},
		"times":      {arithmetic(multiply), 1, 1},
		"divided_by": {filterDividedBy, 1, 1},
		"modulo":     {filterModulo, 1, 1},
		"at_least":   {arithmetic(atLeast), 1, 1},
		"at_most":    {arithmetic(atMost), 1, 1},
		"abs":        {filterAbs, 0, 0},
		"ceil":       {rounder(math.Ceil), 0, 0},
		"floor":      {rounder(math.Floor), 0, 0},
		"round":      {filterRound, 0, 1},

		"size":         {filterSize, 0, 0},
		"first":        {filterFirst, 0, 0},
		"last":         {filterLast, 0, 0},
		"join":         {filterJoin, 0, 1},
		"reverse":      {filterReverse, 0, 0},
		"sort":         {sorter(false), 0, 1},
		"sort_natural": {sorter(true), 0, 1},
		"uniq":         {filterUniq, 0, 1},
		"map":          {filterMap, 1, 1},
		"where":        {filterWhere, 1, 2},
		"compact":      {filterCompact, 0, 1},
		"concat":       {filterConcat, 1, 1},
	}
}

// filterDefault gives its argument for nil, false, "" and an empty list or object. With allow_false: true, false stays.
func filterDefault(_ *run, f *call, in value, args []value) value {
	if in.kind == kindBool && in.n == 0 && f.allowFalse {
		return in
	}
	if !in.truthy() || in.isEmpty() {
		return args[0]
	}
	return in
}

func filterRaw(_ *run, _ *call, in value, _ []value) value {
	in.safe = true
	return in
}

func filterJSON(r *run, _ *call, in value, _ []value) value {
	outer := r.out
	r.out = nil
	r.capturing++ // what is printed is paid for as memory
	r.printJSON(in, 0)
	r.capturing--
	text := r.kept(r.out)
	r.out = outer
	return value{kind: kindText, s: text, safe: r.t.mode == JSON}
}

// ---- numbers

// numeric reads a number. Nothing counts as 0, as in Liquid; text must be a number.
func (r *run) numeric(f *call, v value) value {
	switch v.kind {
	case kindInt, kindFloat:
		return v
	case kindNil, kindMissing:
		return intValue(0)
	case kindText:
		s := strings.TrimSpace(v.s)
		if len(s) > 40 {
			break
		}
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return intValue(n)
		}
		if x, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(x) <= maxNumber && !strings.ContainsAny(s, "xXpP_") {
			return floatValue(x)
		}
	}
	r.fail(CodeType, "%s needs a number", f.name)
	return intValue(0)
}

// inexact finishes a computation with floats. Fifteen digits hide that 0.1 + 0.2 is not 0.3 in binary.
func (r *run) inexact(f *call, x float64) value {
	if math.IsNaN(x) || math.Abs(x) > maxNumber {
		r.fail(CodeType, "the result of %s is too large", f.name)
		return value{}
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 15, 64), 64)
	if err != nil {
		short = x
	}
	return floatValue(short)
}

// operation computes with integers, as long as that is exact, or with floats.
type operation struct {
	ints   func(a, b int64) (int64, bool)
	floats func(a, b float64) float64
}

func arithmetic(op operation) filterFunc {
	return func(r *run, f *call, in value, args []value) value {
		a, b := r.numeric(f, in), r.numeric(f, args[0])
		if a.kind == kindInt && b.kind == kindInt {
			if n, ok := op.ints(a.n, b.n); ok {
				return intValue(n)
			}
			r.fail(CodeType, "the result of %s is too large", f.name)
			return value{}
		}
		return r.inexact(f, op.floats(a.float(), b.float()))
	}
}

var (
	add = operation{
		func(a, b int64) (int64, bool) { c := a + b; return c, (c > a) == (b > 0) },
		func(a, b float64) float64 { return a + b },
	}
	subtract = operation{
		func(a, b int64) (int64, bool) { c := a - b; return c, (c < a) == (b > 0) },
		func(a, b float64) float64 { return a - b },
	}
	multiply = operation{
		func(a, b int64) (int64, bool) {
			c := a * b
			return c, a == 0 || c/a == b && !(a == -1 && b == math.MinInt64)
		},
		func(a, b float64) float64 { return a * b },
	}
	atLeast = operation{func(a, b int64) (int64, bool) { return max(a, b), true }, math.Max}
	atMost  = operation{func(a, b int64) (int64, bool) { return min(a, b), true }, math.Min}
)

// filterDividedBy divides whole numbers downwards, as Ruby does: 7 by 2 is 3, -7 by 2 is -4, 7 by 2.0 is 3.5.
func filterDividedBy(r *run, f *call, in value, args []value) value {
	a, b := r.numeric(f, in), r.numeric(f, args[0])
	switch {
	case b.float() == 0:
		r.fail(CodeDivision, "divided_by divides by zero")
		return value{}
	case a.kind != kindInt || b.kind != kindInt:
		return r.inexact(f, a.float()/b.float())
	case b.n == -1:
		return arithmetic(multiply)(r, f, a, []value{b})
	}
	q := a.n / b.n
	if a.n%b.n != 0 && (a.n < 0) != (b.n < 0) {
		q--
	}
	return intValue(q)
}

// filterModulo has the sign of the divisor.
func filterModulo(r *run, f *call, in value, args []value) value {
	a, b := r.numeric(f, in), r.numeric(f, args[0])
	switch {
	case b.float() == 0:
		r.fail(CodeDivision, "modulo divides by zero")
		return value{}
	case a.kind != kindInt || b.kind != kindInt:
		m := math.Mod(a.float(), b.float())
		if m != 0 && (m < 0) != (b.float() < 0) {
			m += b.float()
		}
		return r.inexact(f, m)
	case b.n == -1:
		return intValue(0)
	}
	m := a.n % b.n
	if m != 0 && (m < 0) != (b.n < 0) {
		m += b.n
	}
	return intValue(m)
}

func filterAbs(r *run, f *call, in value, _ []value) value {
	switch v := r.numeric(f, in); {
	case v.kind == kindFloat:
		return floatValue(math.Abs(v.f))
	case v.n >= 0:
		return v
	default:
		return arithmetic(subtract)(r, f, intValue(0), []value{v})
	}
}

func rounder(round func(float64) float64) filterFunc {
	return func(r *run, f *call, in value, _ []value) value {
		v := r.numeric(f, in)
		if v.kind == kindInt {
			return v
		}
		return intValue(int64(round(v.f))) // within maxNumber
	}
}

func filterRound(r *run, f *call, in value, args []value) value {
	v := r.numeric(f, in)
	digits := int64(0)
	if len(args) > 0 {
		digits = r.integer(args[0], "the number of digits")
	}
	switch {
	case v.kind == kindInt:
		return v
	case digits <= 0:
		return intValue(int64(math.Round(v.f)))
	case digits > 15:
		return v
	}
	scale := math.Pow10(int(digits))
	// The shortest decimal form decides a half, not its binary shadow: 1.005 is a half at two digits.
	scaled, _ := strconv.ParseFloat(strconv.FormatFloat(v.f*scale, 'g', 15, 64), 64)
	if math.Abs(scaled) > maxNumber {
		return v
	}
	return r.inexact(f, math.Round(scaled)/scale)
}
