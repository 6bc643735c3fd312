package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	testSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	testBody    = `{"type":"message.delivered","timestamp":"2026-10-01T12:00:00Z","data":{"id":"msg_1"}}`
)

var testNow = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

func signed(t testing.TB, secret string) http.Header {
	t.Helper()
	h, err := Sign(secret, "msg_1", testNow, []byte(testBody))
	require.NoError(t, err)
	return h
}

// The example of the scheme's reference implementations.
func TestKnownSignature(t *testing.T) {
	body := `{"test": 2432232314}`
	at := time.Unix(1614265330, 0)
	h, err := Sign(testSecret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, []byte(body))
	require.NoError(t, err)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", h.Get("webhook-signature"))
	require.NoError(t, Verify(h, []byte(body), at, testSecret))
}

func TestVerify(t *testing.T) {
	good := signed(t, testSecret).Get(HeaderSignature)
	stamp := func(d time.Duration) string { return strconv.FormatInt(testNow.Add(d).Unix(), 10) }
	for _, c := range []struct {
		name string
		edit func(h http.Header)
		now  time.Duration
		want error
	}{
		{"good", func(http.Header) {}, 0, nil},
		{"good at the edge", func(http.Header) {}, Tolerance, nil},
		{"good at the other edge", func(http.Header) {}, -Tolerance, nil},
		{"old", func(http.Header) {}, Tolerance + time.Second, ErrStale},
		{"from the future", func(http.Header) {}, -Tolerance - time.Second, ErrStale},
		{"no id", func(h http.Header) { h.Del(HeaderID) }, 0, ErrNoSignature},
		{"no timestamp", func(h http.Header) { h.Del(HeaderTimestamp) }, 0, ErrNoSignature},
		{"no signature", func(h http.Header) { h.Del(HeaderSignature) }, 0, ErrNoSignature},
		{"id twice", func(h http.Header) { h.Add(HeaderID, "msg_2") }, 0, ErrNoSignature},
		{"NaN", func(h http.Header) { h.Set(HeaderTimestamp, "NaN") }, 0, ErrNoSignature},
		{"plus", func(h http.Header) { h.Set(HeaderTimestamp, "+"+stamp(0)) }, 0, ErrNoSignature},
		{"endless number", func(h http.Header) { h.Set(HeaderTimestamp, strings.Repeat("9", 30)) }, 0, ErrNoSignature},
		{"other timestamp", func(h http.Header) { h.Set(HeaderTimestamp, stamp(time.Second)) }, 0, ErrBadSignature},
		{"other id", func(h http.Header) { h.Set(HeaderID, "msg_2") }, 0, ErrBadSignature},
		{"moved full stop", func(h http.Header) { h.Set(HeaderID, "msg_1."+stamp(0)) }, 0, ErrBadSignature},
		{"other version", func(h http.Header) { h.Set(HeaderSignature, strings.Replace(good, "v1,", "v1a,", 1)) }, 0, ErrBadSignature},
		{"no version", func(h http.Header) { h.Set(HeaderSignature, good[3:]) }, 0, ErrBadSignature},
		{"empty signature", func(h http.Header) { h.Set(HeaderSignature, "v1,") }, 0, ErrBadSignature},
		{"not base64", func(h http.Header) { h.Set(HeaderSignature, "v1,!!!!") }, 0, ErrBadSignature},
		{"short signature", func(h http.Header) { h.Set(HeaderSignature, "v1,AAAA") }, 0, ErrBadSignature},
		{"second of two", func(h http.Header) { h.Set(HeaderSignature, "v1,AAAA "+good) }, 0, nil},
		{"tenth", func(h http.Header) { h.Set(HeaderSignature, strings.Repeat("v1,AAAA ", 9)+good) }, 0, nil},
		{"eleventh", func(h http.Header) { h.Set(HeaderSignature, strings.Repeat("v1,AAAA ", 10)+good) }, 0, ErrNoSignature},
		{"huge header", func(h http.Header) { h.Set(HeaderSignature, good+" "+strings.Repeat("a", 5000)) }, 0, ErrNoSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := signed(t, testSecret)
			c.edit(h)
			require.ErrorIs(t, Verify(h, []byte(testBody), testNow.Add(c.now), testSecret), c.want)
		})
	}
}

func TestRotation(t *testing.T) {
	h := signed(t, testSecret)
	require.NoError(t, Verify(h, []byte(testBody), testNow, otherSecret, testSecret))
	require.ErrorIs(t, Verify(h, []byte(testBody), testNow, otherSecret), ErrBadSignature)
	h.Set(HeaderSignature, signed(t, otherSecret).Get(HeaderSignature)+" "+h.Get(HeaderSignature))
	require.NoError(t, Verify(h, []byte(testBody), testNow, testSecret))
	require.NoError(t, Verify(h, []byte(testBody), testNow, otherSecret))
}

