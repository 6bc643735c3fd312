package smtp

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/mail"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message/mail"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/simulator"
)

// composed returns the message as it would leave on a connection with ext.
func composed(t testing.TB, c *connector, m *delivery.Outgoing, ext extensions) []byte {
	t.Helper()
	e, err := c.prepare(m)
	require.NoError(t, err)
	cn := &conn{ext: ext}
	require.NoError(t, c.compose(cn, e, m))
	return cn.msg
}

// requireClean checks what every message must hold to: CRLF alone, lines within 998 bytes, 7-bit unless allowed.
func requireClean(t testing.TB, msg []byte, eight bool) {
	t.Helper()
	require.True(t, bytes.HasSuffix(msg, []byte("\r\n")))
	for _, line := range bytes.Split(bytes.TrimSuffix(msg, []byte("\r\n")), []byte("\r\n")) {
		require.LessOrEqual(t, len(line), 998)
		require.False(t, bytes.ContainsAny(line, "\r\n\x00"), "%q", line)
		if !eight {
			require.True(t, isASCII(string(line)), "%q", line)
		}
	}
}

// parsed reads a message with another implementation.
func parsed(t testing.TB, msg []byte) (h gomessage.Header, text, html string) {
	t.Helper()
	r, err := gomessage.CreateReader(bytes.NewReader(msg))
	require.NoError(t, err)
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			return r.Header, text, html
		}
		require.NoError(t, err)
		body, err := io.ReadAll(p.Body)
		require.NoError(t, err)
		kind, params, err := p.Header.(*gomessage.InlineHeader).ContentType()
		require.NoError(t, err)
		require.Equal(t, "utf-8", params["charset"])
		switch kind {
		case "text/plain":
			text = string(body)
		case "text/html":
			html = string(body)
		default:
			t.Fatalf("unexpected part %s", kind)
		}
	}
}

// normal is a text as any reader must see it: CRLF line ends, one at the end, valid UTF-8.
func normal(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}

func TestComposeWholeMessage(t *testing.T) {
	c, _ := openWith(t, "127.0.0.1:25", map[string]string{"list_unsubscribe": "mailto:leave@acme.test"})
	m := message("anna@example.test")
	m.Content.ReplyTo = "Help Desk <help@acme.test>"
	m.Content.UnsubscribeURL = "https://acme.test/u/1"
	m.Content.Headers = []delivery.Header{{Name: "Feedback-ID", Value: "camp:acme"}}
	m.PossibleDuplicate = true
	id := m.ID.String()
	require.Equal(t, strings.ReplaceAll(`Date: Mon, 02 Mar 2026 12:00:00 +0000
From: Acme <news@acme.test>
To: anna@example.test
Message-ID: <`+id+`@acme.test>
Subject: Hello
Reply-To: Help Desk <help@acme.test>
List-Unsubscribe: <https://acme.test/u/1>,
 <mailto:leave@acme.test>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
Feedback-ID: camp:acme
X-Msgctl-Possible-Duplicate: yes
MIME-Version: 1.0
Content-Type: multipart/alternative;
 boundary="=_`+id+`"

--=_`+id+`
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

Hi there.

--=_`+id+`
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: 7bit

<p>Hi there.</p>

--=_`+id+`--
`, "\n", "\r\n"), string(composed(t, c, m, extensions{})))
}

