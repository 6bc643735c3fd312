package simulator

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
)

// Outcomes of messages that no client should send.
const (
	mailSmuggling = "smuggling" // a bare CR or LF: two servers may see two different messages
	mailEightBit  = "eight_bit" // 8-bit text without BODY=8BITMIME or SMTPUTF8
	mailLongLine  = "long_line" // above 998 bytes (RFC 5322 §2.1.1)
	mailTooBig    = "too_big"
)

// readData reads a message up to its final dot into s.data, dots unstuffed. Only CRLF.CRLF ends it (RFC 5321
// §4.1.1.4): a lone dot behind or before anything else is content. fault is the first thing that is wrong with it.
func (s *mailSession) readData() (fault string, err error) {
	s.data = s.data[:0]
	found := func(f string) {
		if fault == "" {
			fault = f
		}
	}
	clean := true // the last line ended in CRLF
	length := 0   // of the line so far
	for {
		line, err := s.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
		whole := err == nil
		text, crlf := bytes.CutSuffix(line, []byte("\r\n"))
		first := length == 0
		if first && clean && crlf && len(text) == 1 && text[0] == '.' {
			return fault, nil
		}
		length += len(text)
		switch {
		case whole && !crlf, bytes.IndexByte(text, '\r') >= 0:
			found(mailSmuggling)
		case length > 998+1: // one for a stuffed dot
			found(mailLongLine)
		case !s.eight && !s.utf8 && hasEightBit(text):
			found(mailEightBit)
		}
		if first && clean && len(line) > 0 && line[0] == '.' {
			line = line[1:]
		}
		if whole {
			clean, length = crlf, 0
		}
		if len(s.data)+len(line) > mailMaxSize {
			found(mailTooBig)
			continue
		}
		s.data = append(s.data, line...)
	}
}

func hasEightBit(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// mailFields are the header fields that the ledger needs, folded as they came.
type mailFields struct {
	messageID, subject, contentType, encoding []byte
}

// mailHeader reads a header block; the body is what follows its empty line.
func mailHeader(b []byte) (f mailFields, body []byte) {
	for len(b) > 0 {
		end := 0
		for { // a field goes on while the next line starts with a space
			i := bytes.IndexByte(b[end:], '\n')
			if i < 0 {
				end = len(b)
				break
			}
			end += i + 1
			if end >= len(b) || b[end] != ' ' && b[end] != '\t' {
				break
			}
		}
		field := b[:end]
		b = b[end:]
		if len(bytes.TrimRight(field, "\r\n")) == 0 {
			return f, b
		}
		name, value, ok := bytes.Cut(field, []byte(":"))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Message-ID")):
			f.messageID = value
		case bytes.EqualFold(name, []byte("Subject")):
			f.subject = value
		case bytes.EqualFold(name, []byte("Content-Type")):
			f.contentType = value
		case bytes.EqualFold(name, []byte("Content-Transfer-Encoding")):
			f.encoding = value
		}
	}
	return f, nil
}

func unfold(b []byte) string { return strings.ReplaceAll(string(b), "\r\n", "") }

// mailExcerpt returns what the ledger keeps of a message: the Message-ID without its brackets, the subject decoded and
// the start of the text.
func mailExcerpt(msg []byte) (id, subject, text string) {
	f, body := mailHeader(msg)
	id = strings.Trim(unfold(f.messageID), "<> ")
	subject = unfold(f.subject)
	if strings.Contains(subject, "=?") {
		if s, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
			subject = s
		}
	}
	return id, subject, mailText(f, body, 3)
}

// mailText returns the first 1,000 bytes of the first text part, plain or not, looking depth levels deep.
func mailText(f mailFields, body []byte, depth int) string {
	kind := strings.ToLower(unfold(f.contentType))
	if strings.HasPrefix(kind, "multipart/") {
		_, params, err := mime.ParseMediaType(unfold(f.contentType))
		open := []byte("--" + params["boundary"])
		i := bytes.Index(body, open)
		if err != nil || len(open) == 2 || i < 0 || depth == 0 {
			return ""
		}
		part := body[i+len(open):]
		if j := bytes.IndexByte(part, '\n'); j >= 0 {
			part = part[j+1:]
		}
		if j := bytes.Index(part, append([]byte("\r\n"), open...)); j >= 0 {
			part = part[:j]
		}
		f, body = mailHeader(part)
		return mailText(f, body, depth-1)
	}
	if kind != "" && !strings.HasPrefix(kind, "text/") {
		return ""
	}
	const keep = 1000
	var r io.Reader
	switch strings.ToLower(string(f.encoding)) {
	case "quoted-printable":
		r = quotedprintable.NewReader(bytes.NewReader(body))
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body))
	default:
		return string(body[:min(len(body), keep)])
	}
	out, _ := io.ReadAll(io.LimitReader(r, keep)) // the start is good enough
	return string(out)
}
