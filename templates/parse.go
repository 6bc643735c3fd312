package templates

import (
	"sort"
	"strings"
)

// node is a piece of a template that is executed: text, output or a tag.
type node interface{ exec(r *run) flow }

// flow says how execution goes on.
type flow uint8

const (
	goOn      flow = iota
	breakLoop      // {% break %}, and every error
	nextItem       // {% continue %}
)

type parser struct {
	src    string
	mode   Mode
	pos    int
	trim   bool // the text that comes next loses its leading space
	depth  int
	loops  int
	place  tracker
	tokens int
	s      *scanner // of the braces that are read
	err    *Error

	uses   []use
	locals map[string]int // names that the template gives values to; loop variables count how often they are open
	guards map[string]int // names that an open if tests
}

type use struct {
	name     string
	optional bool
}

func newParser(src string, mode Mode) *parser {
	return &parser{src: src, mode: mode, place: tracker{mode: mode}, locals: map[string]int{}, guards: map[string]int{}}
}

// fail keeps the first error.
func (p *parser) fail(pos int, code, format string, args ...any) {
	if p.err == nil {
		p.err = errorAt(p.src, pos, code, format, args...)
	}
}

// deeper bounds recursion: of tags, brackets and ranges together. The caller takes depth back.
func (p *parser) deeper(pos int) bool {
	if p.depth++; p.depth > MaxDepth {
		err := errorAt(p.src, pos, CodeBudget, "nested more than %d deep", MaxDepth)
		if p.err == nil {
			p.err = err
		}
		if p.s != nil && p.s.failed == nil {
			p.s.fail(pos, CodeBudget, "nested more than %d deep", MaxDepth)
		}
		return false
	}
	return true
}

// use notes that the template reads a name.
func (p *parser) use(name string) {
	if p.locals[name] == 0 && !(name == "forloop" && p.loops > 0) {
		p.uses = append(p.uses, use{name, p.guards[name] > 0})
	}
}

// variables joins the uses of each name.
func (p *parser) variables() []Variable {
	var vars []Variable
	at := map[string]int{}
	for _, u := range p.uses {
		i, seen := at[u.name]
		if !seen {
			at[u.name] = len(vars)
			vars = append(vars, Variable{u.name, u.optional})
			continue
		}
		vars[i].Optional = vars[i].Optional && u.optional
	}
	return vars
}

// guarded runs body while the names that were used since mark count as tested.
func (p *parser) guarded(mark int, body func()) {
	tested := p.uses[mark:len(p.uses):len(p.uses)]
	for _, u := range tested {
		p.guards[u.name]++
	}
	body()
	for _, u := range tested {
		p.guards[u.name]--
	}
}

func (p *parser) parse() []node {
	nodes, end := p.block("", 0)
	if end.text != "" {
		p.fail(end.pos, CodeSyntax, "%s has nothing to end or to divide here", end.text)
	}
	return nodes
}

// block reads nodes up to one of the tags in ends, a list between spaces, and returns that tag with the scanner behind
// its name. Open is where the block begins, for the error of a block without an end.
func (p *parser) block(ends string, open int) (nodes []node, end token) {
	for p.err == nil {
		at := p.pos
		rest := p.src[at:]
		n := openBraces(rest)
		text, more := rest, n >= 0
		if more {
			text = rest[:n]
		}
		nodes = p.text(nodes, text, more && strings.HasPrefix(rest[n+2:], "-"))
		if !more {
			p.pos = len(p.src)
			if ends != "" {
				tag := ends[strings.LastIndexByte(strings.TrimSpace(ends), ' ')+1:]
				p.fail(open, CodeSyntax, "this tag has no {%% %s %%}", strings.TrimSpace(tag))
			}
			return nodes, token{}
		}
		at += n
		p.braces(at)
		if p.s.end == "}}" {
			nodes = append(nodes, p.output(at))
			continue
		}
		if p.src[p.s.pos:] != "" && p.comment(at) {
			continue
		}
		p.s.next()
		tag := p.s.name("the name of a tag")
		if p.failed() {
			break
		}
		if strings.Contains(ends, " "+tag.text+" ") {
			return nodes, tag
		}
		if nd := p.tag(tag, at); nd != nil {
			nodes = append(nodes, nd)
		}
	}
	return nodes, token{}
}

// openBraces finds {{ or {%.
func openBraces(s string) int {
	for i := 0; ; i++ {
		n := strings.IndexByte(s[i:], '{')
		if n < 0 || i+n+1 >= len(s) {
			return -1
		}
		i += n
		if s[i+1] == '{' || s[i+1] == '%' {
			return i
		}
	}
}

// braces starts a scanner at the braces at pos.
func (p *parser) braces(pos int) {
	p.s = &scanner{src: p.src, pos: pos + 2, open: pos, end: "}}"}
	if p.src[pos+1] == '%' {
		p.s.end = "%}"
	}
	if strings.HasPrefix(p.src[p.s.pos:], "-") && !strings.HasPrefix(p.src[p.s.pos:], "-"+p.s.end) {
		p.s.pos++
	}
}

