package redis

import "time"

// crew is who there is, and who knows of it: what package cluster promises, at its worst.
type crew struct {
	in       []bool   // gives signs of life
	dead     []bool   // has no process
	counts   [][]bool // i counts j
	agreed   []bool
	rumours  []rumour
	changing bool
	late     func() time.Duration // how long after a change somebody reads of it, less than beats
}

// rumour is a change of the roster that a node reads at a time.
type rumour struct {
	at     time.Time
	reader int
	about  int
}

func newCrew(n int) crew {
	c := crew{in: make([]bool, n), dead: make([]bool, n), agreed: make([]bool, n)}
	for i := range n {
		c.in[i], c.agreed[i] = true, true
		c.counts = append(c.counts, make([]bool, n))
		for j := range n {
			c.counts[i][j] = true
		}
	}
	return c
}

// beats is the longest time between two looks of a node at the roster.
const beats = time.Second

// settled is the pace's: two nodes never disagree for longer.
func (c *crew) settled() time.Duration {
	if c.changing {
		return 2 * beats
	}
	return 0
}

func (c *crew) members(i int) (names []string, agreed bool) {
	if !c.in[i] {
		return nil, false
	}
	for j, counted := range c.counts[i] {
		if counted {
			names = append(names, nodeName(j))
		}
	}
	return names, c.agreed[i]
}

// goes takes a node out: its own sign of life is over before the others find it so.
func (c *crew) goes(now time.Time, i int, killed bool) {
	c.in[i], c.agreed[i], c.dead[i] = false, false, killed
	c.spread(now, i)
}

// comes lets a node give signs of life. It counts all others that do.
func (c *crew) comes(now time.Time, i int) {
	c.in[i], c.dead[i] = true, false
	copy(c.counts[i], c.in)
	c.spread(now, i)
}

// spread lets each of the others read something, at the latest a beat later.
func (c *crew) spread(now time.Time, i int) {
	for j := range c.in {
		if j != i {
			c.rumours = append(c.rumours, rumour{now.Add(c.late()), j, i})
		}
	}
}

// hear lets everybody read what has come to them, and agree when all have.
func (c *crew) hear(now time.Time) {
	if !c.changing {
		return
	}
	rest := c.rumours[:0]
	for _, r := range c.rumours {
		switch {
		case r.at.After(now):
			rest = append(rest, r)
		case c.in[r.reader]:
			c.counts[r.reader][r.about] = c.in[r.about]
		}
	}
	c.rumours = rest
	for i := range c.in {
		known := c.in[i]
		for j := range c.in {
			known = known && (!c.in[j] || c.counts[j][i])
		}
		c.agreed[i] = c.agreed[i] || known
	}
}
