package smpp

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
)

func TestMessageIDs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, setting string
		write         func(n uint64) (answer, receipt string)
	}{
		{"as they are", "auto", func(n uint64) (string, string) { return fmt.Sprint(n), fmt.Sprint(n) }},
		{"zeros and case", "auto", func(n uint64) (string, string) { return fmt.Sprintf("%08X", n), fmt.Sprintf("%x", n) }},
		{"UUIDs", "auto", func(n uint64) (string, string) {
			s := fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012x", n)
			return s, s
		}},
		{"receipts in decimal, said", "dec", func(n uint64) (string, string) { return fmt.Sprintf("%X", n), fmt.Sprintf("%010d", n) }},
		{"receipts in decimal, learned", "auto", func(n uint64) (string, string) { return fmt.Sprintf("%X", n), fmt.Sprint(n) }},
		{"receipts in hexadecimal, said", "hex", func(n uint64) (string, string) { return fmt.Sprint(n), fmt.Sprintf("%X", n) }},
		{"receipts in hexadecimal, learned", "auto", func(n uint64) (string, string) { return fmt.Sprint(n), fmt.Sprintf("%08x", n) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			x := newIDs(tc.setting)
			for n := range uint64(5000) {
				n += 123_456_789
				answer, receipt := tc.write(n)
				require.Equal(t, x.answered(answer), x.receipted(receipt))
			}
			require.LessOrEqual(t, len(x.ring), recentIDs)
			// Once learned, an id that was not seen lately, from before a restart say, is read the same way.
			answer, receipt := tc.write(99)
			require.Equal(t, canonical(answer), x.receipted(receipt))
		})
	}
	x := newIDs("auto")
	x.answered("10")
	x.answered("a") // 10 is a in decimal: a receipt for 10 proves nothing
	for range 10 {
		require.Equal(t, "10", x.receipted("10"))
	}
	require.EqualValues(t, formUnknown, x.form.Load())
	require.Equal(t, "0", canonical("000"))
	require.Equal(t, "0aZ", canonical("0aZ"), "not a number: case may matter")
	for n := range 5000 {
		x.answered(fmt.Sprint(n))
	}
	require.LessOrEqual(t, len(x.recent), recentIDs)
}

func TestJoiner(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	in := delivery.Inbound{From: "+1", At: now}
	key := func(n int) partKey { return partKey{from: fmt.Sprint(n), total: 2} }
	var j joiner
	_, whole := j.add(key(1), 2, smpp.CodingDefault, []byte("b"), in)
	require.False(t, whole)
	_, whole = j.add(key(1), 2, smpp.CodingDefault, []byte("B"), in) // comes again
	require.False(t, whole)
	m, whole := j.add(key(1), 1, smpp.CodingDefault, []byte("a"), in)
	require.True(t, whole)
	require.Equal(t, "aB", m.Text)
	m, whole = j.add(key(1), 1, smpp.CodingDefault, []byte("a"), in) // could not be stored, comes again
	require.True(t, whole)
	require.Equal(t, "aB", m.Text)
	j.forget([]partKey{key(1)})
	require.Zero(t, j.size)

	in.At = now.Add(-joinWait)
	j.add(key(2), 1, smpp.CodingUCS2, []byte{0x04, 0x4F}, in)
	in.At = now
	j.add(key(3), 1, smpp.CodingDefault, []byte("x"), in)
	keys, messages := j.overdue(now)
	require.Equal(t, []partKey{key(2)}, keys)
	require.Equal(t, "я", messages[0].Text)

	for n := range 3 * maxJoins {
		in.At = now.Add(time.Duration(n) * time.Millisecond)
		j.add(key(n+10), 1, smpp.CodingDefault, make([]byte, 60_000), in)
		require.LessOrEqual(t, len(j.open), maxJoins)
		require.LessOrEqual(t, j.size, maxJoinSize)
	}
	require.NotContains(t, j.open, key(3), "the oldest goes first")
	require.Contains(t, j.open, key(3*maxJoins+9))
}

func TestInboundText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		coding byte
		b      string
		want   string
	}{
		{0x00, "\x00\x1b\x65", "@€"}, {0x01, "abc", "abc"}, {0x03, "caf\xe9", "café"}, {0x08, "\x04\x4f", "я"},
		{0xF0, "\x00", "@"}, {0xF4, "\xff", "ÿ"}, {0x04, "\x01", "\x01"},
	} {
		require.Equal(t, tc.want, text(tc.coding, []byte(tc.b)), "coding %#x", tc.coding)
	}
	require.Equal(t, "+4915112345678", phone(smpp.Address{Addr: "4915112345678"}))
	require.Equal(t, "+1555", phone(smpp.Address{TON: 1, Addr: "1555"}))
	require.Equal(t, "12345", phone(smpp.Address{Addr: "12345"}))
	require.Equal(t, "015112345678", phone(smpp.Address{TON: 2, Addr: "015112345678"}))
	require.Equal(t, "Shop", phone(smpp.Address{TON: 5, Addr: "Shop"}))
}

// FuzzIntake gives the receiving side any body at all: it must answer exactly once and not panic.
func FuzzIntake(f *testing.F) {
	m := smpp.Message{ESMClass: smpp.ESMReceipt, Short: []byte("id:1 stat:DELIVRD")}
	f.Add(m.Append(nil, smpp.DeliverSM, 1)[16:])
	m = smpp.Message{ESMClass: smpp.ESMUDHI, Short: smpp.Concat{Ref: 1, Total: 2, Seq: 1}.Append(nil)}
	f.Add(m.Append(nil, smpp.DeliverSM, 1)[16:])
	f.Add([]byte{})
	c := &Connector{ids: newIDs("auto"), account: &connectors.Account{}}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := smpp.ParseMessage(body)
		if err != nil {
			return
		}
		var b intake
		if isReceipt(&p) {
			b.receipt(c, 1, &p, time.Unix(0, 0))
		} else {
			b.message(c, 1, &p, time.Unix(0, 0))
		}
		require.Equal(t, 1, len(b.answers)/smpp.HeaderLen+len(b.receiptSeq)+len(b.inboundSeq))
	})
}
