package smpp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/smpp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// The bind_transmitter that the specification shows as its sample PDU (§3.2), octet by octet.
const samplePDU = `
	00 00 00 2F 00 00 00 02 00 00 00 00 00 00 00 01
	53 4D 50 50 33 54 45 53 54 00 73 65 63 72 65 74 30 38 00
	53 55 42 4D 49 54 31 00 00 01 01 00`

func TestSamplePDU(t *testing.T) {
	t.Parallel()
	want := unhex(t, samplePDU)
	h, body, err := smpp.NewReader(bytes.NewReader(want)).Next()
	require.NoError(t, err)
	require.Equal(t, smpp.Header{Command: smpp.BindTransmitter, Sequence: 1}, h)
	b, err := smpp.ParseBind(body)
	require.NoError(t, err)
	require.Equal(t, smpp.Bind{
		SystemID: "SMPP3TEST", Password: "secret08", SystemType: "SUBMIT1", Version: 0, TON: 1, NPI: 1,
	}, b)
	got := b.Append(nil, smpp.BindTransmitter, 1)
	want[16+10+9+8] = smpp.Version34 // the sample leaves interface_version 0; we never do
	require.Equal(t, want, got)
}

func TestGoldenPDUs(t *testing.T) {
	t.Parallel()
	m := smpp.Message{
		ServiceType: "CMT", Source: smpp.Address{TON: 5, Addr: "ACME"}, Dest: smpp.Address{TON: 1, NPI: 1, Addr: "1555"},
		ESMClass: smpp.ESMUDHI, Priority: 1, ValidityPeriod: "000000010000000R", RegisteredDelivery: 1,
		DataCoding: smpp.CodingUCS2, Short: smpp.Concat{Ref: 7, Total: 2, Seq: 1}.Append(nil),
		Optional: smpp.TLVs(nil).Append(smpp.TagMessageState, []byte{2}),
	}
	require.NoError(t, m.Check())
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"enquire_link", smpp.Header{Command: smpp.EnquireLink, Sequence: 5}.Append(nil),
			"00000010 00000015 00000000 00000005"},
		{"generic_nack", smpp.Header{Command: smpp.GenericNack, Status: smpp.RInvCmdID, Sequence: 9}.Append(nil),
			"00000010 80000000 00000003 00000009"},
		{"submit_sm_resp", smpp.AppendID(nil, smpp.Header{Command: smpp.SubmitSMResp, Sequence: 2}, "ab"),
			"00000013 80000004 00000000 00000002 616200"},
		{"submit_sm_resp with an error has no body",
			smpp.AppendID(nil, smpp.Header{Command: smpp.SubmitSMResp, Status: smpp.RThrottled, Sequence: 2}, "ab"),
			"00000010 80000004 00000058 00000002"},
		{"submit_sm", m.Append(nil, smpp.SubmitSM, 0x01020304), `
			00000052 00000004 00000000 01020304
			434D5400 05 00 41434D4500 01 01 3135353500 40 00 01 00 30303030303030313030303030303052 00
			01 00 08 00 06 050003070201 0427 0001 02`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			want := unhex(t, tc.want)
			if tc.name == "submit_sm" {
				want[3] = byte(len(want))
			}
			require.Equal(t, want, tc.got)
		})
	}
	h, body, err := smpp.NewReader(bytes.NewReader(m.Append(nil, smpp.SubmitSM, 3))).Next()
	require.NoError(t, err)
	require.EqualValues(t, 3, h.Sequence)
	back, err := smpp.ParseMessage(body)
	require.NoError(t, err)
	require.Equal(t, m, back)
}

func TestReader(t *testing.T) {
	t.Parallel()
	link := smpp.Header{Command: smpp.EnquireLink, Sequence: 1}.Append(nil)
	big := (&smpp.Message{
		Optional: smpp.TLVs(nil).Append(smpp.TagMessagePayload, make([]byte, 60_000)),
	}).Append(nil, smpp.DeliverSM, 2)
	stream := bytes.Repeat(append(append(append([]byte(nil), link...), big...), link...), 3)
	for _, tc := range []struct {
		name string
		r    io.Reader
	}{
		{"whole", bytes.NewReader(stream)},
		{"halves", iotest.HalfReader(bytes.NewReader(stream))},
		{"an octet at a time", iotest.OneByteReader(bytes.NewReader(stream))},
		{"error with the last octets", iotest.DataErrReader(bytes.NewReader(stream))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := smpp.NewReader(tc.r)
			for range 3 {
				for _, want := range []int{0, len(big) - 16, 0} {
					_, body, err := r.Next()
					require.NoError(t, err)
					require.Len(t, body, want)
				}
			}
			_, _, err := r.Next()
			require.Equal(t, io.EOF, err)
		})
	}
}

