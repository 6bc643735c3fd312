package campaigns

import (
	"bytes"
	"errors"
	"io"
)

// The bounds of an import file. They keep the memory of an import flat whatever is sent.
const (
	maxCell    = 64 << 10 // bytes of one CSV cell
	maxRow     = 1 << 20  // bytes of one row
	maxColumns = 1000
	maxVars    = 64 << 10 // bytes of one person's variables as JSON
	readSize   = 64 << 10
)

// window is the part of an input that is being looked at. What lies behind the start of the current row is kept, up to
// maxRow bytes, so that a reader can go back to it.
type window struct {
	src  io.Reader
	buf  []byte
	at   int   // buf[at:] is not consumed
	line int   // number of the line that begins at or runs through at, from 1
	err  error // why nothing more can be read: io.EOF at the end of the input
}

func newWindow(src io.Reader) *window { return &window{src: src, line: 1} }

// has reports whether there is a byte at offset i behind the start, and reads on for it. It reports false at the end
// of the input, after a read error, and when the row has grown too long.
func (w *window) has(i int) bool { return w.at+i < len(w.buf) || w.more(i) }

func (w *window) more(i int) bool {
	for w.at+i >= len(w.buf) {
		if w.err != nil || len(w.buf)-w.at > maxRow {
			return false
		}
		w.read()
	}
	return true
}

func (w *window) read() {
	if w.at > 0 {
		w.buf = w.buf[:copy(w.buf, w.buf[w.at:])]
		w.at = 0
	}
	if cap(w.buf)-len(w.buf) < readSize {
		grown := make([]byte, len(w.buf), 2*cap(w.buf)+2*readSize)
		copy(grown, w.buf)
		w.buf = grown
	}
	free := w.buf[len(w.buf) : len(w.buf)+readSize]
	for range 100 { // as bufio does: a reader that returns nothing for ever is broken
		n, err := w.src.Read(free)
		w.buf = w.buf[:len(w.buf)+n]
		if err != nil && err != io.EOF && errors.Is(err, io.EOF) { // a connection that was cut says so in such words
			err = io.ErrUnexpectedEOF
		}
		w.err = err
		if n > 0 || err != nil {
			return
		}
	}
	w.err = io.ErrNoProgress
}

// endOfLine returns the length of the line end at offset i: \n, \r\n or \r; 0 = there is none.
func (w *window) endOfLine(i int) int {
	switch w.buf[w.at+i] {
	case '\n':
		return 1
	case '\r':
		if w.has(i+1) && w.buf[w.at+i+1] == '\n' {
			return 2
		}
		return 1
	}
	return 0
}

// skipLine drops everything up to and with the next line end, however far that is.
func (w *window) skipLine() {
	for w.has(0) {
		i := bytes.IndexAny(w.buf[w.at:], "\r\n")
		if i < 0 {
			w.at = len(w.buf)
			continue
		}
		w.at += i
		w.at += w.endOfLine(0)
		w.line++
		return
	}
}

// checkStart strips a UTF-8 byte order mark and refuses what is not text.
func (w *window) checkStart() error {
	w.has(3)
	head := w.buf[w.at:]
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		w.at += 3
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return &FileError{CodeEncoding, 1, "the file is UTF-16: save it as UTF-8 (in a spreadsheet: CSV UTF-8)"}
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return &FileError{CodeNotText, 1, "the file is a workbook or an archive: save it as CSV UTF-8, uncompressed"}
	}
	if w.err != nil && !errors.Is(w.err, io.EOF) && len(w.buf) == w.at {
		return w.err
	}
	return nil
}