func TestComposeForms(t *testing.T) {
	long := strings.Repeat("0123456789", 500)
	boundary := "=_" + message("").ID.String()
	for _, tt := range []struct {
		name, text, html string
		eight            bool // the relay offers 8BITMIME
		holds            string
	}{
		{name: "text", text: "Hi", holds: "text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nHi\r\n"},
		{name: "html", html: "<p>Hi", holds: "text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n<p>Hi\r\n"},
		{name: "both", text: "Hi", html: "<p>Hi", holds: "multipart/alternative"},
		{name: "empty", holds: "text/plain"},
		{name: "dot", text: "\n.\nQUIT\n", holds: "\r\n.\r\n"},
		{name: "bare CR", text: "a\r.\rb", holds: "a\r\n.\r\nb\r\n"},
		{name: "LF CR", text: "a\n\rb", holds: "a\r\n\r\nb\r\n"},
		{name: "long line", text: long, holds: "quoted-printable"},
		{name: "long line, 8bit", text: long, eight: true, holds: "quoted-printable"},
		{name: "line of 998", text: strings.Repeat("x", 998), holds: "7bit"},
		{name: "line of 999", text: strings.Repeat("x", 999), holds: "quoted-printable"},
		{name: "polish", text: "Zażółć", holds: "Za=C5=BC=C3=B3=C5=82=C4=87\r\n"},
		{name: "polish, 8bit", text: "Zażółć", eight: true, holds: "8bit\r\n\r\nZażółć\r\n"},
		{name: "NUL", text: "a\x00b", eight: true, holds: "a=00b"},
		{name: "not UTF-8", text: "caf\xe9", holds: "caf=EF=BF=BD"},
		{name: "spaces at the end", text: "é  \nx\t", holds: "=C3=A9 =20\r\nx=09\r\n"},
		{name: "dot in quoted-printable", text: "é\n.\n..x", holds: "=C3=A9\r\n=2E\r\n=2E.x\r\n"},
		{name: "boundary in the text", text: "x\n--" + boundary + "--\n", html: "<p>y", holds: "--=3D_msg_"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := openWith(t, "127.0.0.1:25", nil)
			m := message("anna@example.test")
			m.Content.Text, m.Content.HTML = tt.text, tt.html
			msg := composed(t, c, m, extensions{eightBit: tt.eight})
			requireClean(t, msg, tt.eight)
			require.Contains(t, string(msg), tt.holds)
			_, text, html := parsed(t, msg)
			require.Equal(t, normal(tt.text), text)
			require.Equal(t, normal(tt.html), html)
		})
	}
}

func TestSubjects(t *testing.T) {
	for _, s := range []string{
		"", "Hello", "Zażółć gęślą jaźń", "你好，世界", "👩‍👩‍👧‍👦 family", "=?utf-8?q?spoof?=", "tail =?", strings.Repeat("word ", 60) + "end",
		strings.Repeat("x", 2000), strings.Repeat("ż", 700), "two  spaces   inside", strings.Repeat(" gap", 30) + strings.Repeat(" ", 90) + "end",
	} {
		c, _ := openWith(t, "127.0.0.1:25", nil)
		m := message("anna@example.test")
		m.Content.Subject = s
		msg := composed(t, c, m, extensions{})
		requireClean(t, msg, false)
		for line := range strings.SplitSeq(string(msg), "\r\n") {
			require.LessOrEqual(t, len(line), 78, line)
		}
		got, err := mail.ReadMessage(bytes.NewReader(msg))
		require.NoError(t, err)
		subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
		require.NoError(t, err)
		require.Equal(t, strings.Trim(s, " "), subject)
	}
}