// endless gives a header and then octets for ever.
type endless struct {
	head []byte
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.head)
	e.head = e.head[n:]
	if n == 0 {
		n = len(p)
	}
	e.read += n
	return n, nil
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	for _, length := range []uint32{0, 1, 15, smpp.MaxLen + 1, 0x7FFFFFFF, 0xFFFFFFFF} {
		head := []byte{byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}
		_, _, err := smpp.NewReader(bytes.NewReader(head)).Next()
		var bad *smpp.LengthError
		require.ErrorAs(t, err, &bad, "length %d", length)
		require.Equal(t, length, bad.Length)
		e := &endless{head: head}
		_, _, err = smpp.NewReader(e).Next()
		require.ErrorAs(t, err, &bad)
		require.LessOrEqual(t, e.read, smpp.MaxLen)
	}
	_, _, err := smpp.NewReader(strings.NewReader("\x00\x00")).Next()
	require.Equal(t, io.ErrUnexpectedEOF, err)
	_, _, err = smpp.NewReader(strings.NewReader("\x00\x00\x00\x20abc")).Next()
	require.Equal(t, io.ErrUnexpectedEOF, err)
	_, _, err = smpp.NewReader(iotest.ErrReader(io.ErrClosedPipe)).Next()
	require.Equal(t, io.ErrClosedPipe, err)
}

func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	full := (&smpp.Message{Short: []byte("hi"), Optional: smpp.TLVs(nil).Append(smpp.TagMessageState, []byte{2})}).
		Append(nil, smpp.SubmitSM, 1)[16:]
	for n := range full {
		_, err := smpp.ParseMessage(full[:n])
		if n == len(full)-5 { // without its one optional parameter the body is whole
			require.NoError(t, err)
			continue
		}
		var field *smpp.FieldError
		require.ErrorAs(t, err, &field, "cut at %d", n)
		if n > len(full)-5 {
			require.ErrorIs(t, err, smpp.ErrTLV)
			require.Equal(t, smpp.RInvOptParStream, field.Status())
		} else {
			require.Equal(t, smpp.RInvParLen, field.Status())
		}
	}
	_, err := smpp.ParseMessage([]byte("service without end"))
	require.ErrorIs(t, err, smpp.ErrNoNUL)
	_, err = smpp.ParseBind([]byte("id\x00password"))
	require.ErrorIs(t, err, smpp.ErrNoNUL)
	require.ErrorContains(t, err, "password")
	_, err = smpp.ParseMessage(append(full[:len(full):len(full)], 0x04, 0x24, 0xFF, 0xFF, 1))
	require.ErrorIs(t, err, smpp.ErrTLV)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		m    smpp.Message
		want error
	}{
		{"fits", smpp.Message{Dest: smpp.Address{Addr: strings.Repeat("1", 20)}, Short: make([]byte, 254)}, nil},
		{"long address", smpp.Message{Dest: smpp.Address{Addr: strings.Repeat("1", 21)}}, smpp.ErrTooLong},
		{"NUL in the sender", smpp.Message{Source: smpp.Address{Addr: "A\x00B"}}, smpp.ErrNUL},
		{"long text", smpp.Message{Short: make([]byte, 255)}, smpp.ErrTooLong},
		{"broken parameter", smpp.Message{Optional: smpp.TLVs{0, 1, 0}}, smpp.ErrTLV},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			require.ErrorIs(t, tc.m.Check(), tc.want)
		})
	}
	require.ErrorIs(t, (&smpp.Bind{SystemID: strings.Repeat("x", 16)}).Check(), smpp.ErrTooLong)
	require.ErrorIs(t, (&smpp.Bind{Password: "\x00"}).Check(), smpp.ErrNUL)
	require.NoError(t, (&smpp.Bind{SystemID: "a", Password: "longer than eight"}).Check())
}

