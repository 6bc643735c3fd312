package simulator

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/delivery"
)

// mailTalk connects to the mail server and plays lines: what starts with ">" is sent, the rest is expected as the
// start of the next reply line.
func mailTalk(t *testing.T, sim *Sim, script string) {
	t.Helper()
	nc, err := net.Dial("tcp", sim.SMTPAddr())
	require.NoError(t, err)
	defer nc.Close()
	r := bufio.NewReader(nc)
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		line = strings.TrimLeft(line, "\t ")
		if sent, ok := strings.CutPrefix(line, ">"); ok {
			sent = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\0`, "\x00").Replace(sent)
			_, err := io.WriteString(nc, sent+"\r\n")
			require.NoError(t, err)
			continue
		}
		got, err := r.ReadString('\n')
		if line == "closed" {
			require.ErrorIs(t, err, io.EOF, "got %q", got)
			return
		}
		require.NoError(t, err, "waiting for %q", line)
		require.True(t, strings.HasPrefix(got, line), "want %q, got %q", line, got)
	}
}

func startMail(t *testing.T, opt Options) *Sim {
	t.Helper()
	sim, err := Start(context.Background(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	return sim
}

func TestMailConversations(t *testing.T) {
	login := base64.StdEncoding.EncodeToString([]byte("\x00acme\x00secret"))
	wrong := base64.StdEncoding.EncodeToString([]byte("\x00acme\x00guess"))
	for _, tt := range []struct{ name, script string }{
		{"hello", `
			220 sim.test
			>EHLO me.test
			250-sim.test
			250-PIPELINING
			250-8BITMIME
			250-SMTPUTF8
			250-ENHANCEDSTATUSCODES
			250-AUTH PLAIN LOGIN
			250 SIZE
			>NOOP
			250
			>RSET
			250
			>VRFY anna
			252
			>STARTTLS
			502
			>QUIT
			221
			closed`},
		{"no hello", "220\n>MAIL FROM:<a@b.c>\n503"},
		{"hello without name", "220\n>HELO\n501\n>HELO  \n501"},
		{"unknown", "220\n>HTTP/1.1 GET\n500 5.5.2"},
		{"control character", "220\n>NOOP\\0\n500 5.5.2\n>NOOP\\nNOOP\n500 5.5.2\n250"},
		{"line too long", "220\n>NOOP " + strings.Repeat("x", mailMaxLine) + "\n500 5.5.2 line too long"},
		{"too many errors", "220\n" + strings.Repeat(">X\n500\n", mailMaxErrors) + "closed"},
		{"order", "220\n>HELO x\n250\n>RCPT TO:<a@b.c>\n503\n>DATA\n503\n>MAIL FROM:<a@b.c>\n250\n>MAIL FROM:<a@b.c>\n503\n>DATA\n503"},
		{"paths", "220\n>HELO x\n250\n>MAIL FROM:a@b.c\n501\n>MAIL FROM:<a@b.c\n501\n>MAIL FROM:<a b@c.d>\n501\n>MAIL FROM:<a@b.c>x\n501\n" +
			">mail from:<>\n250\n>rcpt to:<>\n501\n>rcpt to:<anna>\n501\n>rcpt to:<a@b.c> NOTIFY=NEVER\n555\n>rcpt to:<\"x>y\"@b.c>\n250"},
		{"size", "220\n>HELO x\n250\n>MAIL FROM:<a@b.c> SIZE=99999999999\n552\n>MAIL FROM:<a@b.c> SIZE=x\n501\n>MAIL FROM:<a@b.c> SIZE=10\n250"},
		{"parameter", "220\n>HELO x\n250\n>MAIL FROM:<a@b.c> BODY=BINARYMIME\n555\n>MAIL FROM:<a@b.c> body=8bitmime\n250"},
		{"SMTPUTF8", "220\n>HELO x\n250\n>MAIL FROM:<ü@b.c>\n550 5.6.7\n>MAIL FROM:<a@b.c>\n250\n>RCPT TO:<ü@b.c>\n553 5.6.7\n>RSET\n250\n" +
			">MAIL FROM:<ü@b.c> SMTPUTF8\n250\n>RCPT TO:<ü@b.c>\n250"},
		{"AUTH PLAIN", "220\n>HELO x\n250\n>AUTH PLAIN " + wrong + "\n535 5.7.8\n>AUTH PLAIN\n334\n>" + login + "\n235\n>AUTH PLAIN " + login + "\n503"},
		{"AUTH LOGIN", "220\n>HELO x\n250\n>AUTH LOGIN\n334 VXNlcm5hbWU6\n>YWNtZQ==\n334 UGFzc3dvcmQ6\n>c2VjcmV0\n235"},
		{"AUTH nonsense", "220\n>HELO x\n250\n>AUTH PLAIN ***\n501\n>AUTH PLAIN AAA=\n535\n>AUTH LOGIN =\n334\n>=\n535\n>AUTH GSSAPI\n504\n>AUTH PLAIN eA==\n501"},
		{"pipelined", "220\n>HELO x\\r\\nMAIL FROM:<a@b.c>\\r\\nRCPT TO:<d@e.f>\\r\\nRCPT TO:<g@h.i>\\r\\nDATA\n250\n250\n250\n250\n354\n>Subject: x\n>\n>hi\n>.\n250 2.0.0"},
	} {
		t.Run(tt.name, func(t *testing.T) { mailTalk(t, startMail(t, Options{Password: "secret"}), tt.script) })
	}
}

// mailSend plays one message and expects the answer to it.
func mailSend(t *testing.T, sim *Sim, from, params, to, message, answer string) {
	t.Helper()
	mailTalk(t, sim, "220\n>HELO x\n250\n>MAIL FROM:<"+from+">"+params+"\n250\n>RCPT TO:<"+to+">\n250\n>DATA\n354\n>"+message+"\n>.\n"+answer)
}

func TestMailLedger(t *testing.T) {
	clock := clockwork.NewFakeClock()
	sim := startMail(t, Options{Clock: clock})
	message := `Message-Id: <abc@acme.test>\r\nsubject: =?utf-8?q?Caf=C3=A9?=\r\n =?utf-8?q?_au_lait?=\r\n` +
		`Content-Type: multipart/alternative;\r\n boundary="b1"\r\n\r\n--b1\r\nContent-Type: text/plain; charset=utf-8\r\n` +
		`Content-Transfer-Encoding: quoted-printable\r\n\r\nCaf=C3=A9=\r\n!\r\n..dot\r\n\r\n--b1\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b1--`
	mailSend(t, sim, "news@acme.test", "", "anna@example.test", message, "250")
	require.Equal(t, []Entry{{
		Seq: 1, At: clock.Now(), Channel: "email", Account: "anonymous", To: "anna@example.test", From: "news@acme.test",
		Ref: "abc@acme.test", Taken: true, Outcome: "delivered", Subject: "Café au lait", Text: "Café!\r\n.dot\r\n",
	}}, sim.Ledger().Entries(0))
}

func TestMailStrictness(t *testing.T) {
	for _, tt := range []struct{ name, params, message, answer, outcome string }{
		{"bare LF", "", `Subject: x\r\n\r\na\nb`, "554 5.6.0", mailSmuggling},
		{"bare CR", "", `Subject: x\r\n\r\na\rb`, "554 5.6.0", mailSmuggling},
		{"LF dot LF", "", `a\n.\nMAIL FROM:<x@y.z>`, "554 5.6.0", mailSmuggling},
		{"CR dot CR", "", `a\r.\rb`, "554 5.6.0", mailSmuggling},
		{"LF dot CRLF", "", `a\n.\r\nb`, "554 5.6.0", mailSmuggling},
		{"8-bit", "", `é`, "554 5.6.0", mailEightBit},
		{"8-bit, announced", " BODY=8BITMIME", `é`, "250", "delivered"},
		{"long line", "", strings.Repeat("x", 1000), "554 5.6.0", mailLongLine},
		{"longest line", "", strings.Repeat("x", 998), "250", "delivered"},
		{"very long line", "", strings.Repeat("x", 3*mailMaxLine), "554 5.6.0", mailLongLine},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sim := startMail(t, Options{})
			mailSend(t, sim, "a@b.c", tt.params, "d@e.f", tt.message, tt.answer)
			entries := sim.Ledger().Entries(0)
			require.Len(t, entries, 1)
			require.Equal(t, tt.outcome, entries[0].Outcome)
			require.Equal(t, tt.outcome == "delivered", entries[0].Taken)
		})
	}
}

func TestMailTooBig(t *testing.T) {
	sim := startMail(t, Options{})
	line := strings.Repeat("x", 900)
	mailSend(t, sim, "a@b.c", "", "d@e.f", strings.Repeat(line+`\r\n`, mailMaxSize/900), "552 5.3.4")
	require.Equal(t, mailTooBig, sim.Ledger().Entries(0)[0].Outcome)
}

func TestMailVerdicts(t *testing.T) {
	for _, tt := range []struct {
		fault   Fault
		script  string // from RCPT on
		entries int
		taken   bool
	}{
		{Temporary, ">RCPT TO:<d@e.f>\n451 4.3.0\n>DATA\n503", 1, false},
		{UnknownSubscriber, ">RCPT TO:<d@e.f>\n550 5.1.1", 1, false},
		{ThrottledFault, ">RCPT TO:<d@e.f>\n421 4.7.0\nclosed", 1, false},
		{RejectedFault, ">RCPT TO:<d@e.f>\n250\n>DATA\n354\n>x\n>.\n550 5.7.1\n>NOOP\n250", 1, false},
		{LostAck, ">RCPT TO:<d@e.f>\n250\n>DATA\n354\n>x\n>.\nclosed", 1, true},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			sim := startMail(t, Options{})
			sim.Fail("acme", -1, tt.fault)
			mailTalk(t, sim, "220\n>HELO x\n250\n>AUTH LOGIN YWNtZQ==\n334\n>eA==\n235\n>MAIL FROM:<a@b.c>\n250\n"+tt.script)
			entries := sim.Ledger().Entries(0)
			require.Len(t, entries, tt.entries)
			require.Equal(t, tt.taken, entries[0].Taken)
			require.Equal(t, string(tt.fault), entries[0].Outcome)
			require.Equal(t, "acme", entries[0].Account)
		})
	}
}

func TestMailBrokenAccounts(t *testing.T) {
	login := "220\n>HELO x\n250\n>AUTH LOGIN YWNtZQ==\n334\n>eA==\n"
	sim := startMail(t, Options{})
	sim.Fail("acme", -1, Down)
	mailTalk(t, sim, login+"closed")
	sim.Fail("acme", -1, BadLogin)
	mailTalk(t, sim, login+"535")
	sim.Heal("acme")
	mailTalk(t, sim, login+"235")
	sim.Fail(mailAnonymous, -1, Down)
	mailTalk(t, sim, "closed")
	sim.Fail(mailAnonymous, -1, BadLogin)
	mailTalk(t, sim, "220\n>HELO x\n250\n>MAIL FROM:<a@b.c>\n535")
}

// Latency is the simulator's clock, not the machine's.
func TestMailLatency(t *testing.T) {
	clock := clockwork.NewFakeClock()
	sim := startMail(t, Options{Clock: clock, Latency: time.Hour})
	done := make(chan struct{})
	go func() {
		defer close(done)
		mailSend(t, sim, "a@b.c", "", "d@e.f", "x", "250")
	}()
	require.NoError(t, clock.BlockUntilContext(t.Context(), 1))
	require.Len(t, sim.Ledger().To(delivery.Email, "d@e.f"), 1, "the ledger comes before the answer")
	clock.Advance(time.Hour)
	<-done
}

func TestMailCloseEndsSessions(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	sim := startMail(t, Options{Clock: clockwork.NewFakeClock(), Latency: time.Hour})
	nc, err := net.Dial("tcp", sim.SMTPAddr())
	require.NoError(t, err)
	defer nc.Close()
	_, err = bufio.NewReader(nc).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, sim.Close())
	_, err = nc.Read(make([]byte, 1))
	require.Error(t, err)
}

func FuzzMailExcerpt(f *testing.F) {
	f.Add("Subject: x\r\n\r\nhi")
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b--")
	f.Add("Content-Transfer-Encoding: base64\r\n\r\naGk=")
	f.Fuzz(func(t *testing.T, msg string) {
		_, _, text := mailExcerpt([]byte(msg))
		require.LessOrEqual(t, len(text), 1000)
	})
}

func FuzzMailPath(f *testing.F) {
	f.Add("FROM:<a@b.c> SIZE=1")
	f.Add(`FROM:<"a\">b"@c.d>`)
	f.Fuzz(func(t *testing.T, arg string) {
		path, params, ok := mailPath(arg, "FROM:")
		require.True(t, ok || path == "" && params == "")
	})
}
