package sms

import "unicode/utf8"

// Segment is one part of a text: what one SMS carries of it.
type Segment struct {
	Text  string // a piece of the text that was split; it shares its memory
	Units int    // septets (GSM7) or UTF-16 units (UCS2)
}

// Forced is a character that the GSM alphabet does not have.
type Forced struct {
	Rune   rune
	Offset int // in runes from the start of the text
}

// maxForced bounds Plan.Forced: enough to show a person what to change.
const maxForced = 20

// Plan is how a text travels.
type Plan struct {
	Encoding Encoding
	Segments []Segment // at least one: an empty text is one empty message
	Units    int       // septets or UTF-16 units of the whole text
	Forced   []Forced  // with UCS2: the first 20 characters that forced it
}

// Split divides text into segments. The texts of the segments joined are the text, always. A character that needs two
// septets or two UTF-16 units is never cut in half; a cluster of several characters that looks like one may be. A byte
// that is not UTF-8 counts as U+FFFD and so forces UCS2.
func Split(text string) Plan {
	n, enc := Count(text)
	p := Plan{Encoding: enc, Segments: make([]Segment, 0, n)}
	_, part := enc.Limits()
	if n == 1 {
		part, _ = enc.Limits()
	}
	start, fill, offset := 0, 0, 0
	for i, r := range text {
		_, cost := septets(r)
		if enc == UCS2 {
			if cost == 0 && len(p.Forced) < maxForced {
				p.Forced = append(p.Forced, Forced{Rune: r, Offset: offset})
			}
			cost = units(r)
		}
		if fill+cost > part {
			p.Segments = append(p.Segments, Segment{Text: text[start:i], Units: fill})
			start, fill = i, 0
		}
		fill += cost
		p.Units += cost
		offset++
	}
	p.Segments = append(p.Segments, Segment{Text: text[start:], Units: fill})
	return p
}

// Count returns how many segments Split would make of text, and in which encoding. It does not allocate.
func Count(text string) (segments int, enc Encoding) {
	gsm := counter{part: 153}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(text[i:])
			_, cost := septets(r)
			if cost == 0 {
				return countUCS2(text), UCS2
			}
			gsm.add(cost)
			i += size - 1
			continue
		}
		cost := int(ascii[c].cost)
		if cost == 0 {
			return countUCS2(text), UCS2
		}
		gsm.add(cost)
	}
	return gsm.segments(160), GSM7
}

func countUCS2(text string) int {
	c := counter{part: 67}
	for _, r := range text {
		c.add(units(r))
	}
	return c.segments(70)
}

// counter fills parts one after the other, as Split does.
type counter struct {
	part       int // what one part of many holds
	total      int
	full, fill int
}

func (c *counter) add(cost int) {
	c.total += cost
	if c.fill+cost > c.part {
		c.full++
		c.fill = 0
	}
	c.fill += cost
}

func (c *counter) segments(alone int) int {
	if c.total <= alone {
		return 1
	}
	return c.full + 1
}
