package memory

import (
	"math"
	"math/bits"
	"time"
)

// units counts cost in steps of 2^-32. Floating point would round both ways and let a bound be passed after many steps;
// with integers every rounding is against the sender, and loses less than 2^-32 of cost per grant.
type units int64

const (
	oneUnit  = 1 << 32
	maxUnits = 1e9 // cost, rate and burst above this count as this: it still leaves room to add two of them
)

func ceilUnits(cost float64) units   { return units(math.Ceil(min(cost, maxUnits) * oneUnit)) }
func floorUnits(burst float64) units { return units(min(burst, maxUnits) * oneUnit) }

// rateUnits is at least one step per second (one message in 136 years), so that no debt stays for ever.
func rateUnits(perSecond float64) units { return max(1, floorUnits(perSecond)) }

// paidIn is what a rate pays off in a number of nanoseconds, rounded down.
func paidIn(ns int64, rate units) units {
	hi, lo := bits.Mul64(uint64(ns), uint64(rate))
	if hi >= uint64(time.Second) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(time.Second))
	return units(min(q, math.MaxInt64))
}

// century is the longest time that counts: sums of two of them still fit into a Duration.
const century = 100 * 365 * 24 * time.Hour

// timeToPay is the shortest time in which paidIn gives at least debt, at most a century.
func timeToPay(debt, rate units) time.Duration {
	hi, lo := bits.Mul64(uint64(debt), uint64(time.Second))
	if hi >= uint64(rate) {
		return century
	}
	q, rest := bits.Div64(hi, lo, uint64(rate))
	if rest > 0 {
		q++
	}
	return time.Duration(min(q, uint64(century)))
}
