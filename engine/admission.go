package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msgctl/msgctl/admission"
)

const (
	diskEvery = time.Second
	// tellEvery is how often the log says that requests are refused. The metric has every one.
	tellEvery = 10 * time.Second

	defaultConnections = 2048
	// The largest batch must fit into what bulk may hold.
	leastBodies = 16 << 20
)

// check reports the first value that cannot be used.
func (c *AdmissionConfig) check() error {
	switch {
	case c.MaxConnections < 0:
		return fmt.Errorf("configuration: admission.max_connections: %d is negative", c.MaxConnections)
	case c.MaxRequests < 0:
		return fmt.Errorf("configuration: admission.max_requests: %d is negative", c.MaxRequests)
	case c.TargetDelay < 0:
		return fmt.Errorf("configuration: admission.target_delay: %s is negative", c.TargetDelay)
	}
	if _, err := admission.ParseFloor(c.MinFree); err != nil {
		return fmt.Errorf("configuration: admission.min_free: %w", err)
	}
	if c.MaxBodies == "" {
		return nil
	}
	n, err := admission.ParseSize(c.MaxBodies)
	if err != nil {
		return fmt.Errorf("configuration: admission.max_bodies: %w", err)
	}
	if n < leastBodies {
		return fmt.Errorf("configuration: admission.max_bodies: %s is less than 16MiB: the largest batch would never pass",
			c.MaxBodies)
	}
	return nil
}

// door is the engine's side of admission: it lets the gate see the store and the disk, and shows what the gate does.
type door struct {
	gate  *admission.Gate
	floor admission.Floor
	space func(dir string) (free, total uint64, err error)

	mu   sync.Mutex
	told time.Time // when the log said last that requests are refused
	off  bool      // the disk cannot be checked, and the log has said so
}

// openDoor makes the gate. The configuration has been checked.
func (e *Engine) openDoor(reg prometheus.Registerer) {
	c := e.cfg.Admission
	d := &e.door
	d.floor, _ = admission.ParseFloor(c.MinFree)
	bodies, _ := admission.ParseSize(c.MaxBodies) // 0 = the default
	if d.space == nil {
		d.space = admission.Space
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "msgctl_admission_refused_total", Help: "Requests that were not taken on, by importance and reason.",
	}, []string{"class", "reason"})
	o := &admission.Options{
		Requests: c.MaxRequests, Bytes: int64(bodies), Target: c.TargetDelay, Pressure: pressure(e.store),
		Refused: func(class admission.Class, why admission.Reason) {
			refused.WithLabelValues(class.String(), string(why)).Inc()
			e.tellRefused(class, why)
		},
	}
	d.gate = admission.New(o)
	delay := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msgctl_store_write_delay_seconds",
		Help: "How long writes stand in front of the store: the least during the last 100 ms.",
	}, func() float64 { return d.gate.Standing(e.cfg.Clock.Now()).Seconds() })
	reg.MustRegister(refused, delay)
}

// tellRefused lets the log say once in a while that the engine refuses requests for its own sake.
func (e *Engine) tellRefused(class admission.Class, why admission.Reason) {
	if why.Own() {
		return
	}
	d, now := &e.door, e.cfg.Clock.Now()
	d.mu.Lock()
	quiet := !d.told.IsZero() && now.Sub(d.told) < tellEvery
	if !quiet {
		d.told = now
	}
	d.mu.Unlock()
	if !quiet {
		e.log.Warn("requests are refused", "class", class.String(), "reason", string(why),
			"write_delay", d.gate.Standing(now))
	}
}

// watchDisk keeps the gate informed until ctx ends.
func (e *Engine) watchDisk(ctx context.Context) {
	t := e.cfg.Clock.NewTimer(diskEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.Chan():
			e.checkDisk()
			t.Reset(diskEvery)
		}
	}
}

// checkDisk looks at the file system once. Where it cannot tell, everything is taken: the store itself says when
// nothing can be written.
func (e *Engine) checkDisk() {
	d := &e.door
	free, total, err := d.space(e.cfg.Dir)
	if err != nil {
		d.mu.Lock()
		said := d.off
		d.off = true
		d.mu.Unlock()
		if !said {
			e.log.Warn("the free space is not checked", "dir", e.cfg.Dir, "err", err)
		}
		d.gate.Room(nil)
		return
	}
	d.mu.Lock()
	d.off = false
	d.mu.Unlock()
	was, need := d.gate.Low(), d.floor.Need(total)
	if free >= need {
		d.gate.Room(nil)
		if was != nil {
			e.log.Info("there is room on the disk again", "dir", e.cfg.Dir, "free", free, "needed", need)
		}
		return
	}
	d.gate.Room(&admission.Low{Free: free, Need: need})
	if was == nil {
		e.log.Error("the disk is nearly full: nothing is accepted", "dir", e.cfg.Dir, "free", free, "needed", need)
	}
}

// parts says what else must work for the engine to be ready.
func (e *Engine) parts(context.Context) map[string]string {
	state := "ok"
	if low := e.door.gate.Low(); low != nil {
		state = low.String()
	}
	parts := e.pipeline.Health()
	parts["disk"] = state
	if e.member != nil {
		parts["cluster"] = orDefault(e.member.Held(), partOK)
	}
	return parts
}
