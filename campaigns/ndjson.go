package campaigns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deep objects and arrays may be nested in a person's variables.
const maxDepth = 10

// ndjsonReader reads one JSON object per line.
type ndjsonReader struct{ w *window }

func newNDJSON(src io.Reader) (*ndjsonReader, error) {
	r := &ndjsonReader{newWindow(src)}
	if err := r.w.checkStart(); err != nil {
		return nil, err
	}
	if !r.w.has(0) {
		if !errors.Is(r.w.err, io.EOF) {
			return nil, r.w.err
		}
		return nil, &FileError{CodeEmpty, 0, "the file is empty"}
	}
	return r, nil
}

// next returns the next line that is not blank. The error is io.EOF at the end of the file.
func (r *ndjsonReader) next() (row, error) {
	w := r.w
	for w.has(0) {
		line := w.line
		n := 0
		for { // find the end of the line
			at := bytes.IndexByte(w.buf[w.at+n:], '\n')
			if at >= 0 {
				n += at
				break
			}
			n = len(w.buf) - w.at
			if !w.has(n) {
				break
			}
		}
		if !w.has(n) {
			if w.err == nil {
				bad := &rejection{line: line, reason: reasonRow, detail: "a line has at most 1 MiB", value: cut(w.buf[w.at:])}
				w.skipLine()
				return row{line: line, bad: bad}, nil
			}
			if !errors.Is(w.err, io.EOF) {
				return row{}, w.err
			}
		}
		text := bytes.TrimSpace(w.buf[w.at : w.at+n])
		var object []byte
		if len(text) > 0 {
			object = bytes.Clone(text)
		}
		w.at = min(w.at+n+1, len(w.buf))
		w.line++
		if object != nil {
			return row{line: line, object: object}, nil
		}
	}
	return row{}, w.err
}

// field is a top-level member of an object that may be an address.
type field struct {
	name  string
	value string
}

// readObject checks a line and calls found for each top-level member. It returns what is wrong with the line.
func readObject(line []byte, found func(name string, value jsontext.Value) *rejection) *rejection {
	if !utf8.Valid(line) {
		return &rejection{reason: reasonEncoding, detail: "the line is not valid UTF-8", value: cut(line)}
	}
	if line[0] != '{' {
		return &rejection{reason: reasonJSON, detail: "a line must be one JSON object, as in {\"phone\":\"+12025550100\"}",
			value: cut(line)}
	}
	if depth(line) > maxDepth {
		return &rejection{reason: reasonDepth, detail: "values may be nested 10 deep", value: cut(line)}
	}
	// U+0000 cannot be stored by every database nor sent on every channel. A backslash that is itself escaped before u0000
	// is refused with it: nobody's name.
	if bytes.Contains(line, []byte(`\u0000`)) || bytes.IndexByte(line, 0) >= 0 {
		return &rejection{reason: reasonControl, detail: "there is a NUL character", value: cut(line)}
	}
	d := jsontext.NewDecoder(bytes.NewReader(line))
	if _, err := d.ReadToken(); err != nil {
		return jsonRejection(line, err)
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return jsonRejection(line, err)
		}
		text := name.String() // a copy: the token is valid only until the next read
		value, err := d.ReadValue()
		if err != nil {
			return jsonRejection(line, err)
		}
		if bad := found(text, value); bad != nil {
			return bad
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return jsonRejection(line, err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return &rejection{reason: reasonJSON, detail: "something follows the object", value: cut(line)}
	}
	return nil
}

func jsonRejection(line []byte, err error) *rejection {
	bad := &rejection{reason: reasonJSON, detail: "this is not valid JSON", value: cut(line)}
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		bad.reason, bad.detail = CodeDuplicate, "a name stands twice in the object"
	case errors.As(err, &syntax):
		bad.detail = fmt.Sprintf("this is not valid JSON at character %d", syntax.ByteOffset+1)
	}
	return bad
}

// depth returns how deep brackets are nested outside strings. It does not check the JSON.
func depth(line []byte) int {
	now, deepest, quoted := 0, 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
