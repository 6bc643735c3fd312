package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// quick is an Accepter that stores nothing: what is left is the API itself.
type quick struct{}

func (quick) Accept(_ context.Context, _ delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	out := store.Accepted{Results: make([]store.AcceptResult, len(a.Messages))}
	for i, m := range a.Messages {
		out.Results[i] = store.AcceptResult{ID: m.ID, Status: delivery.StatusQueued}
	}
	return out, nil
}

func benchRig(b *testing.B, change ...func(*Deps)) *rig {
	return newRig(b, append(change, func(d *Deps) {
		d.Log = slog.New(slog.DiscardHandler)
		d.Now = time.Now
		d.IDs = delivery.NewIDs(time.Now)
	})...)
}

// load sends b.N requests over 50 connections that stay open, client and server in this process.
func (r *rig) load(b *testing.B, path, media string, body func(i int64) string, per int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 50 {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				req, _ := http.NewRequest("POST", r.url+path, strings.NewReader(body(i)))
				req.Header = http.Header{
					"Authorization": {"Bearer " + r.acme}, "Content-Type": {media}, "Idempotency-Key": {fmt.Sprint("k", i)},
				}
				resp, err := r.client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode >= 300 {
					b.Error(resp.Status)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N*per)/b.Elapsed().Seconds(), "msg/s")
}

func line100(i int64) string {
	return fmt.Sprintf(`{"channel":"sms","to":"+1202%07d","text":"Your order %d has left our house and will be with you tomorrow.","client_ref":"order-%d"}`, i%10_000_000, i, i)
}

func lines500(i int64) string {
	var b bytes.Buffer
	for j := range int64(500) {
		b.WriteString(line100(i*500 + j))
		b.WriteByte('\n')
	}
	return b.String()
}

func BenchmarkSingle(b *testing.B) {
	benchRig(b).load(b, "/v1/messages", "application/json", line100, 1)
}

func BenchmarkSingleWithoutStore(b *testing.B) {
	benchRig(b, func(d *Deps) { d.Accept = quick{} }).load(b, "/v1/messages", "application/json", line100, 1)
}

func BenchmarkBatch500(b *testing.B) {
	benchRig(b).load(b, "/v1/messages/batch", batchMedia[0], lines500, 500)
}

func BenchmarkBatch500WithoutStore(b *testing.B) {
	benchRig(b, func(d *Deps) { d.Accept = quick{} }).load(b, "/v1/messages/batch", batchMedia[0], lines500, 500)
}

// BenchmarkCheck is one message from its bytes to what the store gets.
func BenchmarkCheck(b *testing.B) {
	r := benchRig(b)
	k := &checker{a: r.api, ctx: context.Background(), tenant: "acme", now: time.Now()}
	body := []byte(line100(7))
	b.ReportAllocs()
	for b.Loop() {
		var in messageIn
		require.NoError(b, decode(body, &in))
		_, err := k.message(&in)
		require.NoError(b, err)
	}
}
