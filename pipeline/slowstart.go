package pipeline

import "github.com/msgctl/msgctl/delivery"

// crowd bounds how many attempts one account has under way at once, as Postfix does for a destination
// (SCHEDULER_README, "Concurrency scheduling"): it begins with few, grows while the provider answers, and shrinks when
// it does not keep up. The zero value allows one at a time. Its station's mutex guards it.
//
//  1. A fresh account begins with firstCrowd. Until its first trouble every answer allows one more, which doubles the
//     crowd in the time of one answer: a healthy account is at its full number at once.
//  2. After that, one more is allowed for each full crowd of answers without trouble.
//  3. Trouble halves the crowd: "slow down", an account that cannot work, or a quarter of a crowd without a decisive
//     answer. A single lost answer among many says more about the message than about the account.
//  4. What was under way when the crowd was halved does not halve it again: it met the same trouble.
//  5. After a rest it begins with one, and grows by rule 2: what has waited meanwhile does not come all at once.
//  6. Bulk leaves a quarter of the crowd free, one at least where there are two: what is urgent need not wait until
//     some provider has answered for a newsletter.
type crowd struct {
	most    int  // simultaneous Sends of the account
	size    int  // of them allowed now
	careful bool // there was trouble: grow slowly
	running int
	bulk    int // of running
	stale   int // attempts that are still to end of those that were under way at the last halving
	answers int // since the crowd last changed
	lost    int // of those, without a decisive answer
}

// firstCrowd is what an account begins with. Providers document bounds of 10 and more simultaneous requests.
const firstCrowd = 16

func newCrowd(most int) crowd { return crowd{most: most, size: min(most, firstCrowd)} }

// room reports whether one more attempt of a lane may begin.
func (c *crowd) room(l delivery.Lane) bool {
	if l == delivery.Bulk && c.size > 1 && c.bulk >= c.size-max(1, c.size/4) {
		return false
	}
	return c.running < max(c.size, 1)
}

func (c *crowd) begin(l delivery.Lane) {
	c.running++
	if l == delivery.Bulk {
		c.bulk++
	}
}

// sign is what the end of an attempt says about its account.
type sign int

const (
	noSign   sign = iota // it was not made, or failed for now
	goodSign             // the provider decided about the message
	lostSign             // no decisive answer
	badSign              // the provider, or the account, cannot take as much
)

func signOf(attempted bool, f *delivery.Failure) sign {
	if f == nil {
		if attempted {
			return goodSign
		}
		return noSign
	}
	switch f.Class {
	case delivery.Throttled, delivery.ConnectorDown:
		return badSign
	case delivery.InDoubt:
		return lostSign
	case delivery.Rejected, delivery.BadRecipient, delivery.Consent:
		return goodSign
	}
	return noSign
}

// end books the end of an attempt. It returns true when that halved the crowd.
func (c *crowd) end(l delivery.Lane, s sign) bool {
	c.running--
	if l == delivery.Bulk {
		c.bulk--
	}
	if c.stale > 0 {
		c.stale--
		return false
	}
	switch s {
	case noSign:
		return false
	case badSign:
		c.halve()
		return true
	case lostSign:
		c.lost++
		if 4*c.lost >= c.size {
			c.halve()
			return true
		}
	case goodSign:
		if !c.careful {
			c.size = min(c.size+1, c.most)
		}
	}
	if c.answers++; c.answers >= c.size {
		if c.careful && c.lost == 0 {
			c.size = min(c.size+1, c.most)
		}
		c.answers, c.lost = 0, 0
	}
	return false
}

func (c *crowd) halve() { c.shrink(c.size / 2) }

// restart is for when the account's rest has ended.
func (c *crowd) restart() { c.shrink(1) }

func (c *crowd) shrink(to int) {
	c.size, c.careful, c.stale, c.answers, c.lost = max(1, to), true, c.running, 0, 0
}
