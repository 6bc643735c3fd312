// Package smpp is the connector to a short message service centre over SMPP 3.4.
//
// One account keeps one bind_transceiver session. Its files, in the order in which a message meets them: submit.go
// turns a message into submit_sm PDUs, link.go keeps a session up, session.go carries PDUs within a window, keeper.go
// ends what takes too long, class.go reads the answer, receive.go takes receipts and inbound messages.
package smpp

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
)

// maxWindow bounds the setting "window": an SMSC that allows more is not known.
const maxWindow = 10_000

// maxBinds bounds the setting "max_binds". The engine sees to it that it is kept.
const maxBinds = 1000

// Kind returns the kind smpp. A connector of it has the capabilities Streamer, Checker and io.Closer.
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:    "smpp",
		Channel: delivery.SMS,
		Doc:     "SMS through a provider's SMSC over SMPP 3.4, with receipts and inbound messages on the same session.",
		Settings: []connectors.Setting{
			{Key: "addr", Type: connectors.Text, Required: true, Doc: "host:port of the SMSC."},
			{Key: "system_id", Type: connectors.Text, Required: true, Doc: "The user name, at most 15 characters."},
			{Key: "password", Type: connectors.Text, Secret: true, Doc: "The password of the bind."},
			{Key: "system_type", Type: connectors.Text, Doc: "The system_type, where the provider asks for one."},
			{Key: "from", Type: connectors.Text,
				Doc: "Sender of messages that name none: +number, short code or up to 11 letters."},
			{Key: "source_ton", Type: connectors.Number,
				Doc: "Type of number of the sender; unset: 1 for +number, 3 for a short code, 5 for a name."},
			{Key: "source_npi", Type: connectors.Number, Doc: "Numbering plan of the sender; unset: 1 for +number, else 0."},
			{Key: "dest_ton", Type: connectors.Number, Default: "1", Doc: "Type of number of the recipient."},
			{Key: "dest_npi", Type: connectors.Number, Default: "1", Doc: "Numbering plan of the recipient."},
			{Key: "service_type", Type: connectors.Text,
				Doc: "The service_type, where the provider asks for one; at most 5 characters."},
			{Key: "window", Type: connectors.Number, Default: "50",
				Doc: "How many submit_sm may wait for their answer at once; ask the provider."},
			{Key: "concurrency", Type: connectors.Number, Default: "100",
				Doc: "How many messages are under way at once, their rendering included; the window bounds those at the SMSC."},
			{Key: "max_binds", Type: connectors.Number, Default: "0",
				Doc: "How many engines of a cluster may bind at once, where the provider allows fewer; 0 = each one binds."},
			{Key: "timeout", Type: connectors.Duration, Default: "30s",
				Doc: "How long one message may take, all its parts and the wait for the window included."},
			{Key: "response_timeout", Type: connectors.Duration, Default: "10s",
				Doc: "How long the SMSC may take to answer one PDU."},
			{Key: "enquire_link", Type: connectors.Duration, Default: "30s",
				Doc: "How long the session may be silent before the SMSC is asked whether it is there."},
			{Key: "tls", Type: connectors.Bool, Default: "false", Doc: "Whether the connection is TLS."},
			{Key: "tls_server_name", Type: connectors.Text,
				Doc: "The name in the SMSC's certificate, where it is not the host of addr."},
			{Key: "tls_ca", Type: connectors.Text, Doc: "PEM certificates to trust instead of the system's."},
			{Key: "registered_delivery", Type: connectors.Bool, Default: "true",
				Doc: "Whether to ask for a receipt of the outcome."},
			{Key: "receipt_ids", Type: connectors.Text, Default: "auto",
				Doc: "How receipts write message ids: auto, or dec or hex when the answer to submit_sm writes the other."},
			{Key: "long_messages", Type: connectors.Text, Default: "udh",
				Doc: "How long texts travel: udh, udh16 (16 bit reference) or payload (message_payload)."},
			{Key: "validity", Type: connectors.Text, Default: "relative",
				Doc: "How a message's expiry is passed on: relative, absolute or none."},
		},
		Ambiguity:            connectors.None,
		Concurrency:          100,
		SendTimeout:          30 * time.Second,
		Receipts:             true,
		ReceiptsByProviderID: true,
		Open:                 open,
	}
}

// config is an account's settings, checked.
type config struct {
	addr          string
	tls           *tls.Config // nil = plain TCP
	bind          smpp.Bind
	submit        submitConfig
	window        int
	answerWithin  time.Duration
	silenceBefore time.Duration // an enquire_link of ours
	receiptIDs    string        // auto, dec, hex
}

