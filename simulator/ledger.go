package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Entry is one submission as the simulator saw it.
type Entry struct {
	Seq        int       `json:"seq"`
	At         time.Time `json:"at"`
	Channel    string    `json:"channel"`
	Account    string    `json:"account"`
	To         string    `json:"to"`
	From       string    `json:"from,omitempty"`
	Ref        string    `json:"ref,omitempty"` // our id where the protocol carries one: Message-ID, webhook-id, opaque data
	ProviderID string    `json:"provider_id,omitempty"`
	Taken      bool      `json:"taken"` // the simulator took it for delivery, whether or not it said so
	Outcome    string    `json:"outcome"`
	Subject    string    `json:"subject,omitempty"`
	Text       string    `json:"text,omitempty"`  // at most 1,000 bytes
	Parts      int       `json:"parts,omitempty"` // SMS parts that this entry joins
}

// Ledger is everything a simulator saw, in order. It is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	limit   int
	entries []Entry
	dropped int
}

func newLedger(limit int) *Ledger {
	if limit <= 0 {
		limit = 2_000_000
	}
	return &Ledger{limit: limit}
}

// add records an entry. The servers call it before they answer, so that a lost answer still shows.
func (l *Ledger) add(e Entry) {
	if len(e.Text) > 1000 {
		e.Text = e.Text[:1000]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Seq = l.dropped + len(l.entries) + 1
	if len(l.entries) >= l.limit {
		half := l.limit / 2
		l.dropped += half
		l.entries = append([]Entry(nil), l.entries[half:]...)
	}
	l.entries = append(l.entries, e)
}

// Entries returns a copy of the entries with a sequence above after.
func (l *Ledger) Entries(after int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := max(after-l.dropped, 0)
	if from >= len(l.entries) {
		return nil
	}
	return append([]Entry(nil), l.entries[from:]...)
}

// To returns the entries for one recipient on a channel that were taken.
func (l *Ledger) To(ch delivery.Channel, to string) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Entry
	for _, e := range l.entries {
		if e.To == to && e.Taken && e.Channel == ch.String() {
			out = append(out, e)
		}
	}
	return out
}

// Len returns how many entries there have been.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped + len(l.entries)
}

// Summary counts by channel and outcome, and how many were taken in all.
type Summary struct {
	Seen    int            `json:"seen"`
	Taken   int            `json:"taken"`
	Dropped int            `json:"dropped"`
	Counts  map[string]int `json:"counts"` // "sms delivered": n
}

// Summary counts what was seen.
func (l *Ledger) Summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Summary{Seen: l.dropped + len(l.entries), Dropped: l.dropped, Counts: map[string]int{}}
	for _, e := range l.entries {
		if e.Taken {
			s.Taken++
		}
		s.Counts[e.Channel+" "+e.Outcome]++
	}
	return s
}

// controlRoutes serves the ledger and the controls below /sim.
func (s *Sim) controlRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /sim/ledger", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(w)
		for _, e := range s.ledger.Entries(after) {
			if enc.Encode(e) != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /sim/ledger/summary", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.ledger.Summary())
	})
	mux.HandleFunc("POST /sim/accounts/{account}/fail", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil {
			n = -1
		}
		s.Fail(r.PathValue("account"), n, Fault(r.URL.Query().Get("fault")))
	})
	mux.HandleFunc("POST /sim/accounts/{account}/slow", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.URL.Query().Get("by"))
		if err != nil {
			http.Error(w, fmt.Sprintf("by: %v", err), http.StatusBadRequest)
			return
		}
		s.Slow(r.PathValue("account"), d)
	})
	mux.HandleFunc("POST /sim/accounts/{account}/heal", func(_ http.ResponseWriter, r *http.Request) {
		s.Heal(r.PathValue("account"))
	})
}
