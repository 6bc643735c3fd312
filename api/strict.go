package api

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// maxDepth is how deep a body may nest.
const maxDepth = 100

// decode reads one JSON object into v, which points to a struct. It refuses everything that two readers could
// understand in two ways: unknown and repeated names, bytes that are not UTF-8, anything behind the object. Names are
// matched exactly. The error is a *sdk.Error.
func decode(body []byte, v any) error {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) // RFC 8259 §8.1 lets a parser ignore a byte order mark
	start := 0
	for start < len(body) && isSpace(body[start]) {
		start++
	}
	switch rest := body[start:]; {
	case len(rest) == 0:
		return fail("body_required", "the body is empty: send a JSON object")
	case rest[0] == '[':
		return fail("body_required", "the body is a JSON array: send one JSON object")
	case rest[0] == 'n' && bytes.Equal(bytes.TrimRight(rest, " \t\r\n"), []byte("null")):
		return fail("body_required", "the body is null: send a JSON object")
	}
	end, err := scan(body)
	if err != nil {
		return err
	}
	if _, plain := v.(*messageIn); plain { // it has no numbers, and is read far more often than all others
		err = json.Unmarshal(body, v, json.RejectUnknownMembers(true))
	} else {
		err = json.Unmarshal(body, v, strictOptions())
	}
	if err == nil {
		return nil
	}
	return explainJSON(body, end, v, err)
}

func strictOptions() json.Options {
	return json.JoinOptions(json.RejectUnknownMembers(true), json.WithUnmarshalers(json.JoinUnmarshalers(
		json.UnmarshalFromFunc(readInt[int]), json.UnmarshalFromFunc(readInt[int64]))))
}

// readInt reads a whole number. It refuses -0, which JSON has and whole numbers have not: who writes it means something
// else.
func readInt[T int | int64](d *jsontext.Decoder, v *T) error {
	if d.PeekKind() != '0' {
		return errors.ErrUnsupported
	}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(raw), 10, strconv.IntSize)
	if err != nil || string(raw) == "-0" {
		return &numberError{string(raw)}
	}
	*v = T(n)
	return nil
}

// numberError is a number that a field cannot hold.
type numberError struct{ text string }

func (e *numberError) Error() string { return e.text + " is not a whole number" }
func (e *numberError) Unwrap() error { return strconv.ErrRange }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// scan looks for what the decoder allows or cannot tell apart: nesting beyond maxDepth, bytes that are not UTF-8,
// U+0000 and lone surrogates. It returns the offset behind the first value, as far as brackets show it, else the
// length.
func scan(body []byte) (end int, err error) {
	if !utf8.Valid(body) {
		i := 0
		for i < len(body) {
			r, n := utf8.DecodeRune(body[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		return 0, fail("invalid_encoding", "%s: the body is not valid UTF-8", position(body, i))
	}
	end = len(body)
	depth, done := 0, false
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			depth++
			if depth > maxDepth {
				return 0, fail("json_too_deep", "%s: the body nests deeper than %d levels", position(body, i), maxDepth)
			}
		case '}', ']':
			depth--
			if depth == 0 && !done {
				end, done = i+1, true
			}
		case 0:
			return 0, fail("invalid_encoding", "%s: U+0000 is not allowed", position(body, i))
		case '"':
			if i, err = scanString(body, i+1); err != nil {
				return 0, err
			}
		}
	}
	return end, nil
}

// scanString returns the offset of the closing quote, or the length of the body when there is none.
func scanString(body []byte, i int) (int, error) {
	for ; i < len(body); i++ {
		switch body[i] {
		case '"':
			return i, nil
		case 0:
			return 0, fail("invalid_encoding", "%s: U+0000 is not allowed", position(body, i))
		case '\\':
			i++
			if i >= len(body) || body[i] != 'u' {
				continue
			}
			r, ok := hex4(body, i+1)
			switch {
			case !ok: // the decoder says what is wrong
				continue
			case r == 0:
				return 0, fail("invalid_encoding", "%s: U+0000 is not allowed", position(body, i-1))
			case r >= 0xD800 && r < 0xDC00:
				low, ok := uint64(0), false
				if i+6 < len(body) && body[i+5] == '\\' && body[i+6] == 'u' {
					low, ok = hex4(body, i+7)
				}
				if !ok || low < 0xDC00 || low > 0xDFFF {
					return 0, fail("invalid_encoding", "%s: a lone surrogate is not a character", position(body, i-1))
				}
				i += 10
			case r >= 0xDC00 && r <= 0xDFFF:
				return 0, fail("invalid_encoding", "%s: a lone surrogate is not a character", position(body, i-1))
			default:
				i += 4
			}
		}
	}
	return i, nil
}

func hex4(b []byte, i int) (uint64, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[i:i+4]), 16, 16)
	return n, err == nil
}

