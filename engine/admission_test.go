package engine_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
)

// disk is a file system of 10 GB whose free space a test sets.
type disk struct {
	free atomic.Uint64
	err  error
}

func (d *disk) space(string) (free, total uint64, err error) { return d.free.Load(), 10e9, d.err }

// guarded starts an engine on a disk, with a clock that the test turns.
func guarded(t *testing.T, d *disk, minFree string) (*engine.Engine, *clockwork.FakeClock, *sdk.Client) {
	clock := clockwork.NewFakeClockAt(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	cfg := engine.Config{Dir: t.TempDir(), Clock: clock, Admission: engine.AdmissionConfig{MinFree: minFree}}
	e, err := engine.New(cfg, kind())
	require.NoError(t, err)
	e.SetSpace(d.space)
	require.NoError(t, e.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	c, err := e.Client("acme")
	require.NoError(t, err)
	return e, clock, c
}

func once(t *testing.T, c *sdk.Client) error {
	ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond) // less than any Retry-After: it is not repeated
	defer cancel()
	_, err := c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"})
	return err
}

func TestAnAlmostFullDisk(t *testing.T) {
	d := &disk{}
	d.free.Store(499e6)
	_, clock, c := guarded(t, d, "")
	var low *sdk.Error
	require.ErrorAs(t, once(t, c), &low)
	require.Equal(t, "storage_low", low.Code)
	require.Equal(t, 503, low.Status)
	require.Contains(t, low.Detail, "499.0 MB free, 500.0 MB needed", "5 % of 10 GB")
	require.Positive(t, low.RetryAfter)
	h, err := c.Health(t.Context())
	require.NoError(t, err)
	require.False(t, h.OK)
	require.Equal(t, "499.0 MB free, 500.0 MB needed", h.Parts["disk"])
	_, err = c.Audit.Verify(t.Context())
	require.NoError(t, err, "what is there can be read")

	d.free.Store(500e6)
	for range 5 { // it resumes by itself within five seconds
		clock.Advance(time.Second)
	}
	require.Eventually(t, func() bool { return once(t, c) == nil }, time.Minute, time.Millisecond)
	h, err = c.Health(t.Context())
	require.NoError(t, err)
	require.Equal(t, "ok", h.Parts["disk"])

	d.free.Store(0) // and it fills up again
	require.Eventually(t, func() bool {
		clock.Advance(time.Second)
		return once(t, c) != nil
	}, time.Minute, time.Millisecond)
	require.ErrorAs(t, once(t, c), &low)
	require.Equal(t, "storage_low", low.Code)
}

func TestADiskThatCannotBeAsked(t *testing.T) {
	_, _, c := guarded(t, &disk{err: errors.New("no answer")}, "")
	require.NoError(t, once(t, c), "the store itself says when nothing can be written")
}

func TestNoFloor(t *testing.T) {
	_, _, c := guarded(t, &disk{}, "0")
	require.NoError(t, once(t, c))
}

func TestAdmissionConfig(t *testing.T) {
	for want, a := range map[string]engine.AdmissionConfig{
		"admission.min_free":        {MinFree: "half"},
		"use a percentage":          {MinFree: "100%"},
		"admission.max_bodies":      {MaxBodies: "lots"},
		"16MiB":                     {MaxBodies: "1MiB"},
		"admission.max_requests":    {MaxRequests: -1},
		"admission.max_connections": {MaxConnections: -1},
		"admission.target_delay":    {TargetDelay: -time.Second},
	} {
		_, err := engine.New(engine.Config{Dir: t.TempDir(), Admission: a}, kind())
		require.ErrorContains(t, err, want)
	}
	good := engine.AdmissionConfig{MinFree: "1%", MaxBodies: "32MiB", MaxRequests: 10, TargetDelay: 1}
	c := engine.Config{Dir: "x", Admission: good}
	require.NoError(t, c.Check())
}

func TestATenantsAcceptRate(t *testing.T) {
	e, clock, c := guarded(t, &disk{}, "0")
	operator, err := e.Client("")
	require.NoError(t, err)
	require.NoError(t, once(t, c))
	_, err = operator.Tenants.Set(t.Context(), "acme", sdk.TenantRequest{Name: "acme", AcceptRate: 1})
	require.NoError(t, err)
	require.NoError(t, once(t, c), "the change holds at once, and lets one through")
	var limited *sdk.Error
	require.ErrorAs(t, once(t, c), &limited)
	require.Equal(t, "tenant_rate_limited", limited.Code)
	require.Equal(t, 429, limited.Status)
	require.ErrorIs(t, limited, sdk.ErrRateLimited)
	clock.Advance(time.Second)
	require.NoError(t, once(t, c))
}

func TestAdmissionMetrics(t *testing.T) {
	d := &disk{}
	e, _, c := guarded(t, d, "1GB")
	require.Error(t, once(t, c))
	resp, err := (&http.Client{Transport: engine.InProcess(e.Handler())}).Get("http://engine.invalid/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(b), `msgctl_admission_refused_total{class="accepts",reason="storage"} 1`)
	require.Contains(t, string(b), "\nmsgctl_store_write_delay_seconds 0\n")
}

func TestMoreConnectionsThanAllowed(t *testing.T) {
	cfg := engine.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Admission: engine.AdmissionConfig{MaxConnections: 2}}
	e, err := engine.New(cfg, kind())
	require.NoError(t, err)
	require.NoError(t, e.Start(t.Context()))
	for range 10 { // each keeps its connection, and makes room for the next once it is idle
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		require.Eventually(t, func() bool {
			resp, err := (&http.Client{Transport: tr}).Get("http://" + e.Addr() + "/healthz")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp.StatusCode == 200
		}, time.Minute, time.Millisecond)
	}
	require.NoError(t, e.Close())
}
