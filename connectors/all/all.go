// Package all is the list of the connectors that are built in.
package all

import (
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/smpp"
	"github.com/msgctl/msgctl/connectors/smtp"
	"github.com/msgctl/msgctl/connectors/webhook"
	"github.com/msgctl/msgctl/connectors/whatsapp"
)

// Kinds returns every built-in kind, one for each channel, in the order in which people see them. To add a connector of
// your own, append its Kind to the list that you give to the engine.
func Kinds() []connectors.Kind {
	return []connectors.Kind{smpp.Kind(), whatsapp.Kind(), smtp.Kind(), webhook.Kind()}
}
