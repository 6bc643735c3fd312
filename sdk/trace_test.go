package sdk

import (
	"context"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
)

func TestTraceIDIsTheMessagesOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := delivery.MessageID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		require.Equal(t, hex.EncodeToString(id[:]), (&Message{ID: id.String()}).TraceID())
	})
	good := delivery.NewIDs(time.Now).Message().String()
	for _, bad := range []string{"", "msg_", good[4:], "cmp_" + good[4:], good + "0", good[:29], good[:29] + "u", "msg_8" + good[5:], "msg_ü" + good[6:]} {
		require.Empty(t, (&Message{ID: bad}).TraceID(), bad)
	}
}

func TestWithTracing(t *testing.T) {
	var got []http.Header
	type key struct{}
	calls := 0
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Clone())
		if len(got) == 1 {
			refuse(w, http.StatusServiceUnavailable, "unavailable")
			return
		}
		answer(w, http.StatusOK, Message{ID: "msg_1"})
	}, WithTracing(func(ctx context.Context, h http.Header) {
		calls++
		require.Empty(t, h, "it sees no key")
		h.Set("Traceparent", ctx.Value(key{}).(string))
		h.Set("Tracestate", "a=1\r\nX-Evil: 1")
		h.Set("Baggage", "user=quince")
		h.Set("Authorization", "Bearer evil")
	}))
	_, err := c.Messages.Get(context.WithValue(t.Context(), key{}, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), "msg_1")
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, 2, calls, "each try asks anew")
	for _, h := range got {
		require.Equal(t, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", h.Get("Traceparent"))
		require.Equal(t, "Bearer mk_test_key", h.Get("Authorization"))
		require.Empty(t, h.Values("Tracestate"), "what no header may carry is left out")
		require.Empty(t, h.Values("Baggage"), "it may hold anything")
	}
}