func TestConcat(t *testing.T) {
	t.Parallel()
	for _, c := range []smpp.Concat{{Ref: 0x12, Total: 3, Seq: 2}, {Ref: 0x1234, Wide: true, Total: 255, Seq: 255}} {
		got, found, text, err := smpp.SplitUDH(append(c.Append(nil), "text"...))
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, c, got)
		require.Equal(t, "text", string(text))
	}
	for _, tc := range []struct {
		name  string
		b     string
		found bool
		text  string
		err   bool
	}{
		{"empty", "", false, "", true},
		{"only a length of 0", "\x00", false, "", false},
		{"longer than the data", "\x05\x00\x03", false, "", true},
		{"element longer than the header", "\x03\x00\x09\x01ab", false, "", true},
		{"another element first", "\x08\x24\x01\x01\x00\x03\x01\x02\x01ab", true, "ab", false},
		{"only another element", "\x03\x24\x01\x01ab", false, "ab", false},
		{"part 0", "\x05\x00\x03\x01\x02\x00ab", false, "ab", false},
		{"part 3 of 2", "\x05\x00\x03\x01\x02\x03ab", false, "ab", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, found, text, err := smpp.SplitUDH([]byte(tc.b))
			require.Equal(t, tc.err, err != nil)
			require.Equal(t, tc.found, found)
			require.Equal(t, tc.text, string(text))
		})
	}
	m := smpp.Message{Short: []byte("x"), Optional: smpp.TLVs(nil).Append(smpp.TagSARMsgRefNum, []byte{1, 2}).
		Append(smpp.TagSARTotalSegments, []byte{2}).Append(smpp.TagSARSegmentSeqnum, []byte{1})}
	c, found, text, err := m.Part()
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, smpp.Concat{Ref: 0x102, Wide: true, Total: 2, Seq: 1}, c)
	require.Equal(t, "x", string(text))
}

func TestTimes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	require.Equal(t, "000002033015000R", smpp.FormatRelative(51*time.Hour+30*time.Minute+15*time.Second))
	require.Equal(t, "000000000001000R", smpp.FormatRelative(1900*time.Millisecond))
	require.Equal(t, "000031000000000R", smpp.FormatRelative(31*24*time.Hour))
	require.Empty(t, smpp.FormatRelative(999*time.Millisecond))
	require.Empty(t, smpp.FormatRelative(-time.Hour))
	require.Empty(t, smpp.FormatRelative(32*24*time.Hour))
	require.Equal(t, "260301120000000+", smpp.FormatAbsolute(now))
	require.Empty(t, smpp.FormatAbsolute(time.Time{}))
	for s, want := range map[string]time.Time{
		"000002033015000R": now.Add(51*time.Hour + 30*time.Minute + 15*time.Second),
		"000100000000000R": now.AddDate(0, 1, 0),
		"260301120000000+": now,
		"260301130000004+": now, // four quarters of an hour ahead
		"260301110000504-": now.Add(500 * time.Millisecond),
	} {
		got, err := smpp.ParseTime(s, now)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{
		"", "2603011200", "260301120000000X", "26030112000000+0", "261301120000000+", "260230120000000+", "260301240000000+",
		"260301120000049+", "2603011200000 0+", "aaaaaaaaaaaaaaaR",
	} {
		_, err := smpp.ParseTime(s, now)
		require.ErrorIs(t, err, smpp.ErrTime, s)
	}
}

func TestReceiptText(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 34, 0, 0, time.UTC)
	full := smpp.Receipt{
		ID: "0A1b", Sub: 1, Dlvrd: 1, Submitted: at, Done: at, State: smpp.StateDelivered, Stat: "DELIVRD", Err: "000", Text: "hello you",
	}
	text := "id:0A1b sub:001 dlvrd:001 submit date:2603011234 done date:2603011234 stat:DELIVRD err:000 text:hello you"
	require.Equal(t, text, string(full.Append(nil)))
	for _, tc := range []struct {
		name, text string
		want       smpp.Receipt
	}{
		{"as the appendix has it", text, full},
		{"upper case", "ID:0A1b SUB:001 DLVRD:001 SUBMIT DATE:2603011234 DONE DATE:2603011234 STAT:DELIVRD ERR:000 TEXT:hello you", full},
		{"with seconds", strings.ReplaceAll(text, "2603011234", "260301123400"), full},
		{"only what matters", "id:7 stat:UNDELIV", smpp.Receipt{ID: "7", State: smpp.StateUndeliverable, Stat: "UNDELIV"}},
		{"lower case state, written out", "id:7 stat:delivered", smpp.Receipt{ID: "7", State: smpp.StateDelivered, Stat: "delivered"}},
		{"blanks after colons", "id: 7 stat: EXPIRED err: 42", smpp.Receipt{ID: "7", State: smpp.StateExpired, Stat: "EXPIRED", Err: "42"}},
		{"empty fields", "id:7 err: stat:REJECTD text:", smpp.Receipt{ID: "7", State: smpp.StateRejected, Stat: "REJECTD"}},
		{"the text does not speak", "id:7 text:stat:DELIVRD id:8", smpp.Receipt{ID: "7", Text: "stat:DELIVRD id:8"}},
		{"the first counts", "id:7 id:8 stat:DELETED", smpp.Receipt{ID: "7", State: smpp.StateDeleted, Stat: "DELETED"}},
		{"a state of its own", "id:7 stat:BUFFRED", smpp.Receipt{ID: "7", Stat: "BUFFRED"}},
		{"dates that are none", "id:7 done date:9999999999 submit date:x", smpp.Receipt{ID: "7"}},
		{"NUL at the end", "id:7 stat:ACCEPTD\x00", smpp.Receipt{ID: "7", State: smpp.StateAccepted, Stat: "ACCEPTD"}},
		{"other fields between", "id:7 foo:1 bar stat:UNKNOWN", smpp.Receipt{ID: "7", State: smpp.StateUnknown, Stat: "UNKNOWN"}},
		{"a key inside a word is none", "void:3 id:7", smpp.Receipt{ID: "7"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := smpp.ParseReceipt(tc.text)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	for _, s := range []string{"", "hello", "id:", "id: stat:", "\x00\xff", "text:id:7 stat:DELIVRD"} {
		_, err := smpp.ParseReceipt(s)
		require.ErrorIs(t, err, smpp.ErrNotReceipt, "%q", s)
	}
}

func TestReceiptParameters(t *testing.T) {
	t.Parallel()
	r, err := smpp.ParseReceipt("id:10 stat:ENROUTE err:000")
	require.NoError(t, err)
	require.True(t, r.Apply(smpp.TLVs(nil).Append(smpp.TagReceiptedMessageID, []byte("A\x00")).
		Append(smpp.TagMessageState, []byte{5}).Append(smpp.TagNetworkErrorCode, []byte{3, 0, 1})))
	require.Equal(t, smpp.Receipt{
		ID: "A", State: smpp.StateUndeliverable, Stat: "UNDELIV", Err: "000", NetworkType: 3, NetworkCode: 1,
	}, r)
	require.False(t, (&smpp.Receipt{}).Apply(nil))
	require.True(t, (&smpp.Receipt{}).Apply(smpp.TLVs(nil).Append(smpp.TagReceiptedMessageID, []byte("no NUL"))))
}

func TestStatusNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, "ESME_RTHROTTLED", smpp.RThrottled.String())
	require.Equal(t, "ESME_RX_T_APPN", smpp.Status(0x64).String())
	require.Equal(t, "ESME_0x00000400", smpp.Status(0x400).String())
	require.Equal(t, "REJECTD", smpp.StateRejected.String())
	require.Empty(t, smpp.State(99).String())
}

