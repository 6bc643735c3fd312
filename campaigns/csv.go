package campaigns

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// row is one row of the input: cells of a CSV, or an object of NDJSON, or the reason why it cannot be used.
type row struct {
	line   int
	cells  []string
	object []byte
	bad    *rejection
}

// csvReader reads RFC 4180 and what spreadsheets make of it: any line end, four delimiters, a byte order mark.
// encoding/csv is not used because it reads a cell of any size, and cannot go on behind a quote that is never closed:
// here such a row is refused alone and reading goes on at the line after the one on which it began.
type csvReader struct {
	w       *window
	delim   byte
	columns []string

	text []byte // the current row without quotes
	ends []int  // where each cell ends in text
	back int    // how many bytes may still be read a second time
}

// maxBack bounds how much is read a second time behind quotes that are never closed. Without it a file made of such
// rows costs a thousand times its size.
const maxBack = 256 << 20

// newCSV reads the header.
func newCSV(src io.Reader) (*csvReader, error) {
	r := &csvReader{w: newWindow(src), back: maxBack}
	if err := r.w.checkStart(); err != nil {
		return nil, err
	}
	if err := r.skipBlank(); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &FileError{CodeEmpty, 0, "the file is empty"}
		}
		return nil, err
	}
	r.delim = r.guessDelimiter()
	line := r.w.line
	bad, err := r.scan()
	if err != nil {
		return nil, err
	}
	if bad != nil {
		code := CodeHeader
		switch bad.reason {
		case reasonColumns:
			code = CodeColumns
		case reasonControl:
			code = CodeEncoding
			bad.detail += "; the file may be UTF-16: save it as UTF-8"
		}
		return nil, &FileError{code, line, "header: " + bad.detail}
	}
	r.columns = r.cells()
	return r, checkHeader(r.columns, line)
}

