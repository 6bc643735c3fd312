package api

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/sms"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// checker turns what people send into messages. It serves one request and remembers what it has looked up, so that a
// batch asks the store once for each template and connector.
type checker struct {
	a         *api
	ctx       context.Context
	tenant    delivery.TenantID
	now       time.Time
	followed  bool // its messages are traced for the caller
	region    *string
	templates map[string]*checkedTemplate
	accounts  map[string]*store.Account // nil value = there is none
}

// checkedTemplate is a template as messages use it; a nil one does not exist.
type checkedTemplate struct {
	store.Template
	set      *templates.Set
	required []string
	broken   error
}

func (a *api) checker(c *call) *checker {
	return &checker{a: a, ctx: c.ctx(), tenant: c.tenant, now: a.Now()}
}

// checked is a message that may be accepted, still without an id.
type checked struct {
	store.NewMessage
	version int // of the template; 0 = literal content
}

// message checks one message. A *sdk.Error says what is wrong with it; any other error is not the message's fault.
func (k *checker) message(in *messageIn) (checked, error) {
	var f faults
	first, err := k.leg(in, &f)
	m := checked{version: first.version, NewMessage: store.NewMessage{
		Channel: first.Channel, To: first.To, Payload: first.Payload, Segments: first.Segments, Account: first.Account,
		ClientRef: in.ClientRef, Category: in.Category, Tag: in.Tag, OrderingKey: in.OrderingKey,
	}}
	if err != nil {
		return m, err
	}
	if m.Lane, err = delivery.ParseLane(in.Lane); err != nil {
		f.add("/lane", "invalid_value", "there is no lane %s: use urgent, normal or bulk", quoted(in.Lane))
	}
	switch in.Delivery {
	case "", "at_least_once":
	case "at_most_once":
		m.AtMostOnce = true
	default:
		f.add("/delivery", "invalid_value", "use at_least_once or at_most_once")
	}
	if utf8.RuneCountInString(in.ClientRef) > maxClientRef {
		f.add("/client_ref", "text_too_long", "client_ref has at most %d characters", maxClientRef)
	} else if strings.ContainsFunc(in.ClientRef, breaksLine) {
		f.add("/client_ref", "control_character", "there is a line break or control character")
	}
	mark("/category", in.Category, maxMark, &f)
	mark("/tag", in.Tag, maxMark, &f)
	mark("/ordering_key", in.OrderingKey, maxOrderingKey, &f)
	m.DueAt, m.ExpiresAt = k.schedule(in, &f)
	if err := k.fallback(in, &m, &f); err != nil {
		return m, err
	}
	return m, f.problem()
}

// checkedLeg is one way to reach the person, as the store takes it.
type checkedLeg struct {
	store.NewLeg
	version int // of the template; 0 = literal content
}

// leg checks what a message and each of its further legs have in common: channel, recipient, content and connector. Its
// Payload is made only when nothing is wrong so far.
func (k *checker) leg(in *messageIn, f *faults) (checkedLeg, error) {
	var l checkedLeg
	if bytes.Equal(in.Vars, []byte("null")) {
		in.Vars = nil
	}
	ch, err := delivery.ParseChannel(in.Channel)
	switch {
	case in.Channel == "":
		return l, failAt("/channel", "field_required", "the channel is missing: use sms, whatsapp, email or webhook")
	case err != nil:
		return l, failAt("/channel", "invalid_channel", "there is no channel %s: use sms, whatsapp, email or webhook",
			quoted(in.Channel))
	}
	l.Channel, l.Segments = ch, 1
	if l.To, err = k.to(in, ch, f); err != nil {
		return l, err
	}
	content(in, ch, f)
	if in.Template != "" {
		if l.version, err = k.template(in, ch, f); err != nil {
			return l, err
		}
	}
	if contentRules[ch].segments {
		text := in.Text
		if in.Template != "" {
			text = k.text(in)
		}
		var enc sms.Encoding
		if l.Segments, enc = sms.Count(text); in.Template != "" && l.Segments > maxSegments {
			f.add("/template", "too_many_segments", "with these vars the text needs %d segments in %s; %d is the most",
				l.Segments, enc, maxSegments)
		}
	}
	if in.Connector != "" {
		if l.Account, err = k.connector(in.Connector, ch, f); err != nil {
			return l, err
		}
	}
	if len(f.list) == 0 {
		l.Payload = appendDraft(make([]byte, 0, 64+len(in.Text)+len(in.HTML)+len(in.Vars)+len(in.Data)), in, ch, l.version)
	}
	return l, nil
}

// to normalises the recipient.
func (k *checker) to(in *messageIn, ch delivery.Channel, f *faults) (string, error) {
	if in.To == "" {
		f.add("/to", "field_required", "the recipient is missing")
		return "", nil
	}
	to, err := k.normalize(ch, in.To)
	var bad *recipient.Invalid
	switch {
	case errors.As(err, &bad):
		f.add("/to", bad.Code, "%s", bad.Rule)
	case err != nil:
		return "", err
	default:
		k.allowed(to, ch, f)
	}
	return to, nil
}

// normalize is recipient.Normalize with the tenant's region, which is looked up only for a number that needs one.
func (k *checker) normalize(ch delivery.Channel, raw string) (string, error) {
	to, err := recipient.Normalize(ch, raw, "")
	var bad *recipient.Invalid
	if !errors.As(err, &bad) || bad.Code != recipient.CodePhone || strings.HasPrefix(raw, "+") {
		return to, err
	}
	region, rerr := k.defaultRegion()
	switch {
	case rerr != nil:
		return "", rerr
	case region == "":
		return "", err
	}
	return recipient.Normalize(ch, raw, region)
}

