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
	pages   [][]Entry // full but the last: one growing list would be copied now and then, while everybody waits
	n       int       // entries in pages
	dropped int
}

const ledgerPage = 1024

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
	e.Seq = l.dropped + l.n + 1
	for l.n >= l.limit {
		l.dropped += len(l.pages[0])
		l.n -= len(l.pages[0])
		l.pages[0] = nil
		l.pages = l.pages[1:]
	}
	last := len(l.pages) - 1
	if last < 0 || len(l.pages[last]) == cap(l.pages[last]) {
		l.pages = append(l.pages, make([]Entry, 0, min(ledgerPage, max(l.limit/2, 1))))
		last++
	}
	l.pages[last] = append(l.pages[last], e)
	l.n++
}

// Entries returns a copy of the entries with a sequence above after.
func (l *Ledger) Entries(after int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	skip := max(after-l.dropped, 0)
	if skip >= l.n {
		return nil
	}
	out := make([]Entry, 0, l.n-skip)
	for _, page := range l.pages {
		from := min(skip, len(page))
		skip -= from
		out = append(out, page[from:]...)
	}
	return out
}

// To returns the entries for one recipient on a channel that were taken.
func (l *Ledger) To(ch delivery.Channel, to string) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Entry
	for _, page := range l.pages {
		for i := range page {
			if e := &page[i]; e.To == to && e.Taken && e.Channel == ch.String() {
				out = append(out, *e)
			}
		}
	}
	return out
}

// Len returns how many entries there have been.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped + l.n
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
	s := Summary{Seen: l.dropped + l.n, Dropped: l.dropped, Counts: map[string]int{}}
	for _, page := range l.pages {
		for i := range page {
			if page[i].Taken {
				s.Taken++
			}
			s.Counts[page[i].Channel+" "+page[i].Outcome]++
		}
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
