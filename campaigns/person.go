package campaigns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/store"
)

// The reasons for which a row is left out. An address that is not valid has the code of recipient.Invalid. They are
// part of the API: never change one.
const (
	reasonRagged     = "ragged"
	reasonQuote      = "unbalanced_quote"
	reasonCell       = "cell_too_large"
	reasonRow        = "row_too_large"
	reasonColumns    = "too_many_columns"
	reasonControl    = "control_character"
	reasonEncoding   = "invalid_encoding"
	reasonJSON       = "invalid_json"
	reasonDepth      = "too_deep"
	reasonType       = "not_text"
	reasonNoAddress  = "no_address"
	reasonChannel    = "invalid_channel"
	reasonNoChannel  = "channel_without_address"
	reasonDuplicate  = "duplicate"
	reasonSuppressed = "suppressed"
)

// rejection says why a row is left out.
type rejection struct {
	line   int
	column string // "" = the row as a whole
	reason string
	detail string
	value  string // what stands there, at most about 200 bytes
}

func (r *rejection) String() string {
	s := fmt.Sprintf("line %d", r.line)
	if r.column != "" {
		s += fmt.Sprintf(", %s", r.column)
	}
	if r.value != "" {
		s += fmt.Sprintf(" %q", r.value)
	}
	return s + ": " + r.detail
}

// converter makes people of rows. Its methods are safe for concurrent use.
type converter struct {
	ranks      ranks
	region     string
	columns    []string // CSV only
	keys       [][]byte // CSV only: the columns as JSON strings
	at         [roleCount]int
	suppressed *suppressions

	mu      sync.Mutex
	mapping map[string]string // NDJSON: the names seen first, by role
	first   []string          // NDJSON: the names of the first object
}

// person makes a person of a row, or says why not. The error is that of the store.
func (c *converter) person(ctx context.Context, in row) (store.Person, string, *rejection, error) {
	if in.bad != nil {
		return store.Person{}, "", in.bad, nil
	}
	var fields [roleCount]field
	var vars []byte
	var bad *rejection
	if in.object != nil {
		fields, bad = c.fromObject(in.object)
		vars = in.object
	} else {
		fields, vars, bad = c.fromCells(in.cells)
	}
	if bad == nil && len(vars) > maxVars {
		bad = &rejection{reason: reasonRow, detail: "the variables of one person have at most 64 KiB as JSON"}
	}
	var p store.Person
	var key string
	if bad == nil {
		p, key, bad = c.addresses(fields)
	}
	if bad == nil {
		var err error
		if bad, err = c.checkSuppressed(ctx, p, key); err != nil {
			return p, "", nil, err
		}
	}
	if bad != nil {
		bad.line = in.line
		return p, "", bad, nil
	}
	p.Vars = vars
	return p, key, nil, nil
}

func (c *converter) fromCells(cells []string) (fields [roleCount]field, vars []byte, bad *rejection) {
	size := 2
	for i, cell := range cells {
		size += len(c.keys[i]) + len(cell) + 4
	}
	vars = append(make([]byte, 0, size+size/16), '{')
	for i, cell := range cells {
		if i > 0 {
			vars = append(vars, ',')
		}
		vars = append(append(vars, c.keys[i]...), ':')
		var err error
		if vars, err = jsontext.AppendQuote(vars, cell); err != nil {
			return fields, nil, &rejection{column: c.columns[i], reason: reasonEncoding,
				detail: "the cell is not valid UTF-8: save the file as UTF-8", value: cut([]byte(cell))}
		}
	}
	for role, i := range c.at {
		if i >= 0 {
			fields[role] = field{name: c.columns[i], value: cells[i]}
		}
	}
	return fields, append(vars, '}'), nil
}