func TestSenders(t *testing.T) {
	for _, tt := range []struct{ in, name, addr string }{
		{"news@acme.test", "", "news@acme.test"},
		{"Acme <news@acme.test>", "Acme", "news@acme.test"},
		{`"Acme, Inc." <news@acme.test>`, "Acme, Inc.", "news@acme.test"},
		{`"Say \"hi\" \\ now" <news@acme.test>`, `Say "hi" \ now`, "news@acme.test"},
		{"Łódź Sklep <news@acme.test>", "Łódź Sklep", "news@acme.test"},
		{"=?utf-8?q?Caf=C3=A9?= <news@acme.test>", "Café", "news@acme.test"},
		{"<news@bücher.test>", "", "news@xn--bcher-kva.test"},
		{strings.Repeat("ż", 100) + " <news@acme.test>", strings.Repeat("ż", 100), "news@acme.test"},
	} {
		c, _ := openWith(t, "127.0.0.1:25", map[string]string{"from": tt.in})
		msg := composed(t, c, message("anna@example.test"), extensions{})
		requireClean(t, msg, false)
		h, _, _ := parsed(t, msg)
		from, err := h.AddressList("From")
		require.NoError(t, err)
		require.Equal(t, []*gomessage.Address{{Name: tt.name, Address: tt.addr}}, from)
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"anna@example.test":              "anna@example.test",
		"a.b+c@EXAMPLE.test":             "a.b+c@example.test",
		"jürgen@example.test":            "jürgen@example.test",
		"anna@bücher.test":               "anna@xn--bcher-kva.test",
		`"anna"@example.test`:            "anna@example.test",
		`"an..na"@example.test`:          `"an..na"@example.test`,
		`"a@b"@example.test`:             `"a@b"@example.test`,
		`"a\"b"@example.test`:            `"a\"b"@example.test`,
		"a@b":                            "a@b",
		strings.Repeat("a", 64) + "@x.y": strings.Repeat("a", 64) + "@x.y",
	} {
		m, err := parseAddress(in)
		require.NoError(t, err, in)
		require.Equal(t, want, m.addr())
	}
	for _, in := range []string{
		"", "anna", "@example.test", "anna@", "a b@example.test", "a\r\nRCPT TO:<x>@y.z", "anna@example.test\r\n", "anna@[127.0.0.1]",
		`"a> SIZE=1"@example.test`, `"a>x"@example.test`, `"a` + "\r\n" + `"@example.test`, `""@example.test`, `"a"b"@example.test`, `"a\"@example.test`,
		".a@example.test", "a..b@example.test", "a.@example.test", "a@-x.test", "a@x-.test", "a@x..test", "a@.test", "a@x.test.",
		"a@x y.test", "a@x.test> SIZE=1", "a<b@x.test", strings.Repeat("a", 65) + "@x.test", "a@" + strings.Repeat("a", 64) + ".test",
		"a@" + strings.Repeat("abcdefg.", 32) + "test", "a\u0085b@x.test", "a\xffb@x.test", "anna@x\u2028.test", "a,b@x.test", "a@b@",
	} {
		_, err := parseAddress(in)
		require.Error(t, err, "%q", in)
	}
}

