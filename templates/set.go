package templates

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"
	"unicode"

	"github.com/msgctl/msgctl/delivery"
)

// Bounds of what a Set makes.
const (
	maxSubject = 998 // bytes: a line of a mail, RFC 5322 §2.1.1
	maxParams  = 60
)

// Source is the text of one message template. Empty fields are parts that it does not have.
type Source struct {
	Channel  delivery.Channel
	Text     string                     // SMS, WhatsApp without an approved template, e-mail
	Subject  string                     // e-mail
	HTML     string                     // e-mail
	Approved *delivery.ProviderTemplate // WhatsApp; its Params are Liquid texts, its name and language are not
	Event    string                     // webhook; not Liquid
	Data     string                     // webhook: Liquid that renders to JSON
}

// Set is the compiled parts of one message template. It never changes and may be used from many goroutines.
type Set struct {
	channel             delivery.Channel
	text, subject, html *Template
	data                *Template
	params              []*Template
	approved            *delivery.ProviderTemplate
	event               string
	vars                []Variable
	size                int
	runs                sync.Pool
}

// CompileSet checks that src has the parts of its channel and no others, and compiles them. Every error is an *Error.
func CompileSet(src Source) (*Set, error) {
	if err := checkParts(src); err != nil {
		return nil, err
	}
	s := &Set{channel: src.Channel, event: src.Event}
	var err error
	compile := func(part, text string, mode Mode) *Template {
		if text == "" || err != nil {
			return nil
		}
		var t *Template
		if t, err = Compile(text, mode); err != nil {
			err = inPart(err, part)
			return nil
		}
		s.size += t.weight
		s.addVariables(t.vars)
		return t
	}
	s.subject = compile("subject", src.Subject, line)
	s.text = compile("text", src.Text, Plain)
	s.html = compile("html", src.HTML, HTML)
	s.data = compile("data", src.Data, JSON)
	if a := src.Approved; a != nil {
		s.approved = &delivery.ProviderTemplate{Name: a.Name, Language: a.Language}
		for i, p := range a.Params {
			s.params = append(s.params, compile(paramPart(i), p, Plain))
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// checkParts refuses a part that the channel does not carry: it would be dropped without a word.
func checkParts(src Source) error {
	refuse := func(part, format string, args ...any) error {
		return &Error{Part: part, Code: CodeNotForKind, Reason: fmt.Sprintf(format, args...)}
	}
	parts := []struct {
		name string
		has  bool
		on   []delivery.Channel
	}{
		{"text", src.Text != "", []delivery.Channel{delivery.SMS, delivery.WhatsApp, delivery.Email}},
		{"subject", src.Subject != "", []delivery.Channel{delivery.Email}},
		{"html", src.HTML != "", []delivery.Channel{delivery.Email}},
		{"approved", src.Approved != nil, []delivery.Channel{delivery.WhatsApp}},
		{"event", src.Event != "", []delivery.Channel{delivery.Webhook}},
		{"data", src.Data != "", []delivery.Channel{delivery.Webhook}},
	}
	for _, p := range parts {
		ok := !p.has
		for _, ch := range p.on {
			ok = ok || ch == src.Channel
		}
		if !ok {
			return refuse(p.name, "a template for %v has no %s", src.Channel, p.name)
		}
	}
	switch src.Channel {
	case delivery.SMS:
		if src.Text == "" {
			return refuse("text", "a template for sms needs a text")
		}
	case delivery.WhatsApp:
		switch a := src.Approved; {
		case a == nil && src.Text == "":
			return refuse("text", "a template for whatsapp needs a text or an approved template")
		case a != nil && src.Text != "":
			return refuse("text", "a whatsapp message is a text or an approved template, not both")
		case a != nil && (a.Name == "" || a.Language == ""):
			return refuse("approved", "an approved template has a name and a language")
		case a != nil && len(a.Params) > maxParams:
			return refuse("approved", "an approved template has at most %d params", maxParams)
		}
	case delivery.Email:
		if src.Subject == "" {
			return refuse("subject", "a template for email needs a subject")
		}
		if src.Text == "" && src.HTML == "" {
			return refuse("text", "a template for email needs a text or html")
		}
	case delivery.Webhook:
		if src.Data == "" {
			return refuse("data", "a template for webhook needs data")
		}
	default:
		return refuse("channel", "a template is for sms, whatsapp, email or webhook")
	}
	return nil
}

func paramPart(i int) string { return fmt.Sprintf("params[%d]", i) }

// inPart names the part in an error of Compile or Render, which may be shared by nobody else yet.
func inPart(err error, part string) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // both functions document this very type
		e.Part = part
	}
	return err
}

func (s *Set) addVariables(vars []Variable) {
next:
	for _, v := range vars {
		for i := range s.vars {
			if s.vars[i].Name == v.Name {
				s.vars[i].Optional = s.vars[i].Optional && v.Optional
				continue next
			}
		}
		s.vars = append(s.vars, v)
	}
}

// Channel is the channel that the set is for.
func (s *Set) Channel() delivery.Channel { return s.channel }

// Variables lists the variables of all parts in the order in which they are first used.
func (s *Set) Variables() []Variable { return append([]Variable(nil), s.vars...) }

// Required lists the names of the variables without which rendering fails, in alphabetical order.
func (s *Set) Required() []string {
	var names []string
	for _, v := range s.vars {
		if !v.Optional {
			names = append(names, v.Name)
		}
	}
	sort.Strings(names)
	return names
}

// Render makes the content of one message. All parts share one budget. Every error is an *Error with the part's name.
func (s *Set) Render(vars map[string]any) (delivery.Content, error) {
	r, _ := s.runs.Get().(*run)
	if r == nil {
		r = &run{}
	}
	c, err := s.render(r, vars)
	r.reset()
	s.runs.Put(r)
	if err != nil {
		return delivery.Content{}, err
	}
	return c, nil
}

func (s *Set) render(r *run, vars map[string]any) (delivery.Content, error) {
	c := delivery.Content{Event: s.event}
	var err error
	part := func(name string, t *Template) string {
		if t == nil || err != nil {
			return ""
		}
		var out []byte
		if out, err = t.render(r, r.buf[:0], vars); err != nil {
			err = inPart(err, name)
			return ""
		}
		text := string(out)
		r.nextPart(out)
		return text
	}
	c.Subject = strings.TrimSpace(part("subject", s.subject))
	c.Text = part("text", s.text)
	c.HTML = part("html", s.html)
	data := part("data", s.data)
	if s.approved != nil {
		c.Approved = &delivery.ProviderTemplate{Name: s.approved.Name, Language: s.approved.Language}
		for i, t := range s.params {
			c.Approved.Params = append(c.Approved.Params, part(paramPart(i), t))
		}
	}
	if err != nil {
		return c, err
	}
	if data != "" {
		c.Data = json.RawMessage(data)
	}
	if s.html != nil && s.text == nil {
		c.Text = htmlToText(c.HTML)
	}
	return c, s.check(&c)
}

// check looks at what the variables have made of the parts.
func (s *Set) check(c *delivery.Content) error {
	refuse := func(part, code, reason string) error { return &Error{Part: part, Code: code, Reason: reason} }
	if s.subject != nil {
		switch {
		case c.Subject == "":
			return refuse("subject", CodeEmpty, "the subject is empty with these variables")
		case strings.ContainsFunc(c.Subject, breaksLine):
			return refuse("subject", CodeControl, "the subject has a line break or another control character")
		case len(c.Subject) > maxSubject:
			return refuse("subject", CodeBudget, fmt.Sprintf("the subject has more than %d bytes", maxSubject))
		}
	}
	if s.text != nil && strings.TrimSpace(c.Text) == "" {
		return refuse("text", CodeEmpty, "the text is empty with these variables")
	}
	if s.html != nil && strings.TrimSpace(c.HTML) == "" {
		return refuse("html", CodeEmpty, "the html is empty with these variables")
	}
	if s.data != nil && !json.Valid(c.Data) {
		return refuse("data", CodeBadJSON, "data is not valid JSON with these variables: is a comma or a quote missing?")
	}
	if c.Approved != nil {
		for i, p := range c.Approved.Params {
			// WhatsApp Cloud API, error 132012 and "Message templates": a parameter has no line breaks, no tabs and no
			// more than four spaces in a row, and is not empty.
			switch {
			case strings.TrimSpace(p) == "":
				return refuse(paramPart(i), CodeEmpty, "the parameter is empty with these variables")
			case strings.ContainsFunc(p, breaksLine) || strings.Contains(p, "     "):
				return refuse(paramPart(i), CodeControl, "a parameter has no line breaks, tabs or runs of spaces")
			}
		}
	}
	return nil
}

// breaksLine reports control characters, among them those that some mail programs take for a line break.
func breaksLine(c rune) bool { return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' }