// closeTag expects the closing braces and moves the parser behind them.
func (p *parser) closeTag() {
	p.s.done()
	if p.failed() {
		return
	}
	p.pos, p.trim = p.s.pos, p.s.trim
	p.tokens += p.s.count
}

// failed takes over an error of the scanner.
func (p *parser) failed() bool {
	if p.err == nil && p.s.failed != nil {
		p.err = p.s.failed
	}
	return p.err != nil
}

// text adds literal text, trimmed as the braces around it ask.
func (p *parser) text(nodes []node, text string, trimEnd bool) []node {
	if p.trim {
		text = strings.TrimLeft(text, " \t\r\n\v\f")
	}
	if trimEnd {
		text = strings.TrimRight(text, " \t\r\n\v\f")
	}
	p.trim = false
	if text == "" {
		return nodes
	}
	if p.mode == line {
		text = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(text)
	}
	p.place.feed(text)
	return append(nodes, textNode(text))
}

// output reads {{ … }}.
func (p *parser) output(at int) node {
	p.s.next()
	if p.s.tok.kind == tokEnd && p.s.failed == nil {
		p.s.fail(at, CodeSyntax, "a value is missing between {{ and }}")
	}
	return p.outputNode(at)
}

// outputNode reads a value with filters up to the closing braces, and fixes how it is escaped.
func (p *parser) outputNode(at int) node {
	e := p.filtered()
	p.closeTag()
	if p.err != nil {
		return nil
	}
	raw := false
	pos := at
	switch e := e.(type) {
	case *chain:
		raw = e.calls[len(e.calls)-1].name == "raw"
		pos = e.pos
	case *path:
		pos = e.pos
	}
	esc, wrong := p.place.escape(raw)
	if wrong != "" {
		p.fail(at, CodeUnsafe, "%s", wrong)
	}
	p.place.value()
	n := &outputNode{e: e, esc: esc, pos: pos}
	if v, ok := e.(*path); ok && len(v.segs) == 0 {
		n.name = v.name
	}
	return n
}

// comment skips {% # … %}, {% comment %} and keeps the text of {% raw %}. It reports whether there was one.
func (p *parser) comment(at int) bool {
	rest := strings.TrimLeft(p.src[p.s.pos:], " \t\r\n\v\f")
	if strings.HasPrefix(rest, "#") {
		n := strings.Index(rest, "%}")
		if n < 0 {
			p.fail(at, CodeSyntax, "this {%% is never closed with %%}")
			return true
		}
		p.trim = rest[n-1] == '-'
		p.pos = len(p.src) - len(rest) + n + 2
		return true
	}
	return false
}

// skipTo finds the tag that ends a comment or raw, from p.pos on, and moves behind it. Other braces in between mean
// nothing; comments may stand inside of comments.
func (p *parser) skipTo(name, end string, at int) (body string, ok bool) {
	start, pos, depth := p.pos, p.pos, 1
	for {
		n := strings.Index(p.src[pos:], "{%")
		if n < 0 {
			p.fail(at, CodeSyntax, "this tag has no {%% %s %%}", end)
			return "", false
		}
		open := pos + n
		pos = open + 2
		rest := strings.TrimLeft(strings.TrimPrefix(p.src[pos:], "-"), " \t\r\n\v\f")
		word := rest[:wordLength(rest)]
		switch {
		case word == name && name == "comment":
			depth++
			continue
		case word != end:
			continue
		}
		if depth--; depth > 0 {
			continue
		}
		tail := strings.TrimLeft(rest[len(word):], " \t\r\n\v\f")
		trim := strings.HasPrefix(tail, "-%}")
		if !trim && !strings.HasPrefix(tail, "%}") {
			p.fail(open, CodeSyntax, "this {%% is never closed with %%}")
			return "", false
		}
		body = p.src[start:open]
		if p.src[open+2] == '-' {
			body = strings.TrimRight(body, " \t\r\n\v\f")
		}
		tail = tail[strings.Index(tail, "%}")+2:]
		p.pos = len(p.src) - len(tail)
		if p.trim {
			body = strings.TrimLeft(body, " \t\r\n\v\f")
		}
		p.trim = trim
		return body, true
	}
}

func wordLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z') {
		n++
	}
	return n
}

// didYouMean offers the name that is nearest to a wrong one, when it is near.
func didYouMean(wrong string, names []string) string {
	if len(wrong) > 40 {
		return ""
	}
	best, least := "", 3
	for _, n := range names {
		if d := distance(wrong, n); d < least {
			best, least = n, d
		}
	}
	if best == "" || least >= len(best) {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance counts the letters to insert, drop, change or swap (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

func filterNames() []string {
	names := make([]string, 0, len(filters))
	for n := range filters {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