func (c *converter) fromObject(object []byte) (fields [roleCount]field, bad *rejection) {
	var best [roleCount]int
	var names []string
	bad = readObject(object, func(name string, value jsontext.Value) *rejection {
		if len(names) < maxColumns {
			names = append(names, name)
		}
		k, ok := c.ranks.find(name)
		if !ok || value.Kind() == 'n' || fields[k.role].name != "" && k.place >= best[k.role] {
			return nil
		}
		f := field{name: name}
		switch value.Kind() {
		case '"':
			text, err := jsontext.AppendUnquote(nil, value)
			if err != nil {
				return &rejection{column: name, reason: reasonEncoding, detail: "the text is not valid UTF-8"}
			}
			f.value = string(text)
		case '0':
			f.value = string(value) // a phone number without +, as some exports write it
		default:
			return &rejection{column: name, reason: reasonType, detail: "the value must be a text", value: cut(value)}
		}
		fields[k.role], best[k.role] = f, k.place
		return nil
	})
	if bad != nil {
		return fields, bad
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = names
	}
	for role, f := range fields {
		if f.name != "" && c.mapping[roleNames[role]] == "" {
			c.mapping[roleNames[role]] = f.name
		}
	}
	return fields, nil
}

// addresses normalises a row's addresses. It returns, too, the name of the column with the person's first address.
func (c *converter) addresses(fields [roleCount]field) (p store.Person, first string, bad *rejection) {
	to := [roleChannel]*string{&p.Phone, &p.Email, &p.URL}
	for role, ch := range roleChannels {
		f := fields[role]
		raw := strings.TrimSpace(f.value)
		if raw == "" {
			continue
		}
		addr, err := recipient.Normalize(ch, raw, c.region)
		if err != nil {
			bad := &rejection{column: f.name, reason: "invalid_address", detail: "the address is not valid",
				value: cut([]byte(raw))}
			var invalid *recipient.Invalid
			if errors.As(err, &invalid) {
				bad.reason, bad.detail = invalid.Code, invalid.Rule
			}
			return p, "", bad
		}
		*to[role] = addr
		if first == "" {
			first = f.name
		}
	}
	if first == "" {
		return p, "", &rejection{reason: reasonNoAddress, detail: "the row has no address"}
	}
	f := fields[roleChannel]
	name := strings.ToLower(strings.TrimSpace(f.value))
	if name == "" {
		return p, first, nil
	}
	ch, err := delivery.ParseChannel(name)
	if err != nil {
		return p, "", &rejection{column: f.name, reason: reasonChannel,
			detail: "the channel must be sms, whatsapp, email or webhook, or be left empty", value: cut([]byte(f.value))}
	}
	p.Channel = ch
	if address(p, ch) == "" {
		return p, "", &rejection{column: f.name, reason: reasonNoChannel,
			detail: fmt.Sprintf("the row asks for %v and has no address for it", ch), value: cut([]byte(f.value))}
	}
	return p, first, nil
}

// checkSuppressed leaves out a person who may not be written to at all: on the channel the row asks for, else on every
// channel that its addresses stand for, where a phone number stands for SMS. Somebody who can still be reached on one
// of them stays: the expansion looks at the list again, message by message.
func (c *converter) checkSuppressed(ctx context.Context, p store.Person, first string) (*rejection, error) {
	channels := roleChannels[:]
	if p.Channel != 0 {
		channels = []delivery.Channel{p.Channel}
	}
	value := ""
	for _, ch := range channels {
		addr := address(p, ch)
		if addr == "" {
			continue
		}
		hit, err := c.suppressed.has(ctx, ch, addr)
		if err != nil || !hit {
			return nil, err
		}
		if value == "" {
			value = addr
		}
	}
	return &rejection{column: first, reason: reasonSuppressed, detail: "the address is on the suppression list",
		value: cut([]byte(value))}, nil
}

// address returns where a channel reaches a person, "" = nowhere.
func address(p store.Person, ch delivery.Channel) string {
	switch ch {
	case delivery.SMS, delivery.WhatsApp:
		return p.Phone
	case delivery.Email:
		return p.Email
	case delivery.Webhook:
		return p.URL
	}
	return ""
}

// used returns which column serves which role, and the columns.
func (c *converter) used() (mapping map[string]string, columns []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.columns == nil {
		for i, name := range c.first {
			c.first[i] = strings.ToValidUTF8(name, string(utf8.RuneError))
		}
		return maps.Clone(c.mapping), c.first
	}
	mapping = map[string]string{}
	for role, i := range c.at {
		if i >= 0 {
			mapping[roleNames[role]] = c.columns[i]
		}
	}
	return mapping, c.columns
}
