package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	callbackBatch = 100     // statuses in one POST, as Meta bundles them under load
	callbackQueue = 500_000 // waiting statuses; beyond it the oldest are lost, as they are at Meta after some days
)

// metaStatus is one entry of "statuses" (Cloud API, "Status messages webhook reference", read October 2026).
type metaStatus struct {
	ID        string            `json:"id"`
	Status    string            `json:"status"`
	Timestamp string            `json:"timestamp"`
	Recipient string            `json:"recipient_id"`
	Opaque    string            `json:"biz_opaque_callback_data,omitempty"`
	Errors    []metaStatusError `json:"errors,omitempty"`
}

type metaStatusError struct {
	Code    int               `json:"code"`
	Title   string            `json:"title"`
	Message string            `json:"message"`
	Data    map[string]string `json:"error_data"`
}

// metaInbound is one entry of "messages".
type metaInbound struct {
	From      string   `json:"from"`
	ID        string   `json:"id"`
	Timestamp string   `json:"timestamp"`
	Type      string   `json:"type"`
	Text      metaText `json:"text"`
}

// item is one thing to report about one phone number id.
type item struct {
	account string
	at      time.Time
	status  *metaStatus
	message *metaInbound
}

// callbacks posts items to the callback URL, in order, bundled, signed, until each was answered with 2xx.
type callbacks struct {
	sim    *Sim
	client *http.Client
	ctx    context.Context
	stop   context.CancelFunc
	wake   chan struct{} // capacity 1

	mu    sync.Mutex
	url   string
	queue []item
	lost  int
	done  bool
}

func newCallbacks(s *Sim) *callbacks {
	c := &callbacks{sim: s, url: s.opt.WhatsAppCallback, wake: make(chan struct{}, 1)}
	c.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	s.wg.Go(c.run)
	return c
}

func (c *callbacks) close() {
	c.mu.Lock()
	c.done = true
	c.mu.Unlock()
	c.stop()
}

func (c *callbacks) set(url string) {
	c.mu.Lock()
	c.url = url
	c.mu.Unlock()
	c.signal()
}

func (c *callbacks) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// add queues items; false when nobody listens.
func (c *callbacks) add(items ...item) bool {
	now := c.sim.clock.Now()
	for i := range items {
		items[i].at = now
	}
	c.mu.Lock()
	if c.done || c.url == "" {
		c.mu.Unlock()
		return false
	}
	if len(c.queue) >= callbackQueue {
		half := len(c.queue) / 2
		c.lost += half
		c.queue = append(c.queue[:0], c.queue[half:]...)
		c.sim.log.Warn("whatsapp callbacks lost: nobody takes them", "lost", c.lost)
	}
	c.queue = append(c.queue, items...)
	c.mu.Unlock()
	c.signal()
	return true
}

// take removes the next bundle.
func (c *callbacks) take() (url string, bundle []item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), callbackBatch)
	if n == 0 {
		return "", nil
	}
	bundle = append(bundle, c.queue[:n]...)
	c.queue = c.queue[n:]
	if len(c.queue) == 0 {
		c.queue = nil // lets the array go
	}
	return c.url, bundle
}

func (c *callbacks) run() {
	defer c.client.CloseIdleConnections()
	for {
		url, bundle := c.take()
		if bundle == nil {
			select {
			case <-c.wake:
				continue
			case <-c.ctx.Done():
				return
			}
		}
		body, err := json.Marshal(envelope(bundle))
		if err != nil {
			c.sim.log.Error("whatsapp callback not made", "error", err)
			continue
		}
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			err := c.post(url, body)
			if err == nil {
				break
			}
			c.sim.log.Debug("whatsapp callback not taken", "error", err)
			if !c.sim.wait(c.ctx, wait) {
				return
			}
			c.mu.Lock()
			url = c.url // it may have been set right meanwhile
			c.mu.Unlock()
		}
	}
}

func (c *callbacks) post(url string, body []byte) error {
	req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "facebookexternalua")
	if secret := c.sim.opt.WhatsAppSecret; secret != "" {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxRequest))
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("answered %d", resp.StatusCode)
	}
	return nil
}

type metaValue struct {
	Product  string            `json:"messaging_product"`
	Metadata map[string]string `json:"metadata"`
	Contacts []metaContact     `json:"contacts,omitempty"`
	Statuses []*metaStatus     `json:"statuses,omitempty"`
	Messages []*metaInbound    `json:"messages,omitempty"`
}

type metaContact struct {
	Profile map[string]string `json:"profile"`
	WaID    string            `json:"wa_id"`
}

type metaChange struct {
	Value *metaValue `json:"value"`
	Field string     `json:"field"`
}

// envelope bundles items in order: neighbours of the same number and sort share a change.
func envelope(bundle []item) any {
	var changes []metaChange
	var last item
	for i, it := range bundle {
		if i == 0 || it.account != last.account || (it.message != nil) != (last.message != nil) {
			changes = append(changes, metaChange{Field: "messages", Value: &metaValue{
				Product:  "whatsapp",
				Metadata: map[string]string{"display_phone_number": displayNumber(it.account), "phone_number_id": it.account},
			}})
		}
		v, stamp := changes[len(changes)-1].Value, strconv.FormatInt(it.at.Unix(), 10)
		if it.message != nil {
			it.message.Timestamp = stamp
			v.Messages = append(v.Messages, it.message)
			v.Contacts = append(v.Contacts, metaContact{Profile: map[string]string{"name": "Somebody"}, WaID: it.message.From})
		} else {
			it.status.Timestamp = stamp
			v.Statuses = append(v.Statuses, it.status)
		}
		last = it
	}
	return map[string]any{
		"object": "whatsapp_business_account",
		"entry":  []map[string]any{{"id": "100000000000001", "changes": changes}},
	}
}
