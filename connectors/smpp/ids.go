package smpp

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Some SMSCs write an id in hexadecimal in submit_sm_resp and in decimal in the receipt, or the other way round, pad it
// with zeros in one place or change its case. Everything outside the connector sees the id of the answer in one form.

const (
	votesNeeded = 3    // receipts that agree before the writing counts as learned
	recentIDs   = 1024 // answered ids that are kept to compare with until then
)

// idForm is how receipts write an id, against the answer.
type idForm int32

const (
	formUnknown idForm = iota // learning
	formSame
	formDec // receipts write in decimal what the answer writes in hexadecimal
	formHex
)

// ids brings ids into one form. It is safe for concurrent use.
type ids struct {
	form atomic.Int32

	mu     sync.Mutex
	recent map[string]struct{}
	ring   []string
	next   int
	vote   idForm
	votes  int
}

func newIDs(setting string) *ids {
	x := &ids{recent: map[string]struct{}{}}
	switch setting {
	case "dec":
		x.form.Store(int32(formDec))
	case "hex":
		x.form.Store(int32(formHex))
	}
	return x
}

// answered returns the id of a submit_sm_resp in the one form.
func (x *ids) answered(id string) string {
	id = canonical(id)
	if idForm(x.form.Load()) != formUnknown {
		return id
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.ring) < recentIDs {
		x.ring = append(x.ring, id)
	} else {
		delete(x.recent, x.ring[x.next])
		x.ring[x.next] = id
		x.next = (x.next + 1) % recentIDs
	}
	x.recent[id] = struct{}{}
	return id
}

// receipted returns the id of a receipt in the one form. While the form is not known it is found by looking among the
// ids answered lately; three receipts in a row that can be read in one way only settle it.
func (x *ids) receipted(id string) string {
	id = canonical(id)
	form := idForm(x.form.Load())
	if form != formUnknown {
		return form.read(id)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	found := formUnknown
	for _, f := range [...]idForm{formSame, formDec, formHex} {
		if _, ok := x.recent[f.read(id)]; !ok || f != formSame && f.read(id) == id {
			continue
		}
		if found != formUnknown { // two readings fit: this receipt proves nothing
			return id
		}
		found = f
	}
	if found == formUnknown {
		return id
	}
	if found != x.vote {
		x.vote, x.votes = found, 0
	}
	if x.votes++; x.votes == votesNeeded {
		x.form.Store(int32(found))
		x.recent, x.ring = map[string]struct{}{}, nil
	}
	return found.read(id)
}

func (f idForm) read(id string) string {
	switch f {
	case formDec:
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			return strconv.FormatUint(n, 16)
		}
	case formHex:
		if n, err := strconv.ParseUint(id, 16, 64); err == nil {
			return strconv.FormatUint(n, 10)
		}
	}
	return id
}

// canonical drops leading zeros and case from an id that is a number, in decimal or hexadecimal; other ids stay,
// because in them case may tell two apart.
func canonical(id string) string {
	if id == "" {
		return id
	}
	for i := range len(id) {
		if c := id[i] | 0x20; (id[i] < '0' || id[i] > '9') && (c < 'a' || c > 'f') {
			return id
		}
	}
	id = strings.TrimLeft(strings.ToLower(id), "0")
	if id == "" {
		return "0"
	}
	return id
}