// checkHeader trims the names and refuses what could not be a variable's name.
func checkHeader(columns []string, line int) error {
	seen := make(map[string]int, len(columns))
	for i, c := range columns {
		c = strings.TrimSpace(c)
		columns[i] = c
		switch {
		case c == "":
			return &FileError{CodeHeader, line, fmt.Sprintf("header: column %d has no name", i+1)}
		case !utf8.ValidString(c):
			return &FileError{CodeEncoding, line,
				fmt.Sprintf("header: column %d is not valid UTF-8: save the file as UTF-8", i+1)}
		case len(c) > 200 || strings.ContainsFunc(c, isControl):
			return &FileError{CodeHeader, line,
				fmt.Sprintf("header: the name of column %d is longer than 200 bytes or has control characters", i+1)}
		}
		key := strings.ToLower(c)
		if first := seen[key]; first > 0 {
			return &FileError{CodeDuplicate, line,
				fmt.Sprintf("header: columns %d and %d are both named %q", first, i+1, c)}
		}
		seen[key] = i + 1
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// next returns the next row that is not blank. The error is io.EOF at the end of the file.
func (r *csvReader) next() (row, error) {
	for {
		if err := r.skipBlank(); err != nil {
			return row{}, err
		}
		line := r.w.line
		bad, err := r.scan()
		switch {
		case err != nil:
			return row{}, err
		case bad != nil:
			bad.line = line
			if i := len(r.ends); bad.reason == reasonCell && i < len(r.columns) {
				bad.column = r.columns[i]
			}
			return row{line: line, bad: bad}, nil
		case len(r.text) == 0 && len(r.ends) > 1: // a spreadsheet's empty row: only delimiters
			continue
		case len(r.ends) != len(r.columns):
			return row{line: line, bad: &rejection{line: line, reason: reasonRagged, value: cut(r.text),
				detail: fmt.Sprintf("%d cells, the header has %d", len(r.ends), len(r.columns))}}, nil
		}
		return row{line: line, cells: r.cells()}, nil
	}
}

// skipBlank goes to the next row. The error is io.EOF at the end of the input.
func (r *csvReader) skipBlank() error {
	for r.w.has(0) {
		n := r.w.endOfLine(0)
		if n == 0 {
			return nil
		}
		r.w.at += n
		r.w.line++
	}
	return r.w.err
}

func (r *csvReader) cells() []string {
	text := string(r.text)
	cells := make([]string, len(r.ends))
	start := 0
	for i, end := range r.ends {
		cells[i] = text[start:end]
		start = end
	}
	return cells
}

// scan takes one row out of the window into text and ends. A row that is refused is skipped as far as the end of its
// first line. The error is that of the input, and never io.EOF.
func (r *csvReader) scan() (*rejection, error) {
	w := r.w
	r.text, r.ends = r.text[:0], r.ends[:0]
	i := 0
	lines, firstEnd := 0, 0 // line ends inside quotes, and the offset behind the first of them
	refuse := func(reason, detail string) (*rejection, error) {
		bad := &rejection{reason: reason, detail: detail, value: cut(r.text)}
		if w.err != nil && !errors.Is(w.err, io.EOF) {
			return nil, w.err
		}
		switch {
		case firstEnd == 0:
			w.skipLine()
		case r.back < i:
			w.at += i
			w.line += lines
			w.skipLine()
		default:
			r.back -= i - firstEnd
			w.at += firstEnd
			w.line++
		}
		return bad, nil
	}
	for { // one cell
		cell := len(r.text)
		if quote := r.quoteAt(i); quote >= 0 {
			i = quote + 1
			for {
				if !w.has(i) {
					if w.err == nil {
						return refuse(reasonRow, "a row has at most 1 MiB")
					}
					return refuse(reasonQuote, "a quote is opened and never closed")
				}
				c := w.buf[w.at+i]
				if c == '"' {
					if !w.has(i+1) || w.buf[w.at+i+1] != '"' {
						i++
						break
					}
					i++
				}
				if c == 0 {
					return refuse(reasonControl, "there is a NUL character")
				}
				if n := w.endOfLine(i); n > 0 {
					lines++
					if firstEnd == 0 {
						firstEnd = i + n
					}
					r.text = append(r.text, w.buf[w.at+i:w.at+i+n]...)
					i += n
				} else {
					r.text = append(r.text, c)
					i++
				}
				if len(r.text)-cell > maxCell {
					return refuse(reasonCell, "a cell has at most 64 KiB; is a quote missing?")
				}
			}
			for w.has(i) && w.buf[w.at+i] == ' ' {
				i++
			}
			if w.has(i) && w.buf[w.at+i] != r.delim && w.endOfLine(i) == 0 {
				return refuse(reasonQuote, "text follows a closing quote: a quote inside quotes is written twice")
			}
		} else {
			for w.has(i) {
				c := w.buf[w.at+i]
				if c == r.delim || c == '\n' || c == '\r' {
					break
				}
				if c == 0 {
					return refuse(reasonControl, "there is a NUL character")
				}
				if len(r.text)-cell >= maxCell {
					return refuse(reasonCell, "a cell has at most 64 KiB")
				}
				r.text = append(r.text, c)
				i++
			}
		}
		if !w.has(i) && w.err == nil {
			return refuse(reasonRow, "a row has at most 1 MiB")
		}
		r.ends = append(r.ends, len(r.text))
		if !w.has(i) {
			if !errors.Is(w.err, io.EOF) {
				return nil, w.err
			}
			w.at += i
			w.line += lines
			return nil, nil
		}
		if n := w.endOfLine(i); n > 0 {
			w.at += i + n
			w.line += lines + 1
			return nil, nil
		}
		if len(r.ends) == maxColumns {
			return refuse(reasonColumns, "a row has at most 1,000 cells")
		}
		i++ // the delimiter
	}
}

// quoteAt returns where the quote of a quoted cell stands that begins at i, or -1. Spaces before it are dropped, as
// people who type files expect; RFC 4180 §2.4 would keep them and then forbid the quote.
func (r *csvReader) quoteAt(i int) int {
	for r.w.has(i) && r.w.buf[r.w.at+i] == ' ' {
		i++
	}
	if r.w.has(i) && r.w.buf[r.w.at+i] == '"' {
		return i
	}
	return -1
}

// guessDelimiter takes the candidate that the header has most of, outside quotes.
func (r *csvReader) guessDelimiter() byte {
	const candidates = ",;\t|"
	var count [len(candidates)]int
	quoted := false
	for i := 0; r.w.has(i); i++ {
		c := r.w.buf[r.w.at+i]
		if c == '"' {
			quoted = !quoted
		}
		if !quoted {
			if c == '\n' || c == '\r' {
				break
			}
			if n := strings.IndexByte(candidates, c); n >= 0 {
				count[n]++
			}
		}
	}
	best := 0
	for n := range count {
		if count[n] > count[best] {
			best = n
		}
	}
	return candidates[best]
}

// cut bounds what is kept of a refused row, on a character's edge.
func cut(text []byte) string {
	const keep = 200
	if len(text) <= keep {
		return string(text)
	}
	n := keep
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return string(text[:n]) + "…"
}
