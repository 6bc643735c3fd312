package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func sampleFacts() []store.Event {
	at := time.UnixMilli(1_780_000_000_123).UTC()
	return []store.Event{
		{Channel: delivery.SMS, Fact: delivery.Fact{Message: delivery.MessageID{1}, Kind: delivery.FactAccepted,
			At: at, Status: delivery.StatusQueued, Code: "queued", Until: at}},
		{Channel: delivery.SMS, Fact: delivery.Fact{Message: delivery.MessageID{2}, Kind: delivery.FactAccepted,
			At: at, Status: delivery.StatusQueued, Code: "queued", Until: at}},
		{Channel: delivery.Email, Fact: delivery.Fact{Message: delivery.MessageID{3}, Kind: delivery.FactDeferred,
			At: at.Add(time.Second), Status: delivery.StatusDeferred, Attempt: 3, Epoch: 4,
			Account: delivery.AccountID{9}, Code: "4.7.1", Detail: "greylisted", Until: at.Add(time.Minute),
			Route: "rule 2: +91", Content: "otp v3", Leg: 1}},
		{},
	}
}

func TestFactsRoundTrip(t *testing.T) {
	t.Parallel()
	want := sampleFacts()
	b := store.AppendFacts(nil, want)
	got, err := store.DecodeFacts(b)
	require.NoError(t, err)
	require.Equal(t, want, got)

	none, err := store.DecodeFacts(store.AppendFacts(nil, nil))
	require.NoError(t, err)
	require.Empty(t, none)
}

// What the first version wrote stays readable byte for byte: two facts without the fields that came later.
func TestDecodeFactsReadsWhatAnOlderProgramWrote(t *testing.T) {
	t.Parallel()
	old := "\x01\x02" +
		"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x8f\x05" + // kind status channel at code until
		"\x01\x02\x01\xd0\x0f\x06queued\xd0\x0f" +
		"\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	f := delivery.Fact{Message: delivery.MessageID{1}, Kind: delivery.FactAccepted, Status: delivery.StatusQueued,
		At: time.UnixMilli(1000).UTC(), Code: "queued", Until: time.UnixMilli(1000).UTC()}
	second := f
	second.Message = delivery.MessageID{2}
	want := []store.Event{{Channel: delivery.SMS, Fact: f}, {Channel: delivery.SMS, Fact: second}}
	got, err := store.DecodeFacts([]byte(old))
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, old, string(store.AppendFacts(nil, want)), "and a fact without them is still written so")
}

// The facts of one batch differ in little but the message: a repeated fact must cost an id and one byte.
func TestRepeatedFactsAreSmall(t *testing.T) {
	t.Parallel()
	one := sampleFacts()[:1]
	many := make([]store.Event, 256)
	for i := range many {
		many[i] = one[0]
	}
	require.Equal(t, len(store.AppendFacts(nil, one))+255*17+1, len(store.AppendFacts(nil, many)))
}

func TestDecodeFactsRefusesEveryCut(t *testing.T) {
	t.Parallel()
	b := store.AppendFacts(nil, sampleFacts())
	for n := range b {
		_, err := store.DecodeFacts(b[:n])
		require.ErrorIs(t, err, store.ErrBadFacts, "cut at %d", n)
	}
	_, err := store.DecodeFacts(append(b, 0))
	require.ErrorIs(t, err, store.ErrBadFacts)
	_, err = store.DecodeFacts([]byte{2, 0})
	require.ErrorContains(t, err, "version 2")
	_, err = store.DecodeFacts([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	require.ErrorIs(t, err, store.ErrBadFacts)
}

func FuzzDecodeFacts(f *testing.F) {
	f.Add(store.AppendFacts(nil, sampleFacts()))
	f.Add(store.AppendFacts(nil, nil))
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := store.DecodeFacts(b)
		if err != nil {
			require.ErrorIs(t, err, store.ErrBadFacts)
			return
		}
		again, err := store.DecodeFacts(store.AppendFacts(nil, events))
		require.NoError(t, err)
		require.Equal(t, events, again)
	})
}