func TestRefusedContent(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edit  func(*delivery.Outgoing)
		class delivery.Class
		code  string
	}{
		{"recipient", func(m *delivery.Outgoing) { m.To = "a\r\nRCPT TO:<b@c.d>" }, delivery.BadRecipient, "invalid_address"},
		{"sender", func(m *delivery.Outgoing) { m.From = "x <a@b.c>\r\nBcc: d@e.f" }, delivery.Rejected, "invalid_sender"},
		{"sender encoded", func(m *delivery.Outgoing) { m.From = "=?utf-8?q?a=0D=0ABcc:_d?= <a@b.c>" }, delivery.Rejected, "invalid_sender"},
		{"two senders", func(m *delivery.Outgoing) { m.From = "a@b.c, d@e.f" }, delivery.Rejected, "invalid_sender"},
		{"subject CRLF", func(m *delivery.Outgoing) { m.Content.Subject = "x\r\nBcc: a@b.c" }, delivery.Rejected, "control_character"},
		{"subject LF", func(m *delivery.Outgoing) { m.Content.Subject = "x\nBcc: a@b.c" }, delivery.Rejected, "control_character"},
		{"subject CR", func(m *delivery.Outgoing) { m.Content.Subject = "x\ry" }, delivery.Rejected, "control_character"},
		{"subject NUL", func(m *delivery.Outgoing) { m.Content.Subject = "x\x00" }, delivery.Rejected, "control_character"},
		{"subject U+2028", func(m *delivery.Outgoing) { m.Content.Subject = "x\u2028y" }, delivery.Rejected, "control_character"},
		{"subject U+0085", func(m *delivery.Outgoing) { m.Content.Subject = "x\u0085y" }, delivery.Rejected, "control_character"},
		{"subject not UTF-8", func(m *delivery.Outgoing) { m.Content.Subject = "x\xff" }, delivery.Rejected, "control_character"},
		{"subject long", func(m *delivery.Outgoing) { m.Content.Subject = strings.Repeat("x", 5000) }, delivery.Rejected, "header_too_long"},
		{"reply_to", func(m *delivery.Outgoing) { m.Content.ReplyTo = "a@b.c\r\nX: y" }, delivery.Rejected, "control_character"},
		{"reply_to twice", func(m *delivery.Outgoing) { m.Content.ReplyTo = "a@b.c, d@e.f" }, delivery.Rejected, "invalid_reply_to"},
		{"unsubscribe", func(m *delivery.Outgoing) { m.Content.UnsubscribeURL = "https://a.b/>\r\nX: y" }, delivery.Rejected, "invalid_unsubscribe_url"},
		{"unsubscribe scheme", func(m *delivery.Outgoing) { m.Content.UnsubscribeURL = "javascript:alert(1)" }, delivery.Rejected, "invalid_unsubscribe_url"},
		{"header value", header("X-A", "b\r\nBcc: c@d.e"), delivery.Rejected, "control_character"},
		{"header name", header("X-A: b\r\nBcc", "c@d.e"), delivery.Rejected, "header_not_allowed"},
		{"header space", header("Bcc ", "c@d.e"), delivery.Rejected, "header_not_allowed"},
		{"header empty", header("", "x"), delivery.Rejected, "header_not_allowed"},
		{"header Bcc", header("bCC", "c@d.e"), delivery.Rejected, "header_not_allowed"},
		{"header DKIM", header("DKIM-Signature", "v=1"), delivery.Rejected, "header_not_allowed"},
		{"header Received", header("Received", "x"), delivery.Rejected, "header_not_allowed"},
		{"header Content-Type", header("content-type", "text/html"), delivery.Rejected, "header_not_allowed"},
		{"header Message-ID", header("Message-Id", "<x@y>"), delivery.Rejected, "header_not_allowed"},
		{"header long", header("X-A", strings.Repeat("x", 5000)), delivery.Rejected, "header_too_long"},
		{"headers many", func(m *delivery.Outgoing) { m.Content.Headers = make([]delivery.Header, 51) }, delivery.Rejected, "header_too_long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := openWith(t, "127.0.0.1:1", nil) // nothing listens: it must not get that far
			m := message("anna@example.test")
			tt.edit(m)
			_, err := c.Send(context.Background(), m)
			f := requireFailure(t, err, tt.class, tt.code)
			require.True(t, f.Known)
		})
	}
}

func header(name, value string) func(*delivery.Outgoing) {
	return func(m *delivery.Outgoing) { m.Content.Headers = []delivery.Header{{Name: name, Value: value}} }
}

// What leaves is taken by a strict server, whatever the text is.
func TestNothingIsSmuggled(t *testing.T) {
	sim := startSim(t, simulator.Options{})
	c, _ := openWith(t, sim.SMTPAddr(), nil)
	bodies := []string{
		"\n.\n", "\r.\r", "\r\n.\r\n", "\n.\r\n", "\r.\n", "a\n.\nMAIL FROM:<x@y.z>\n", ".", ".\n", "..", "\n..\n", "a\r", "a\n\r\n\r", "\x00\n.\n",
		strings.Repeat("x", 5000), strings.Repeat("ż", 5000), strings.Repeat(".", 5000), strings.Repeat("\r", 5000), "ż\n.\nż", "",
	}
	for i, body := range bodies {
		m := message("anna@example.test")
		m.Content.Text, m.Content.HTML = body, ""
		if i%2 == 1 {
			m.Content.HTML = body
		}
		_, err := c.Send(context.Background(), m)
		require.NoError(t, err, "%q", body)
	}
	entries := sim.Ledger().Entries(0)
	require.Len(t, entries, len(bodies))
	for i, e := range entries {
		require.Equal(t, "delivered", e.Outcome)
		want := normal(bodies[i])
		if len(want) < 900 {
			require.Equal(t, want, e.Text)
		}
	}
}