// position says where an offset is, as editors count: lines and characters from 1.
func position(body []byte, offset int) string {
	offset = min(max(offset, 0), len(body))
	before := body[:offset]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return "line " + strconv.Itoa(line) + ", column " + strconv.Itoa(column)
}

// explainJSON turns an error of the decoder into a problem that says where and what.
func explainJSON(body []byte, end int, v any, err error) error {
	var syn *jsontext.SyntacticError
	var sem *json.SemanticError
	switch {
	case errors.As(err, &syn):
		at := int(syn.ByteOffset)
		switch {
		case errors.Is(syn.Err, jsontext.ErrDuplicateName):
			return failAt(string(syn.JSONPointer), "duplicate_field", "the field %s is given twice",
				quoted(syn.JSONPointer.LastToken()))
		case at >= end && len(bytes.TrimSpace(body[min(end, len(body)):])) > 0:
			return fail("trailing_data", "%s: there is data behind the JSON object", position(body, firstNonSpace(body, end)))
		case errors.Is(syn.Err, io.ErrUnexpectedEOF):
			return fail("invalid_json", "%s: the body ends in the middle of the JSON object", position(body, len(body)))
		}
		return fail("invalid_json", "%s: %s", position(body, at), cause(syn.Err))
	case errors.As(err, &sem):
		pointer := string(sem.JSONPointer)
		switch {
		case errors.Is(sem.Err, json.ErrUnknownName):
			name := sem.JSONPointer.LastToken()
			detail := "there is no field " + quoted(name)
			if near := nearest(name, fieldNames(reflect.TypeOf(v), sem.JSONPointer.Parent())); near != "" {
				detail += "; did you mean " + quoted(near) + "?"
			}
			return failAt(pointer, "unknown_field", "%s", detail)
		case errors.Is(sem.Err, strconv.ErrRange), sem.JSONKind == '0' && wantsNumber(sem.GoType):
			text := string(sem.JSONValue)
			var number *numberError
			if errors.As(sem.Err, &number) {
				text = number.text
			}
			return failAt(pointer, "out_of_range", "%s is not a number that this field can hold: use %s", clip(text, 40),
				wanted(sem.GoType))
		}
		return failAt(pointer, "invalid_type", "%s is a JSON %s; use %s", where(pointer), kindName(sem.JSONKind),
			wanted(sem.GoType))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail("invalid_json", "the body ends in the middle of the JSON object")
	}
	return fail("invalid_json", "the body cannot be read as JSON")
}

func where(pointer string) string {
	if pointer == "" {
		return "the body"
	}
	return pointer
}

func firstNonSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

// cause is the decoder's reason without the name of its package.
func cause(err error) string {
	if err == nil {
		return "invalid JSON"
	}
	return strings.TrimPrefix(err.Error(), "jsontext: ")
}

func quoted(s string) string { return strconv.Quote(clip(s, 80)) }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func wantsNumber(t reflect.Type) bool {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t != nil && (t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64)
}

func wanted(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return "another type"
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float64:
		return "a number"
	case wantsNumber(t):
		return "a whole number"
	case t.Kind() == reflect.Slice:
		return "an array"
	}
	return "an object"
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '[':
		return "array"
	}
	return "object"
}

// fieldNames lists the JSON names of the struct that a pointer leads to.
func fieldNames(t reflect.Type, at jsontext.Pointer) []string {
	step := func(name string) {
		switch t.Kind() {
		case reflect.Slice, reflect.Map:
			t = t.Elem()
		case reflect.Struct:
			for i := range t.NumField() {
				if jsonName(t.Field(i)) == name {
					t = t.Field(i).Type
					return
				}
			}
		}
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for token := range at.Tokens() {
		step(token)
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for i := range t.NumField() {
		if n := jsonName(t.Field(i)); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// jsonName returns the name of a field in JSON, "" when it has none.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if !f.IsExported() || name == "-" {
		return ""
	}
	if name == "" && !f.Anonymous {
		return f.Name
	}
	return name
}

// nearest returns the name that is at most two edits, and less than half of its length, away from what was typed.
func nearest(typed string, names []string) string {
	best, found := 3, ""
	if len(typed) > 64 {
		return ""
	}
	for _, n := range names {
		if d := distance(typed, n); d < best && 2*d < len(n) {
			best, found = d, n
		}
	}
	return found
}

// distance counts edits between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// encode appends v as the API writes JSON: map keys sorted, no null where a list is empty, omitempty as encoding/json
// understands it, because the wire types are declared for that.
func encode(dst []byte, v any) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	err := json.MarshalWrite(buf, v, json.Deterministic(true), jsonv1.OmitEmptyWithLegacySemantics(true),
		jsontext.AllowInvalidUTF8(true))
	return buf.Bytes(), err
}
