package smtp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	maxReplyLine  = 4 << 10 // bytes, CRLF included; RFC 5321 §4.5.3.1.5 asks for 512
	maxReplyLines = 100
	maxDetail     = 180 // bytes of a reply that are shown; with the command in front of it, at most 200
)

// reply is one answer of the relay, lines joined.
type reply struct {
	code int
	// enhanced is class, subject and detail of the enhanced status code (RFC 3463 §2); zero when there is none.
	enhanced [3]int
	text     string   // without codes; lines are separated by \n
	lines    []string // for EHLO only
}

// errMalformed is wrapped by every reply that breaks the grammar of RFC 5321 §4.2.
var errMalformed = errors.New("malformed reply")

func malformed(why string) error { return fmt.Errorf("%w: %s", errMalformed, why) }

// readReply reads one reply, bounded in line length and number of lines. r must have a buffer of maxReplyLine bytes.
// keep asks for the lines apart.
func readReply(r *bufio.Reader, keep bool) (reply, error) {
	var out reply
	for n := 0; ; n++ {
		if n == maxReplyLines {
			return reply{}, malformed("too many lines")
		}
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return reply{}, malformed("line too long")
		case errors.Is(err, io.EOF) && len(line) > 0:
			return reply{}, io.ErrUnexpectedEOF
		case err != nil:
			return reply{}, err
		}
		line = line[:len(line)-1]
		if l := len(line); l > 0 && line[l-1] == '\r' {
			line = line[:l-1]
		}
		code, text, last, err := parseLine(line)
		if err != nil {
			return reply{}, err
		}
		switch {
		case n == 0:
			out.code = code
		case code != out.code:
			return reply{}, malformed("lines with different codes")
		}
		enhanced, rest := parseEnhanced(code, text)
		if enhanced != [3]int{} {
			out.enhanced, text = enhanced, rest
		}
		switch {
		case n == 0:
			out.text = string(text)
		case len(out.text) < 4*maxDetail:
			out.text += "\n" + string(text)
		}
		if keep {
			out.lines = append(out.lines, string(text))
		}
		if last {
			return out, nil
		}
	}
}

// parseLine takes one line apart: three digits, then "-" when more follow, or a space, or nothing.
func parseLine(line []byte) (code int, text []byte, last bool, err error) {
	if len(line) < 3 {
		return 0, nil, false, malformed("no code")
	}
	for i, c := range line[:3] {
		if c < '0' || c > '9' || i == 0 && (c < '2' || c > '5') {
			return 0, nil, false, malformed("no code")
		}
		code = code*10 + int(c-'0')
	}
	last = true
	if len(line) > 3 {
		switch line[3] {
		case '-':
			last = false
		case ' ':
		default:
			return 0, nil, false, malformed("no space behind the code")
		}
		text = line[4:]
	}
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, nil, false, malformed("control character")
		}
	}
	return code, text, last, nil
}

// parseEnhanced takes an enhanced status code off text: "class.subject.detail ", the class that of the code.
func parseEnhanced(code int, text []byte) (e [3]int, rest []byte) {
	i := 0
	for field := range e {
		start := i
		for i < len(text) && text[i] >= '0' && text[i] <= '9' && i-start < 3 {
			e[field] = e[field]*10 + int(text[i]-'0')
			i++
		}
		end := i == len(text) || text[i] == ' '
		if i == start || field < 2 && (end || text[i] != '.') || field == 2 && !end {
			return [3]int{}, text
		}
		if i < len(text) {
			i++
		}
	}
	if e[0] != code/100 {
		return [3]int{}, text
	}
	return e, text[i:]
}

// status is the code as it is shown and stored: "550 5.1.1" or "550".
func (r reply) status() string {
	if r.enhanced == [3]int{} {
		return fmt.Sprintf("%03d", r.code)
	}
	return fmt.Sprintf("%03d %d.%d.%d", r.code, r.enhanced[0], r.enhanced[1], r.enhanced[2])
}

// safe is the reply as a person may see it: one line, bounded, with addresses taken out, because relays like to repeat
// the recipient.
func (r reply) safe(to string) string {
	local, _, _ := strings.Cut(to, "@")
	var b strings.Builder
	b.WriteString(r.status())
	for word := range strings.FieldsSeq(strings.ToValidUTF8(r.text, "?")) {
		bare := strings.Trim(word, `<>()[]{}"'.,:;`)
		if strings.ContainsRune(word, '@') || local != "" && strings.EqualFold(bare, local) {
			word = "<address>"
		}
		if b.Len()+1+len(word) > maxDetail {
			word = word[:max(maxDetail-b.Len()-1, 0)]
			for len(word) > 0 && !utf8.ValidString(word) {
				word = word[:len(word)-1]
			}
			b.WriteByte(' ')
			b.WriteString(word)
			break
		}
		b.WriteByte(' ')
		b.WriteString(word)
	}
	return strings.TrimRight(b.String(), " ")
}
