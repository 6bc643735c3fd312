package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
)

// FuzzDecode: what is taken means the same to the standard library; what is refused is refused with a problem.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		hello, "", "{}", "[]", "null", hello + hello, `{"to":"a","to":"b"}`, `{"x":1}`, `{"text":"\ud83d\ude00"}`, `{"text":"\ud800"}`,
		`{"headers":[{"name":"a","value":"b","c":1}]}`, "{\"text\":\"\xff\"}", `{"approved":{"params":[1]}}`, `{"vars":{"a":1e400}}`,
		strings.Repeat(`{"vars":`, 101), "\xef\xbb\xbf{}", `{"text":"\u0000"}`, `{"a`, `{"a":"\`, `{"a":"\u12`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in messageIn
		err := decode(body, &in)
		var p *sdk.Error
		if err != nil {
			require.True(t, errors.As(err, &p))
			require.Equal(t, 400, p.Status)
			return
		}
		var same struct {
			To, Text string
			Data     json.RawMessage
		}
		require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(string(body), "\xef\xbb\xbf")), &same))
		require.Equal(t, same.Text, in.Text)
		require.Equal(t, same.To, in.To)
		require.Equal(t, string(same.Data), string(in.Data))
		require.NotContains(t, in.Text, "\x00")
		if ch, err := delivery.ParseChannel(in.Channel); err == nil {
			var d delivery.Draft
			in.Vars = nil // they may be anything until a template is known
			require.NoError(t, json.Unmarshal(appendDraft(nil, &in, ch, 1), &d))
		}
	})
}

// FuzzIdempotencyKey: a key that is taken is printable and short, and its quoted form is the same key.
func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"k", `"k"`, `"a\"b"`, "", `"`, `"\`, "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := (&call{r: &http.Request{Header: keyed(s)}}).idempotencyKey()
		if err != nil {
			return
		}
		require.NotEmpty(t, key)
		require.LessOrEqual(t, len(key), 255)
		again := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		same, err := (&call{r: &http.Request{Header: keyed(again)}}).idempotencyKey()
		require.NoError(t, err)
		require.Equal(t, key, same)
	})
}

// FuzzCursor: only what was sealed opens, and only for whom.
func FuzzCursor(f *testing.F) {
	cu := cursors{key: [32]byte{1}}
	c := &call{tenant: "acme", route: &route{path: "/v1/messages"}}
	other := &call{tenant: "globex", route: c.route}
	f.Add(cu.seal(c, "msg_1"), "msg_1")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, cursor, place string) {
		sealed := cu.seal(c, place)
		got, err := cu.open(c, sealed)
		if len(sealed) <= 4096 {
			require.NoError(t, err)
			require.Equal(t, place, got)
		}
		_, err = cu.open(other, sealed)
		require.Error(t, err)
		if got, err := cu.open(c, cursor); err == nil {
			require.Equal(t, cursor, cu.seal(c, got))
		}
	})
}

// FuzzSchedule: whatever is taken lies within the bounds.
func FuzzSchedule(f *testing.F) {
	f.Add("2026-03-02T10:00:00Z", "", "", "1h")
	f.Add("2026-03-29T02:30", "Europe/Berlin", "2026-03-30T00:00:00Z", "")
	f.Add("9999-01-01T00:00:00+14:00", "", "", "")
	f.Fuzz(func(t *testing.T, sendAt, zone, expires, ttl string) {
		k := &checker{a: &api{}, now: start}
		var faults faults
		due, end := k.schedule(&messageIn{SendAt: sendAt, Zone: zone, ExpiresAt: expires, TTL: ttl}, &faults)
		if faults.problem() != nil {
			return
		}
		require.False(t, due.Before(start))
		require.False(t, due.After(start.Add(farAhead)))
		require.True(t, end.After(due))
		require.LessOrEqual(t, end.Sub(due), 7*24*time.Hour)
	})
}