func TestBadSecretsAreNotSkipped(t *testing.T) {
	h := signed(t, testSecret)
	for _, s := range []string{"", "whsec_", "whsec_AAAA", "whsec_!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + strings.Repeat("A", 200)} {
		require.ErrorIs(t, Verify(h, []byte(testBody), testNow, s), ErrSecret, "%q", s)
		_, err := Sign(s, "x", testNow, nil)
		require.ErrorIs(t, err, ErrSecret)
		if s != "" {
			require.NotContains(t, err.Error(), s+"!")
		}
	}
	require.ErrorIs(t, Verify(h, []byte(testBody), testNow), ErrSecret)
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	h := signed(t, testSecret)
	for i := range len(testBody) * 8 {
		b := []byte(testBody)
		b[i/8] ^= 1 << (i % 8)
		require.ErrorIs(t, Verify(h, b, testNow, testSecret), ErrBadSignature)
	}
}

type memory map[string]bool

func (m memory) Seen(_ context.Context, id string) (bool, error) { return m[id], nil }
func (m memory) Done(_ context.Context, id string) error         { m[id] = true; return nil }

func TestHandler(t *testing.T) {
	fail, calls := false, 0
	h := Handler([]string{otherSecret, testSecret}, func(_ context.Context, e Event) error {
		calls++
		require.Equal(t, Event{ID: "msg_1", Attempted: testNow, Type: "message.delivered", Timestamp: testNow, Data: []byte(`{"id":"msg_1"}`)}, e)
		if fail {
			return errors.New("database is away: password hunter2")
		}
		return nil
	}, WithClock(func() time.Time { return testNow }), WithStore(memory{}))
	post := func(method string, body io.Reader, head http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/hooks", body)
		r.Header = head
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	good := func() io.Reader { return strings.NewReader(testBody) }
	fail = true
	w := post("POST", good(), signed(t, testSecret))
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "hunter2")
	fail = false
	require.Equal(t, 204, post("POST", good(), signed(t, testSecret)).Code)
	require.Equal(t, 204, post("POST", good(), signed(t, testSecret)).Code, "a repeated delivery is taken")
	require.Equal(t, 2, calls, "and handled once")
	require.Equal(t, 405, post("GET", nil, signed(t, testSecret)).Code)
	require.Equal(t, 401, post("POST", good(), http.Header{}).Code)
	require.Equal(t, 401, post("POST", strings.NewReader(testBody+" "), signed(t, testSecret)).Code)
	require.Equal(t, 413, post("POST", io.LimitReader(zeros{}, 10<<30), signed(t, testSecret)).Code)
	for _, body := range []string{"", "[]", "null", "{}", `{"type":""}`, `{"type":1}`, "{"} {
		head, err := Sign(testSecret, "msg_1", testNow, []byte(body))
		require.NoError(t, err)
		require.Equal(t, 400, post("POST", strings.NewReader(body), head).Code, body)
	}
	require.Equal(t, 2, calls)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUnwrapUsesTheWallClock(t *testing.T) {
	head, err := Sign(testSecret, "msg_1", time.Now(), []byte(testBody))
	require.NoError(t, err)
	r := httptest.NewRequest("POST", "/", strings.NewReader(testBody))
	r.Header = head
	e, err := Unwrap(r, testSecret)
	require.NoError(t, err)
	require.Equal(t, "msg_1", e.ID)
	r = httptest.NewRequest("POST", "/", strings.NewReader(testBody))
	r.Header = signed(t, testSecret)
	_, err = Unwrap(r, testSecret)
	require.Error(t, err)
}

func FuzzVerify(f *testing.F) {
	h := signed(f, testSecret)
	f.Add("msg_1", h.Get(HeaderTimestamp), h.Get(HeaderSignature), []byte(testBody))
	f.Add("", "NaN", "v1,", []byte("{}"))
	f.Add("a.b", "1", "v1,AAAA v1a,B", []byte(nil))
	f.Fuzz(func(t *testing.T, id, stamp, sig string, body []byte) {
		head := http.Header{HeaderID: {id}, HeaderTimestamp: {stamp}, HeaderSignature: {sig}}
		err := Verify(head, body, testNow, testSecret)
		if err == nil && (id != "msg_1" || !bytes.Equal(body, []byte(testBody))) {
			t.Fatal("a forged delivery was taken")
		}
		_, _ = parse(head, body)
	})
}

func BenchmarkVerify(b *testing.B) {
	h := signed(b, testSecret)
	body := []byte(testBody)
	b.ReportAllocs()
	for b.Loop() {
		if Verify(h, body, testNow, testSecret) != nil {
			b.Fatal()
		}
	}
}