func TestAppendDoesNotAllocate(t *testing.T) {
	m := smpp.Message{Dest: smpp.Address{TON: 1, NPI: 1, Addr: "15550100"}, Short: []byte("hello")}
	buf := make([]byte, 0, 256)
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = m.Append(buf, smpp.SubmitSM, 1) }))
}

func FuzzReader(f *testing.F) {
	f.Add(unhex(f, samplePDU))
	f.Add([]byte{0, 0, 0, 15})
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF})
	f.Add((&smpp.Message{Short: []byte("x")}).Append(nil, smpp.DeliverSM, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b))} {
			r := smpp.NewReader(in)
			for {
				h, body, err := r.Next()
				if err != nil {
					break
				}
				_ = h.Status.String()
				_, _ = smpp.ParseBind(body)
				_ = smpp.ParseID(body)
				m, err := smpp.ParseMessage(body)
				if err != nil {
					var field *smpp.FieldError
					require.True(t, errors.As(err, &field))
					continue
				}
				_, _, _, _ = m.Part()
				_ = (&smpp.Receipt{}).Apply(m.Optional)
				if m.Check() == nil {
					again, err := smpp.ParseMessage(m.Append(nil, h.Command, h.Sequence)[16:])
					require.NoError(t, err)
					require.Equal(t, m, again)
				}
			}
		}
	})
}

func FuzzReceipt(f *testing.F) {
	f.Add("id:0A1b sub:001 dlvrd:001 submit date:2603011234 done date:2603011234 stat:DELIVRD err:000 text:hello")
	f.Add("id: stat: text:id:")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := smpp.ParseReceipt(text)
		if err != nil {
			return
		}
		again, err := smpp.ParseReceipt(string(r.Append(nil)))
		if r.State != smpp.StateNone {
			require.NoError(t, err)
			require.Equal(t, r.State, again.State)
		}
	})
}

func FuzzTime(f *testing.F) {
	f.Add("260301120000000+")
	f.Add("000002033015000R")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		at, err := smpp.ParseTime(s, now)
		if err == nil && s[15] == '+' && s[13:15] == "00" {
			require.Equal(t, s, smpp.FormatAbsolute(at))
		}
	})
}

func BenchmarkParseMessage(b *testing.B) {
	body := (&smpp.Message{Source: smpp.Address{Addr: "ACME"}, Dest: smpp.Address{Addr: "15550100"}, Short: make([]byte, 100)}).
		Append(nil, smpp.SubmitSM, 1)[16:]
	b.ReportAllocs()
	for b.Loop() {
		_, _ = smpp.ParseMessage(body)
	}
}