// reachable says for which channels the recipient is an address that the engine itself connects to.
var reachable = map[delivery.Channel]bool{delivery.Webhook: true}

// blocked is what the egress policy says about a URL.
type blocked interface {
	error
	EgressBlocked() string
}

// allowed asks the egress policy about a webhook's target.
func (k *checker) allowed(to string, ch delivery.Channel, f *faults) {
	if !reachable[ch] {
		return
	}
	if err := k.a.URLAllowed(to); err != nil {
		var b blocked
		if errors.As(err, &b) {
			f.add("/to", "url_not_allowed", "%s", b.Error())
			return
		}
		f.add("/to", "url_not_allowed", "the engine may not call this URL")
	}
}

func (k *checker) defaultRegion() (string, error) {
	if k.region == nil {
		t, err := k.a.Store.Tenant(k.ctx, system(), k.tenant)
		if err != nil {
			return "", err
		}
		k.region = &t.Region
	}
	return *k.region, nil
}

// template finds the newest version of a template and checks that every variable it needs is there.
func (k *checker) template(in *messageIn, ch delivery.Channel, f *faults) (version int, err error) {
	t, known := k.templates[in.Template]
	if !known {
		if t, err = k.lookUp(in.Template); err != nil {
			return 0, err
		}
		if k.templates == nil {
			k.templates = map[string]*checkedTemplate{}
		}
		if len(k.templates) < 1000 { // of names that do not exist a batch could hold many
			k.templates[in.Template] = t
		}
	}
	switch {
	case t == nil:
		f.add("/template", "unknown_template", "there is no template %s", quoted(in.Template))
		return 0, nil
	case t.Channel != ch:
		f.add("/template", "template_channel", "the template %s is for %s, the message for %s", t.Name, t.Channel, ch)
		return 0, nil
	case t.broken != nil:
		f.add("/template", "invalid_template", "version %d of %s cannot be used: %s", t.Version, t.Name, t.broken)
		return 0, nil
	}
	return t.Version, vars(in.Vars, t, f)
}

func (k *checker) lookUp(name string) (*checkedTemplate, error) {
	if !validName(name) {
		return nil, nil
	}
	row, err := k.a.Store.Template(k.ctx, k.tenant, name, 0)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &checkedTemplate{Template: row}
	set, err := k.a.compiled(k.tenant, row)
	if err != nil {
		t.broken = err
		return t, nil
	}
	t.required, t.set = set.Required(), set
	return t, nil
}

// text renders a message's template as the pipeline will, so that its segments are known when limits are asked. What
// cannot be rendered is nothing here: the message will end with that reason.
func (k *checker) text(in *messageIn) string {
	t := k.templates[in.Template]
	if t == nil || t.set == nil {
		return ""
	}
	var vars map[string]any
	if len(in.Vars) > 0 && json.Unmarshal(in.Vars, &vars) != nil {
		return ""
	}
	content, err := t.set.Render(vars)
	if err != nil {
		return ""
	}
	return content.Text
}

// vars checks that the variables are an object that has all that the template needs, and that every number among them
// is one that the renderer can hold.
func vars(raw jsontext.Value, t *checkedTemplate, f *faults) error {
	missing := t.required
	if len(raw) > 0 {
		if raw.Kind() != '{' {
			f.add("/vars", "invalid_value", "vars must be an object: {\"name\": \"Asha\"}")
			return nil
		}
		if len(raw) > maxText {
			f.add("/vars", "text_too_long", "vars have %d bytes; %d is the most", len(raw), maxText)
			return nil
		}
		d := jsontext.NewDecoder(bytes.NewReader(raw))
		have := make(map[string]bool, 8)
		for {
			tok, err := d.ReadToken()
			if err != nil {
				break // the whole body has been parsed before: this is the end
			}
			switch tok.Kind() {
			case '"':
				if d.StackDepth() != 1 {
					continue
				}
				if _, n := d.StackIndex(1); n%2 == 1 { // a name, and not a value
					name := tok.String()             // before the token is gone
					have[name] = d.PeekKind() != 'n' // null is no value
				}
			case '0':
				if _, err := tok.Float(); err != nil {
					f.add("/vars"+string(d.StackPointer()), "out_of_range", "the number is larger than a number can be")
				}
			}
		}
		missing = nil
		for _, name := range t.required {
			if !have[name] {
				missing = append(missing, name)
			}
		}
	}
	for _, name := range missing {
		f.add("/vars/"+jsonPointer(name), "missing_variable", "the template %s needs the variable %s", t.Name, quoted(name))
	}
	return nil
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// jsonPointer escapes a name for a JSON Pointer (RFC 6901 §3).
func jsonPointer(name string) string { return pointerEscapes.Replace(name) }

// connector finds the account that a message is pinned to.
func (k *checker) connector(name string, ch delivery.Channel, f *faults) (delivery.AccountID, error) {
	a, known := k.accounts[name]
	if !known && validName(name) {
		row, err := k.a.Store.Account(k.ctx, k.tenant, name)
		switch {
		case err == nil:
			a = &row
		case !errors.Is(err, store.ErrNotFound):
			return delivery.AccountID{}, err
		}
		if k.accounts == nil {
			k.accounts = map[string]*store.Account{}
		}
		if len(k.accounts) < 1000 {
			k.accounts[name] = a
		}
	}
	switch {
	case a == nil:
		f.add("/connector", "unknown_connector", "there is no connector %s", quoted(name))
	case a.Channel != ch:
		f.add("/connector", "connector_channel", "the connector %s sends %s, the message is %s", name, a.Channel, ch)
	default:
		return a.ID, nil
	}
	return delivery.AccountID{}, nil
}