func TestUTF8Addresses(t *testing.T) {
	sim := startSim(t, simulator.Options{})
	c, _ := openWith(t, sim.SMTPAddr(), nil)
	_, err := c.Send(context.Background(), message("jürgen@bücher.test"))
	require.NoError(t, err)
	require.Equal(t, "jürgen@xn--bcher-kva.test", sim.Ledger().Entries(0)[0].To)

	p := startPeer(t, func(w *wire) { w.welcome("8BITMIME"); w.hear() })
	c, _ = openWith(t, p.addr, nil)
	_, err = c.Send(context.Background(), message("jürgen@example.test"))
	requireFailure(t, err, delivery.Rejected, "smtputf8_unsupported")
}

func FuzzCompose(f *testing.F) {
	f.Add("Hello", "Hi", "<p>Hi", "X-A", "b", true)
	f.Add("Zażółć", "\n.\n", "\r.\r", "References", "<a@b> <c@d>", false)
	f.Add("=?utf-8?q?x?=", "a\x00b", "--=_msg_", "Feedback-ID", "ż", true)
	f.Add(strings.Repeat("x ", 200), strings.Repeat("y", 1500), "", "Bcc", "z", false)
	c, _ := openWith(f, "127.0.0.1:25", nil)
	f.Fuzz(func(t *testing.T, subject, text, html, name, value string, eight bool) {
		m := message("anna@example.test")
		m.Content.Subject, m.Content.Text, m.Content.HTML = subject, text, html
		m.Content.Headers = []delivery.Header{{Name: name, Value: value}}
		e, err := c.prepare(m)
		if err != nil {
			require.NotEqual(t, delivery.Class(0), delivery.AsFailure(err).Class)
			return
		}
		cn := &conn{ext: extensions{eightBit: eight}}
		require.NoError(t, c.compose(cn, e, m))
		requireClean(t, cn.msg, eight)
		h, gotText, gotHTML := parsed(t, cn.msg)
		require.Equal(t, normal(text), gotText)
		require.Equal(t, normal(html), gotHTML)
		got, err := h.Text("Subject")
		require.NoError(t, err)
		require.Equal(t, strings.Trim(subject, " "), got)
		std, err := mail.ReadMessage(bytes.NewReader(cn.msg))
		require.NoError(t, err)
		require.Equal(t, "anna@example.test", std.Header.Get("To"))
		require.Empty(t, std.Header.Get("Bcc"))
		require.False(t, bytes.Contains(stuffDots(cn.msg), []byte("\r\n.\r\n")))
	})
}

func FuzzParseMailbox(f *testing.F) {
	for _, s := range []string{"a@b.c", "A B <a@b.c>", `"x" <"y z"@b.c>`, "ü@ü.test", "=?utf-8?b?w7w=?= <a@b.c>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMailbox(s)
		if err != nil {
			return
		}
		require.False(t, strings.ContainsAny(m.addr(), "<> \r\n\x00"), "%q", m.addr())
		again, err := parseMailbox(m.addr())
		require.NoError(t, err)
		require.Equal(t, m.addr(), again.addr(), "the form is canonical")
		a, err := (&mail.AddressParser{WordDecoder: new(mime.WordDecoder)}).Parse(strings.ReplaceAll(m.header(), "\r\n", ""))
		require.NoError(t, err)
		require.Equal(t, m.name, a.Name)
	})
}
