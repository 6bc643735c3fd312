package smtp

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/msgctl/msgctl/delivery"
)

// envelope is a message that may go: addresses taken apart, header fields checked, nothing encoded yet.
type envelope struct {
	from, to   string
	fromHeader string
	messageID  string // without brackets; the same for every attempt, so that receivers can drop a duplicate
	replyTo    string // encoded
	utf8       bool   // an address needs SMTPUTF8
	body8      bool   // set by compose: a part goes as 8bit
}

// prepare checks everything about m that does not depend on the relay.
func (c *connector) prepare(m *delivery.Outgoing) (*envelope, error) {
	to, err := parseAddress(m.To)
	if err != nil {
		return nil, &delivery.Failure{Class: delivery.BadRecipient, Code: "invalid_address", Known: true, Detail: err.Error()}
	}
	from, fromHeader := c.cfg.from, c.cfg.fromHeader
	if m.From != "" {
		if from, err = parseMailbox(m.From); err != nil {
			return nil, reject("invalid_sender", "from: "+err.Error())
		}
		fromHeader = from.header()
	}
	e := &envelope{
		from: from.addr(), to: to.addr(), fromHeader: fromHeader,
		messageID: m.ID.String() + "@" + c.cfg.idDomain,
		utf8:      from.needsUTF8() || to.needsUTF8(),
	}
	content := &m.Content
	if hasControl(content.Subject) {
		return nil, reject("control_character", "subject holds a control character")
	}
	if len(content.Subject) > maxFieldValue {
		return nil, reject("header_too_long", "subject is longer than 4 KiB")
	}
	if content.ReplyTo != "" {
		if hasControl(content.ReplyTo) {
			return nil, reject("control_character", "reply_to holds a control character")
		}
		replyTo, err := parseMailbox(content.ReplyTo)
		if err != nil {
			return nil, reject("invalid_reply_to", "reply_to: "+err.Error())
		}
		e.replyTo, e.utf8 = replyTo.header(), e.utf8 || replyTo.needsUTF8()
	}
	if u := content.UnsubscribeURL; u != "" && !isListURL(u) {
		return nil, reject("invalid_unsubscribe_url", "unsubscribe_url must be a plain ASCII URL of at most 900 bytes")
	}
	return e, checkHeaders(content.Headers)
}

// compose writes the message into cn.msg as this connection can carry it, and signs it.
func (c *connector) compose(cn *conn, e *envelope, m *delivery.Outgoing) error {
	if cap(cn.msg) > maxKept {
		cn.msg = nil
	}
	// A relay further on may recode 8bit and so break a signature: signed mail stays 7bit (RFC 6376 §5.3).
	eight := cn.ext.eightBit && c.cfg.dkim == nil
	dst := cn.msg[:0]
	dst = c.appendHeader(dst, e, m)
	dst, used8 := appendBody(dst, &m.Content, "=_"+m.ID.String(), eight)
	e.body8 = used8 || e.utf8 && cn.ext.eightBit
	if c.cfg.dkim != nil {
		signature, err := sign(c.cfg.dkim, dst)
		if err != nil {
			cn.msg = dst
			return down("dkim", "the message cannot be signed: "+err.Error())
		}
		dst = slices.Insert(dst, 0, []byte(signature)...)
	}
	cn.msg = slices.Grow(dst, 3) // for the final dot
	return nil
}

// maxKept bounds the buffer that a connection keeps between messages.
const maxKept = 256 << 10