func open(a *connectors.Account) (connectors.Connector, error) {
	cfg, err := readConfig(a.Settings)
	if err != nil {
		return nil, err
	}
	log := a.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return newConnector(a, cfg, log), nil
}

func readConfig(s connectors.Settings) (config, error) {
	cfg := config{
		addr: s.Text("addr"),
		bind: smpp.Bind{
			SystemID: s.Text("system_id"), Password: s.Text("password"), SystemType: s.Text("system_type"),
		},
		window:        s.Int("window"),
		answerWithin:  s.Duration("response_timeout"),
		silenceBefore: s.Duration("enquire_link"),
		receiptIDs:    s.Text("receipt_ids"),
	}
	host, port, err := net.SplitHostPort(cfg.addr)
	if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
		return config{}, &connectors.SettingError{Key: "addr", Reason: "must be host:port, such as smsc.example.com:2775"}
	}
	for _, f := range [...]struct {
		key, value string
		limit      int
	}{
		{"system_id", cfg.bind.SystemID, 15}, {"system_type", cfg.bind.SystemType, 12}, {"password", cfg.bind.Password, 64},
	} {
		if len(f.value) > f.limit {
			reason := "is longer than " + strconv.Itoa(f.limit) + " characters"
			return config{}, &connectors.SettingError{Key: f.key, Reason: reason}
		}
	}
	if cfg.bind.Check() != nil {
		return config{}, &connectors.SettingError{Key: "system_id", Reason: "or another setting of the bind holds a NUL"}
	}
	switch {
	case cfg.window < 1 || cfg.window > maxWindow:
		return config{}, &connectors.SettingError{Key: "window", Reason: "must be 1–10000"}
	case s.Int("max_binds") < 0 || s.Int("max_binds") > maxBinds:
		return config{}, &connectors.SettingError{Key: "max_binds", Reason: "must be 0–1000"}
	case cfg.answerWithin < time.Second || cfg.answerWithin > 5*time.Minute:
		return config{}, &connectors.SettingError{Key: "response_timeout", Reason: "must be 1s–5m"}
	case cfg.silenceBefore < time.Second || cfg.silenceBefore > time.Hour:
		return config{}, &connectors.SettingError{Key: "enquire_link", Reason: "must be 1s–1h"}
	case cfg.receiptIDs != "auto" && cfg.receiptIDs != "dec" && cfg.receiptIDs != "hex":
		return config{}, &connectors.SettingError{Key: "receipt_ids", Reason: "must be auto, dec or hex"}
	}
	if cfg.submit, err = readSubmit(s); err != nil {
		return config{}, err
	}
	if s.Bool("tls") {
		if cfg.tls, err = readTLS(s, host); err != nil {
			return config{}, err
		}
	}
	return cfg, nil
}

func readTLS(s connectors.Settings, host string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if name := s.Text("tls_server_name"); name != "" {
		t.ServerName = name
	}
	if pem := s.Text("tls_ca"); pem != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, &connectors.SettingError{Key: "tls_ca", Reason: "holds no PEM certificate"}
		}
	}
	return t, nil
}

func readSubmit(s connectors.Settings) (submitConfig, error) {
	c := submitConfig{
		from: s.Text("from"), serviceType: s.Text("service_type"),
		long: s.Text("long_messages"), validity: s.Text("validity"),
	}
	if s.Bool("registered_delivery") {
		c.receipt = 1
	}
	for _, f := range [...]struct {
		key string
		to  *int
	}{{"source_ton", &c.sourceTON}, {"source_npi", &c.sourceNPI}, {"dest_ton", &c.destTON}, {"dest_npi", &c.destNPI}} {
		*f.to = -1
		if s.Text(f.key) == "" {
			continue
		}
		if *f.to = s.Int(f.key); *f.to > 255 {
			return c, &connectors.SettingError{Key: f.key, Reason: "must be 0–255"}
		}
	}
	switch {
	case len(c.serviceType) > 5:
		return c, &connectors.SettingError{Key: "service_type", Reason: "is longer than 5 characters"}
	case c.long != "udh" && c.long != "udh16" && c.long != "payload":
		return c, &connectors.SettingError{Key: "long_messages", Reason: "must be udh, udh16 or payload"}
	case c.validity != "relative" && c.validity != "absolute" && c.validity != "none":
		return c, &connectors.SettingError{Key: "validity", Reason: "must be relative, absolute or none"}
	}
	if _, err := c.source(c.from); err != nil {
		reason := "must be +number, a short code or up to 11 letters and digits"
		return c, &connectors.SettingError{Key: "from", Reason: reason}
	}
	return c, nil
}
