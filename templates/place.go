package templates

import "strings"

// escaping is what is done to a value where it is printed.
type escaping uint8

const (
	escNone escaping = iota
	escHTML
	escURL        // HTML, and the value begins a URL
	escJSONString // inside of quotes
	escJSONValue  // outside of quotes
)

// tracker follows the literal text of a template to know what a value that comes next stands in. It reads HTML as
// loosely as mail programs do, and JSON by its quotes alone: it takes for granted that the author's own text is sound.
type tracker struct {
	mode   Mode
	state  state
	quoted bool   // JSON: after a backslash. HTML: the tag is an end tag
	name   string // HTML: the tag
	attr   string // HTML: the attribute
	begin  bool   // HTML: at the beginning of an attribute's value
}

type state uint8

const (
	inText    state = iota // HTML text, or JSON outside of quotes
	inString               // JSON
	inTagName              // <na|me
	inTag                  // <name |
	inAttr                 // <name at|tr
	afterAttr              // <name attr=|
	inDouble               // <name attr="|
	inSingle               // <name attr='|
	inBare                 // <name attr=val|ue
	inComment              // <!-- |
	inRaw                  // <script>|, <style>|
)

// feed moves over literal text.
func (t *tracker) feed(s string) {
	switch t.mode {
	case JSON:
		for i := range len(s) {
			switch {
			case t.quoted:
				t.quoted = false
			case s[i] == '\\' && t.state == inString:
				t.quoted = true
			case s[i] == '"' && t.state == inString:
				t.state = inText
			case s[i] == '"':
				t.state = inString
			}
		}
	case HTML:
		for s != "" {
			s = s[t.html(s):]
		}
	}
}

// html moves over a piece of s and returns its length, at least 1.
func (t *tracker) html(s string) int {
	until := func(stop string) (int, bool) {
		if n := strings.Index(s, stop); n >= 0 {
			return n + len(stop), true
		}
		return len(s), false
	}
	c := s[0]
	switch t.state {
	case inText:
		n := strings.IndexByte(s, '<')
		switch {
		case n < 0:
			return len(s)
		case strings.HasPrefix(s[n:], "<!--"):
			t.state = inComment
			return n + 4
		case n+1 == len(s): // what comes next is a value, and would be the tag's name
			t.state, t.name, t.quoted = inTagName, "", false
			return n + 1
		case s[n+1] == '/' || isLetter(s[n+1]):
			t.state, t.name, t.quoted = inTagName, "", s[n+1] == '/'
			return n + 2 - b2i(!t.quoted)
		}
		return n + 1
	case inTagName:
		n := 0
		for n < len(s) && !isSpace(s[n]) && s[n] != '>' && s[n] != '/' {
			n++
		}
		if t.name += strings.ToLower(s[:min(n, 20)]); len(t.name) > 20 {
			t.name = t.name[:20]
		}
		if n < len(s) {
			t.state = inTag
		}
		return max(n, b2i(t.state == inTagName))
	case inTag, inAttr:
		switch {
		case c == '>':
			t.close()
		case c == '=' && t.state == inAttr:
			t.state = afterAttr
		case isSpace(c) || c == '/':
			// A space may stand before the equals sign: the attribute's name is kept.
			t.state = inTag
			if rest := strings.TrimLeft(s, " \t\r\n\f"); strings.HasPrefix(rest, "=") && t.attr != "" {
				t.state = inAttr
				return len(s) - len(rest)
			}
		default:
			if t.state == inTag {
				t.state, t.attr = inAttr, ""
			}
			if len(t.attr) < 20 {
				t.attr += strings.ToLower(s[:1])
			}
		}
		return 1
	case afterAttr:
		switch {
		case c == '"':
			t.state, t.begin = inDouble, true
		case c == '\'':
			t.state, t.begin = inSingle, true
		case c == '>':
			t.close()
		case !isSpace(c):
			t.state = inBare
		}
		return 1
	case inDouble, inSingle:
		quote := `"`
		if t.state == inSingle {
			quote = "'"
		}
		n, end := until(quote)
		if strings.TrimSpace(s[:n-b2i(end)]) != "" {
			t.begin = false
		}
		if end {
			t.state, t.attr = inTag, ""
		}
		return n
	case inBare:
		if c == '>' {
			t.close()
		} else if isSpace(c) {
			t.state, t.attr = inTag, ""
		}
		return 1
	case inComment:
		n, end := until("-->")
		if end {
			t.state = inText
		}
		return n
	default: // inRaw
		if n, end := until("</"); end {
			if after := s[n:]; len(after) >= len(t.name) && strings.EqualFold(after[:len(t.name)], t.name) {
				t.state, t.quoted, t.name = inTagName, true, ""
			}
			return n
		}
		return len(s)
	}
}

// close moves over the > of a tag.
func (t *tracker) close() {
	t.state, t.attr = inText, ""
	if !t.quoted && (t.name == "script" || t.name == "style") {
		t.state = inRaw
	}
}

// escape says how a value that stands here is escaped, or why it may not stand here. A raw value may stand anywhere.
func (t *tracker) escape(raw bool) (escaping, string) {
	switch {
	case raw || t.mode != HTML && t.mode != JSON:
		return escNone, ""
	case t.mode == JSON && t.state == inString:
		return escJSONString, ""
	case t.mode == JSON:
		return escJSONValue, ""
	}
	switch t.state {
	case inRaw:
		return 0, "a value inside of <" + t.name + "> cannot be made safe: move it out, or add | raw"
	case inTagName, inTag, inAttr:
		return 0, "a value inside of a tag stands in an attribute, in quotes; or add | raw"
	case afterAttr, inBare:
		return 0, "put quotes around this attribute's value"
	case inDouble, inSingle:
		if strings.HasPrefix(t.attr, "on") {
			return 0, "a value in " + t.attr + " would be run as a script"
		}
		switch t.attr {
		case "href", "src", "action", "formaction", "background", "poster", "cite", "xlink:href", "data", "longdesc":
			if t.begin {
				return escURL, ""
			}
		}
	}
	return escHTML, ""
}

// value notes that a value was printed here.
func (t *tracker) value() { t.begin = false }

// join merges the place that another branch leads to. It reports false when the two cannot be one.
func (t *tracker) join(o tracker) bool {
	if t.mode != HTML && t.mode != JSON {
		return true
	}
	t.begin = t.begin || o.begin
	same := t.state == o.state && t.quoted == o.quoted || t.state == inText && o.state == inText
	inValue := t.state == inDouble || t.state == inSingle
	return same && (!inValue || t.attr == o.attr)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
