package campaigns

import (
	"fmt"
	"slices"
	"strings"

	"github.com/msgctl/msgctl/delivery"
)

// The roles that a column can have beside being a variable. The first three are addresses.
const (
	rolePhone = iota
	roleEmail
	roleURL
	roleChannel
	roleCount
)

var roleNames = [roleCount]string{"phone", "email", "url", "channel"}

// roleChannels is the channel whose rules an address of a role follows; a phone number serves WhatsApp as well.
var roleChannels = [roleChannel]delivery.Channel{delivery.SMS, delivery.Email, delivery.Webhook}

// guesses are the names by which a role is recognised, best first, as plainName writes them.
var guesses = [roleCount][]string{
	rolePhone: {"phone", "mobile", "phonenumber", "mobilenumber", "mobilephone", "msisdn", "cell", "cellphone", "tel",
		"telephone", "phoneno", "mobileno", "whatsapp", "whatsappnumber", "smsnumber", "contactnumber"},
	roleEmail:   {"email", "mail", "emailaddress", "mailaddress"},
	roleURL:     {"url", "webhook", "webhookurl", "hook", "endpoint"},
	roleChannel: {"channel", "preferredchannel"},
}

// unused in Import.Columns says that a role has no column.
const unused = "-"

func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" _-.", r) {
			return -1
		}
		return r
	}, strings.ToLower(strings.TrimSpace(name)))
}

// ranks tells roles by name. It is read by several goroutines and not changed after it is made.
type ranks struct {
	given   map[string]int // role of a column that the importer named
	guessed map[string]rank
}

// rank is a role and how good a name is for it: 0 is best.
type rank struct{ role, place int }

// newRanks checks what the importer said about columns: role → name of the column, or "-" for none.
func newRanks(columns map[string]string) (ranks, error) {
	r := ranks{given: map[string]int{}, guessed: map[string]rank{}}
	for role, names := range guesses {
		if columns[roleNames[role]] != "" {
			continue
		}
		for place, name := range names {
			r.guessed[name] = rank{role, place}
		}
	}
	for name, column := range columns {
		role := slices.Index(roleNames[:], name)
		switch {
		case role < 0:
			return r, &FileError{CodeUnknownColumn, 0,
				fmt.Sprintf("%q is no kind of column: use phone, email, url or channel", name)}
		case column == "" || column == unused:
		default:
			if other, taken := r.given[column]; taken {
				return r, &FileError{CodeUnknownColumn, 0,
					fmt.Sprintf("column %q cannot be both %s and %s", column, roleNames[other], name)}
			}
			r.given[column] = role
		}
	}
	return r, nil
}

// find returns the role of a column's name and how good the name is for it.
func (r ranks) find(name string) (rank, bool) {
	if role, ok := r.given[name]; ok {
		return rank{role: role, place: -1}, true
	}
	g, ok := r.guessed[plainName(name)]
	return g, ok
}

// assign gives each role the best column of a header: its index, or -1.
func (r ranks) assign(columns []string) (at [roleCount]int, err error) {
	var best [roleCount]int
	for role := range at {
		at[role] = -1
	}
	found := 0
	for i, name := range columns {
		k, ok := r.find(name)
		if !ok {
			continue
		}
		if k.place < 0 {
			found++
		}
		if at[k.role] < 0 || k.place < best[k.role] {
			at[k.role], best[k.role] = i, k.place
		}
	}
	if found < len(r.given) {
		for name := range r.given {
			if !slices.Contains(columns, name) {
				return at, &FileError{CodeUnknownColumn, 1,
					fmt.Sprintf("there is no column %q; the file has: %s", name, list(columns))}
			}
		}
	}
	if at[rolePhone] < 0 && at[roleEmail] < 0 && at[roleURL] < 0 {
		return at, &FileError{CodeNoAddress, 1,
			"no column looks like a phone number, an e-mail address or a URL: name one of them; the file has: " +
				list(columns)}
	}
	return at, nil
}

// list names columns for a person: the first twenty.
func list(columns []string) string {
	if len(columns) > 20 {
		return strings.Join(columns[:20], ", ") + fmt.Sprintf(" and %d more", len(columns)-20)
	}
	return strings.Join(columns, ", ")
}
