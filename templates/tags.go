package templates

import "strings"

// tagNames is what didYouMean offers.
var tagNames = []string{
	"if", "elsif", "else", "endif", "unless", "endunless", "case", "when", "endcase", "for", "endfor", "break", "continue",
	"assign", "capture", "endcapture", "comment", "endcomment", "raw", "endraw", "increment", "decrement", "cycle", "echo",
}

// tag parses the tag whose name was just read, up to its end tag.
func (p *parser) tag(t token, at int) node {
	switch t.text {
	case "if", "unless":
		return p.ifTag(t, at)
	case "case":
		return p.caseTag(at)
	case "for":
		return p.forTag(at)
	case "break", "continue":
		p.closeTag()
		if p.loops == 0 {
			p.fail(at, CodeSyntax, "%s stands outside of a for", t.text)
		}
		if t.text == "break" {
			return jump(breakLoop)
		}
		return jump(nextItem)
	case "assign":
		name := p.s.name("a name")
		p.s.want("=")
		n := &assignNode{name: name.text, e: p.filtered()}
		p.closeTag()
		p.locals[n.name]++
		return n
	case "capture":
		return p.captureTag(at)
	case "comment", "raw":
		return p.skipTag(t.text, at)
	case "increment", "decrement":
		n := &countNode{name: p.s.name("a name").text, step: 1}
		if t.text == "decrement" {
			n.step = -1
		}
		p.closeTag()
		p.locals[n.name]++
		p.place.value()
		return n
	case "cycle":
		return p.cycleTag(at)
	case "echo":
		return p.outputNode(at)
	case "include", "render", "layout", "section", "extends", "block":
		p.fail(at, CodeForbidden, "a template cannot reach another one: %s is not allowed", t.text)
	case "else", "elsif", "when":
		p.fail(at, CodeSyntax, "%s does not belong here", t.text)
	default:
		if strings.HasPrefix(t.text, "end") && didYouMean(t.text, tagNames) == "" || contains(tagNames, t.text) {
			p.fail(at, CodeSyntax, "%s has nothing to end here", quoted(t.text))
			return nil
		}
		p.fail(at, CodeUnknown, "there is no tag %s%s", quoted(t.text), didYouMean(t.text, tagNames))
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// nested runs parse one level deeper.
func (p *parser) nested(at int, parse func()) {
	if p.deeper(at) {
		parse()
	}
	p.depth--
}

// branches collects where the branches of a tag leave the text, which must be one place.
type branches struct {
	start  tracker
	joined tracker
	any    bool
}

func (p *parser) endBranch(b *branches, at int) {
	if !b.any {
		b.joined, b.any = p.place, true
	} else if !b.joined.join(p.place) && p.err == nil {
		p.fail(at, CodeUnsafe, "the branches of this tag must open and close the same quotes and tags")
	}
	p.place = b.start
}

func (p *parser) ifTag(t token, at int) node {
	n := &ifNode{}
	end := " elsif else end" + t.text + " "
	mark := len(p.uses)
	c := p.condition()
	p.closeTag()
	br := branches{start: p.place}
	hasElse := false
	p.nested(at, func() {
		p.guarded(mark, func() {
			arm := arm{when: c, negate: t.text == "unless"}
			for p.err == nil {
				var stop token
				arm.body, stop = p.block(end, at)
				n.arms = append(n.arms, arm)
				p.endBranch(&br, at)
				if p.err != nil {
					return
				}
				arm.when, arm.negate = nil, false
				switch stop.text {
				case "elsif":
					arm.when = p.condition()
					p.closeTag()
				case "else":
					p.closeTag()
					end, hasElse = " end"+t.text+" ", true
				default:
					p.closeTag()
					if !hasElse {
						p.endBranch(&br, at)
					}
					p.place = br.joined
					return
				}
			}
		})
	})
	return n
}

func (p *parser) caseTag(at int) node {
	mark := len(p.uses)
	n := &caseNode{pos: at, e: p.expression()}
	for i := mark; i < len(p.uses); i++ {
		p.uses[i].optional = true
	}
	p.closeTag()
	br := branches{start: p.place}
	hasElse := false
	p.nested(at, func() {
		p.guarded(mark, func() {
			nodes, stop := p.block(" when else endcase ", at)
			for _, x := range nodes {
				if text, ok := x.(textNode); !ok || strings.TrimSpace(string(text)) != "" {
					p.fail(at, CodeSyntax, "between case and its first when there is only space")
				}
			}
			p.place = br.start
			for p.err == nil {
				var arm whenArm
				switch stop.text {
				case "when":
					for {
						arm.values = append(arm.values, p.expression())
						if !p.s.accept(",") && !p.s.accept("or") {
							break
						}
					}
				case "else":
					hasElse = true
				default:
					p.closeTag()
					if !hasElse {
						p.endBranch(&br, at)
					}
					p.place = br.joined
					return
				}
				p.closeTag()
				arm.body, stop = p.block(" when else endcase ", at)
				n.arms = append(n.arms, arm)
				p.endBranch(&br, at)
			}
		})
	})
	return n
}

func (p *parser) forTag(at int) node {
	n := &forNode{pos: at}
	n.name = p.s.name("the name of the loop's variable").text
	if !p.s.accept("in") {
		p.s.fail(p.s.tok.pos, CodeSyntax, "expected in: for item in list")
	}
	n.pos = p.s.tok.pos
	n.in = p.expression()
	for p.s.failed == nil && p.s.tok.kind != tokEnd {
		opt := p.s.name("limit, offset or reversed")
		switch opt.text {
		case "reversed":
			n.reversed = true
		case "limit", "offset":
			p.s.want(":")
			if p.s.is("continue") {
				p.s.fail(p.s.tok.pos, CodeUnknown, "offset: continue is not supported")
				break
			}
			if opt.text == "limit" {
				n.limit = p.expression()
			} else {
				n.offset = p.expression()
			}
		default:
			p.s.fail(opt.pos, CodeSyntax, "expected limit, offset or reversed, not %s", quoted(opt.text))
		}
		p.s.accept(",")
	}
	p.closeTag()
	br := branches{start: p.place}
	p.nested(at, func() {
		p.locals[n.name]++
		p.loops++
		var stop token
		n.body, stop = p.block(" else endfor ", at)
		p.loops--
		p.locals[n.name]--
		p.endBranch(&br, at)
		if p.err == nil && stop.text == "else" {
			p.closeTag()
			n.orElse, _ = p.block(" endfor ", at)
			p.endBranch(&br, at)
		}
		p.endBranch(&br, at) // a list may be empty, and a body stands after itself
		p.closeTag()
		p.place = br.joined
	})
	return n
}

func (p *parser) captureTag(at int) node {
	n := &captureNode{}
	if p.s.tok.kind == tokText {
		n.name = p.s.tok.text
		p.s.next()
	} else {
		n.name = p.s.name("a name").text
	}
	p.closeTag()
	// What is captured is printed elsewhere: HTML in it is escaped here and once, JSON there.
	outer := p.place
	p.place = tracker{mode: Plain}
	if p.mode == HTML {
		p.place.mode, n.safe = HTML, true
	}
	p.nested(at, func() {
		n.body, _ = p.block(" endcapture ", at)
		p.closeTag()
	})
	p.place = outer
	p.locals[n.name]++
	return n
}

func (p *parser) skipTag(name string, at int) node {
	p.closeTag()
	if p.err != nil {
		return nil
	}
	body, ok := p.skipTo(name, "end"+name, at)
	if !ok || name == "comment" || body == "" {
		return nil
	}
	p.place.feed(body)
	return textNode(body)
}

func (p *parser) cycleTag(at int) node {
	n := &cycleNode{pos: at}
	start := p.s.tok.pos
	first := p.expression()
	if p.s.accept(":") {
		n.group = first
	} else {
		n.values = append(n.values, first)
		if p.s.accept(",") {
			n.values = append(n.values, p.expression())
		}
	}
	for n.group != nil && len(n.values) == 0 || p.s.accept(",") {
		n.values = append(n.values, p.expression())
		if p.s.failed != nil {
			break
		}
	}
	end := p.s.tok.pos
	p.closeTag()
	if p.err != nil {
		return nil
	}
	n.key = p.src[start:end]
	var wrong string
	if n.esc, wrong = p.place.escape(false); wrong != "" {
		p.fail(at, CodeUnsafe, "%s", wrong)
	}
	p.place.value()
	return n
}
