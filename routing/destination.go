package routing

import (
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// A destination is where many addresses share a fate: a country's numbers, a mail domain, a webhook's host. When an
// account's attempts to one of them mostly fail, the account is avoided for that destination while another one can take
// the message. Such a judgement holds for a while (dwell); then one message tries, and its end decides.
const (
	maxDestinations = 1024 // remembered per account; the one that was not heard of for longest makes way
	fewestTo        = 10   // attempts to a destination before it is judged
	firstDwell      = 15 * time.Second
	longDwell       = 5 * time.Minute
	maxName         = 253 // the longest host name (RFC 1035 §2.3.4, without the trailing dot); longer ones are not kept
)

// destination is what an account knows about one destination.
type destination struct {
	name    string
	recent  window // since its first failure
	avoided bool
	until   time.Time // with avoided: when a message may try
	dwell   time.Duration
	endedAt time.Time // when it was last avoided: the dwell is remembered for steady
	probing bool
	lostAt  time.Time // with probing: when another message may try

	newer, older *destination
}

// destinations remembers those that had a failure lately; a destination that is not there is well.
type destinations struct {
	byName map[string]*destination
	newest *destination
	oldest *destination
}

// find returns what is known about the destination of an address; nil = nothing bad.
func (ds *destinations) find(ch delivery.Channel, to string) *destination {
	if len(ds.byName) == 0 {
		return nil
	}
	return ds.byName[destinationOf(ch, to)]
}

// observe counts an attempt to an address.
func (ds *destinations) observe(ch delivery.Channel, to string, bad bool, now time.Time) {
	d := ds.find(ch, to)
	if d == nil {
		if !bad {
			return // nothing is kept about what works
		}
		name := destinationOf(ch, to)
		if name == "" || len(name) > maxName {
			return
		}
		d = ds.add(strings.Clone(name))
	}
	ds.unlink(d)
	ds.link(d)
	switch {
	case d.avoided && !over(d.until, now, longDwell):
		// It goes on being used where there is no other way. What comes of that says nothing before its time is over.
	case d.avoided && bad:
		d.avoid(now)
	case d.avoided:
		d.avoided, d.probing, d.endedAt, d.recent = false, false, now, window{}
	default:
		d.recent.add(bad, now)
		failed, all := d.recent.sum()
		switch {
		case mostFail(failed, all, fewestTo):
			d.avoid(now)
		case failed == 0 && !now.Before(d.endedAt.Add(steady)):
			ds.unlink(d)
			delete(ds.byName, d.name)
		}
	}
}

// avoid makes the choice go round the destination until its dwell is over.
func (d *destination) avoid(now time.Time) {
	if !d.avoided && !now.Before(d.endedAt.Add(steady)) {
		d.dwell = 0
	}
	d.dwell = nextRest(d.dwell, firstDwell, longDwell)
	d.avoided, d.probing, d.until = true, false, now.Add(d.dwell)
}

// open reports whether a message may choose the account for this destination although there are others: it is well, or
// the message may try whether it is.
func (d *destination) open(now time.Time) bool {
	return d == nil || !d.avoided || over(d.until, now, longDwell) && (!d.probing || !now.Before(d.lostAt))
}

// probe lets a message try.
func (d *destination) probe(now time.Time, lost time.Duration) {
	if d != nil && d.avoided && over(d.until, now, longDwell) {
		d.probing, d.lostAt = true, now.Add(lost)
	}
}

func (ds *destinations) add(name string) *destination {
	if ds.byName == nil {
		ds.byName = map[string]*destination{}
	}
	if len(ds.byName) >= maxDestinations {
		old := ds.oldest
		ds.unlink(old)
		delete(ds.byName, old.name)
	}
	d := &destination{name: name}
	ds.byName[name] = d
	ds.link(d)
	return d
}

func (ds *destinations) link(d *destination) {
	d.older, d.newer = ds.newest, nil
	if ds.newest != nil {
		ds.newest.newer = d
	} else {
		ds.oldest = d
	}
	ds.newest = d
}

func (ds *destinations) unlink(d *destination) {
	if d.newer != nil {
		d.newer.older = d.older
	} else {
		ds.newest = d.older
	}
	if d.older != nil {
		d.older.newer = d.newer
	} else {
		ds.oldest = d.newer
	}
}

// destinationOf is the destination of an address: a phone number's calling code with its plus, a mailbox's domain, a
// URL's host without its port. An address that is none gives "".
func destinationOf(ch delivery.Channel, to string) string {
	switch ch {
	case delivery.SMS, delivery.WhatsApp:
		return callingCode(to)
	case delivery.Email:
		return domain(to)
	case delivery.Webhook:
		return host(to)
	}
	return ""
}

func domain(mailbox string) string {
	return strings.ToLower(mailbox[strings.LastIndexByte(mailbox, '@')+1:])
}

// host is the host of a URL that recipient has normalised: without user information, an IPv6 address in brackets.
func host(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	if i := strings.IndexAny(url, "/?#"); i >= 0 {
		url = url[:i]
	}
	if i := strings.LastIndexByte(url, ':'); i > strings.LastIndexByte(url, ']') {
		url = url[:i]
	}
	return strings.ToLower(url)
}

// callingCode is the country calling code of an E.164 number with its plus, such as +1, +91 or +353. Codes are prefix
// free: 1 and 7 are whole, the two-digit ones are listed, every other begins a code of three digits (ITU-T E.164,
// list of assigned country codes, annex to Operational Bulletin 1114).
func callingCode(number string) string {
	n := 4
	if len(number) < 2 || number[0] != '+' {
		return ""
	}
	switch number[1] {
	case '1', '7':
		n = 2
	default:
		if len(number) > 2 && twoDigits(number[1], number[2]) {
			n = 3
		}
	}
	return number[:min(n, len(number))]
}

// twoDigits reports whether the digits are a whole calling code.
func twoDigits(first, second byte) bool {
	switch first {
	case '2':
		return second == '0' || second == '7'
	case '3':
		return second != '5' && second != '7' && second != '8'
	case '4':
		return second != '2'
	case '5':
		return second >= '1' && second <= '8'
	case '6':
		return second <= '6'
	case '8':
		return second == '1' || second == '2' || second == '4' || second == '6'
	case '9':
		return second <= '5' || second == '8'
	}
	return false
}
