package templates

import (
	"html"
	"strings"
)

// walkHTML goes over HTML once and calls text for what people see and tag for each tag, with its name in lower case and
// all that stands in it. A tag or a comment that does not end takes the rest.
func walkHTML(s string, text func(string), tag func(name, inside string, end bool)) {
	for s != "" {
		n := strings.IndexByte(s, '<')
		if n < 0 {
			text(s)
			return
		}
		if n > 0 {
			text(s[:n])
		}
		s = s[n:]
		if strings.HasPrefix(s, "<!--") {
			s = after(s, "-->")
			continue
		}
		if len(s) < 2 || s[1] != '/' && s[1] != '!' && s[1] != '?' && !isLetter(s[1]) {
			text("<")
			s = s[1:]
			continue
		}
		size := tagLength(s)
		inside := strings.TrimSuffix(s[1:size], ">")
		s = s[size:]
		end := strings.HasPrefix(inside, "/")
		inside = strings.TrimPrefix(inside, "/")
		name := strings.ToLower(inside[:wordLength(inside)])
		if len(inside) > len(name) && isDigit(inside[len(name)]) { // h1
			name += inside[len(name) : len(name)+1]
		}
		if !end && (name == "script" || name == "style" || name == "title" || name == "head") {
			s = afterFold(s, "</"+name)
			s = s[min(len(s), tagLength(s)):]
			continue
		}
		tag(name, inside, end)
	}
}

func after(s, stop string) string {
	if n := strings.Index(s, stop); n >= 0 {
		return s[n+len(stop):]
	}
	return ""
}

// afterFold is what comes after stop, which is ASCII, in any case.
func afterFold(s, stop string) string {
	for i := 0; i+len(stop) <= len(s); i++ {
		n := strings.IndexByte(s[i:], '<')
		if n < 0 {
			return ""
		}
		i += n
		if i+len(stop) <= len(s) && strings.EqualFold(s[i:i+len(stop)], stop) {
			return s[i+len(stop):]
		}
	}
	return ""
}

// tagLength measures up to the > that ends a tag, over quoted attributes.
func tagLength(s string) int {
	quote := byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && i > 0 && s[i-1] == '=':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return len(s)
}

// stripHTML drops tags, comments, scripts and styles, and leaves entities as they are.
func stripHTML(s string) string {
	if strings.IndexByte(s, '<') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	walkHTML(s, func(t string) { b.WriteString(t) }, func(string, string, bool) {})
	return b.String()
}

// htmlToText makes the text part of a mail out of its HTML: blocks become lines, links keep their target.
func htmlToText(s string) string {
	var b strings.Builder
	pending := 0 // line breaks before the next text
	space := false
	href, label := "", 0
	write := func(t string) {
		for _, word := range strings.FieldsFunc(t, func(c rune) bool { return c == ' ' || c >= '\t' && c <= '\r' }) {
			switch {
			case pending > 0 && b.Len() > 0:
				b.WriteString(strings.Repeat("\n", min(2, pending)))
			case space && b.Len() > 0:
				b.WriteByte(' ')
			}
			pending, space = 0, true
			b.WriteString(word)
		}
	}
	text := func(t string) {
		t = html.UnescapeString(t)
		if t == "" {
			return
		}
		lead := t[0] == ' ' || t[0] >= '\t' && t[0] <= '\r'
		space = space || lead
		write(t)
		c := t[len(t)-1]
		space = c == ' ' || c >= '\t' && c <= '\r'
	}
	walkHTML(s, text, func(name, inside string, end bool) {
		switch name {
		case "br":
			pending++
		case "p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote", "hr":
			pending = max(pending, 2)
		case "div", "tr", "section", "article", "header", "footer", "center":
			pending = max(pending, 1)
		case "li":
			pending = max(pending, 1)
			if !end {
				space = false
				write("-")
			}
		case "td", "th":
			space = true
		case "img":
			if alt := attribute(inside, "alt"); alt != "" {
				text(alt)
			}
		case "a":
			if !end {
				href, label = attribute(inside, "href"), b.Len()
				return
			}
			target := strings.TrimPrefix(html.UnescapeString(href), "mailto:")
			if href != "" && href[0] != '#' && label <= b.Len() && !strings.Contains(b.String()[label:], target) {
				space = true
				write("(" + target + ")")
				space = false
			}
			href = ""
		}
	})
	return b.String()
}

// attribute returns the value of an attribute in quotes, as it stands.
func attribute(inside, name string) string {
	for i := 0; ; {
		n := strings.Index(inside[i:], name+"=")
		if n < 0 {
			return ""
		}
		at := i + n
		i = at + len(name) + 1
		if at == 0 || !isSpace(inside[at-1]) || i >= len(inside) {
			continue
		}
		quote := inside[i]
		if quote != '"' && quote != '\'' {
			continue
		}
		if end := strings.IndexByte(inside[i+1:], quote); end >= 0 {
			return inside[i+1 : i+1+end]
		}
		return ""
	}
}