// appendHeader writes every field but those that describe the body.
func (c *connector) appendHeader(dst []byte, e *envelope, m *delivery.Outgoing) []byte {
	dst = append(dst, "Date: "...)
	dst = c.account.Now().AppendFormat(dst, time.RFC1123Z)
	dst = appendRaw(append(dst, "\r\n"...), "From", e.fromHeader)
	dst = appendRaw(dst, "To", e.to)
	dst = append(append(append(dst, "Message-ID: <"...), e.messageID...), ">\r\n"...)
	dst = appendText(dst, "Subject", m.Content.Subject)
	if e.replyTo != "" {
		dst = appendRaw(dst, "Reply-To", e.replyTo)
	}
	dst = appendUnsubscribe(dst, m.Content.UnsubscribeURL, c.cfg.listUnsubscribe)
	for _, h := range m.Content.Headers {
		dst = appendText(dst, h.Name, h.Value)
	}
	if m.PossibleDuplicate {
		dst = append(dst, "X-Msgctl-Possible-Duplicate: yes\r\n"...)
	}
	return append(dst, "MIME-Version: 1.0\r\n"...)
}

// appendUnsubscribe writes List-Unsubscribe (RFC 2369) and, when there is a link, the promise that one POST to it is
// enough (RFC 8058 §3.1).
func appendUnsubscribe(dst []byte, link, mailto string) []byte {
	if link == "" && mailto == "" {
		return dst
	}
	dst = append(dst, "List-Unsubscribe: "...)
	if link != "" {
		dst = append(append(append(dst, '<'), link...), '>')
	}
	if link != "" && mailto != "" {
		dst = append(dst, ",\r\n "...)
	}
	if mailto != "" {
		dst = append(append(append(dst, '<'), mailto...), '>')
	}
	dst = append(dst, "\r\n"...)
	if link != "" {
		dst = append(dst, "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"...)
	}
	return dst
}

// appendBody writes the fields that describe the body, and the body: text, HTML, or both as alternatives with the best
// one last (RFC 2046 §5.1.4). used8 says that a part goes as 8bit.
func appendBody(dst []byte, content *delivery.Content, boundary string, eight bool) (out []byte, used8 bool) {
	text, html := strings.ToValidUTF8(content.Text, "\uFFFD"), strings.ToValidUTF8(content.HTML, "\uFFFD")
	switch {
	case html == "":
		return appendPart(dst, "plain", text, boundary, eight)
	case text == "":
		return appendPart(dst, "html", html, boundary, eight)
	}
	dst = append(dst, "Content-Type: multipart/alternative;\r\n boundary=\""...)
	dst = append(append(dst, boundary...), "\"\r\n\r\n"...)
	for _, part := range [...]struct{ kind, text string }{{"plain", text}, {"html", html}} {
		var u bool
		dst = append(append(append(dst, "--"...), boundary...), "\r\n"...)
		dst, u = appendPart(dst, part.kind, part.text, boundary, eight)
		dst = append(dst, "\r\n"...) // belongs to the boundary, not to the part
		used8 = used8 || u
	}
	return append(append(append(dst, "--"...), boundary...), "--\r\n"...), used8
}

// appendPart writes one text part in the cheapest encoding that carries it: 7bit, 8bit where the relay takes it, else
// quoted-printable. Text that could be taken for the boundary is encoded too: then it has no "=_".
func appendPart(dst []byte, kind, text, boundary string, eight bool) (out []byte, used8 bool) {
	dst = append(append(dst, "Content-Type: text/"...), kind...)
	dst = append(dst, "; charset=utf-8\r\nContent-Transfer-Encoding: "...)
	ascii, plain := inspect(text)
	switch {
	case !plain || !ascii && !eight || strings.Contains(text, boundary):
		return appendQuotedPrintable(append(dst, "quoted-printable\r\n\r\n"...), text), false
	case ascii:
		return appendLines(append(dst, "7bit\r\n\r\n"...), text), false
	}
	return appendLines(append(dst, "8bit\r\n\r\n"...), text), true
}

// inspect reports whether s is ASCII, and whether it can go as it is: no line above 998 bytes (RFC 5322 §2.1.1) and no
// control character but tab and the ends of lines.
func inspect(s string) (ascii, plain bool) {
	ascii, plain = true, true
	line := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			ascii = false
			line++
		case c == '\n' || c == '\r':
			line = 0
		case c < ' ' && c != '\t' || c == 0x7f:
			return ascii, false
		default:
			line++
		}
		if line > 998 {
			plain = false
		}
	}
	return ascii, plain
}
