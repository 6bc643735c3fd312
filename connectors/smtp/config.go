package smtp

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/msgctl/msgctl/connectors"
)

const (
	defaultConcurrency = 20
	defaultTimeout     = 2 * time.Minute
)

// The values of the setting "tls".
const (
	tlsNone     = "none"
	tlsStart    = "starttls"
	tlsRequire  = "require_starttls"
	tlsImplicit = "implicit"
)

// The values of the setting "auth".
const (
	authAuto    = "auto"
	authNone    = "none"
	authPlain   = "plain"
	authLogin   = "login"
	authCRAMMD5 = "cram-md5"
)

func settings() []connectors.Setting {
	return []connectors.Setting{
		{Key: "addr", Type: connectors.Text, Required: true,
			Doc: "The relay as host:port, such as smtp.example.com:587."},
		{Key: "from", Type: connectors.Text, Required: true, Doc: "The sender, such as Acme <news@acme.example>."},
		{Key: "username", Type: connectors.Text, Doc: "The user name to log in with; empty sends without a log-in."},
		{Key: "password", Type: connectors.Text, Secret: true, Doc: "The password of the user name."},
		{Key: "auth", Type: connectors.Text, Default: authAuto,
			Doc: "How to log in: auto, plain, login, cram-md5 or none."},
		{Key: "tls", Type: connectors.Text, Default: tlsStart,
			Doc: "none, starttls (when offered), require_starttls or implicit; a password never goes in clear beyond loopback."},
		{Key: "server_name", Type: connectors.Text,
			Doc: "The name in the relay's certificate; empty = the host of addr."},
		{Key: "ca_cert", Type: connectors.Text,
			Doc: "PEM certificates to trust instead of the system's, for a private relay."},
		{Key: "hello", Type: connectors.Text,
			Doc: "The host name to introduce ourselves with; empty = the domain of from."},
		{Key: "concurrency", Type: connectors.Number, Default: strconv.Itoa(defaultConcurrency),
			Doc: "Connections at most, 1 to 1000."},
		{Key: "timeout", Type: connectors.Duration, Default: defaultTimeout.String(),
			Doc: "The longest one hand-off may take."},
		{Key: "command_timeout", Type: connectors.Duration, Default: "30s",
			Doc: "The longest wait to connect or for the reply to a command; behind the final dot timeout alone counts."},
		{Key: "idle_timeout", Type: connectors.Duration, Default: "30s",
			Doc: "How long an unused connection stays open."},
		{Key: "max_messages", Type: connectors.Number, Default: "1000",
			Doc: "Messages on one connection before it is replaced."},
		{Key: "dkim_domain", Type: connectors.Text, Doc: "The domain to sign for with DKIM; empty = the relay signs."},
		{Key: "dkim_selector", Type: connectors.Text, Doc: "The selector of the DKIM key in DNS."},
		{Key: "dkim_key", Type: connectors.Text, Secret: true,
			Doc: "The private DKIM key in PEM: RSA of 1024 bits or more, or Ed25519."},
		{Key: "list_unsubscribe", Type: connectors.Text,
			Doc: "A mailto: address for List-Unsubscribe, beside the one-click link, such as mailto:leave@acme.example."},
		{Key: "message_id_domain", Type: connectors.Text, Doc: "The domain of Message-IDs; empty = the domain of from."},
	}
}

// config is an account's settings, read once. It is not changed after that.
type config struct {
	addr, hello        string
	username, password string
	auth, tlsMode      string
	tls                *tls.Config
	from               mailbox
	fromHeader         string // the From header field's value, encoded
	idDomain           string
	listUnsubscribe    string // mailto:…
	concurrency        int
	maxMessages        int
	timeout            time.Duration
	commandTimeout     time.Duration
	idleTimeout        time.Duration
	dkim               *dkim.SignOptions // nil = the relay signs
}

func wrong(key, format string, args ...any) error {
	return &connectors.SettingError{Key: key, Reason: fmt.Sprintf(format, args...)}
}

// readConfig checks the settings. The error is a *connectors.SettingError and holds no secret.
func readConfig(s connectors.Settings) (*config, error) {
	c := &config{
		addr: s.Text("addr"), hello: s.Text("hello"), idDomain: s.Text("message_id_domain"),
		username: s.Text("username"), password: s.Text("password"), auth: s.Text("auth"), tlsMode: s.Text("tls"),
		listUnsubscribe: s.Text("list_unsubscribe"), concurrency: s.Int("concurrency"), maxMessages: s.Int("max_messages"),
		timeout: s.Duration("timeout"), commandTimeout: s.Duration("command_timeout"),
		idleTimeout: s.Duration("idle_timeout"),
	}
	host, port, err := net.SplitHostPort(c.addr)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
		return nil, wrong("addr", "must be host:port, such as smtp.example.com:587")
	}
	if c.from, err = parseMailbox(s.Text("from")); err != nil {
		return nil, wrong("from", "must be a mailbox, such as Acme <news@acme.example>: %v", err)
	}
	c.fromHeader = c.from.header()
	if !isAddressLiteral(c.hello) {
		if c.hello, err = asciiDomain(cmp.Or(c.hello, c.from.domain)); err != nil {
			return nil, wrong("hello", "must be a host name: %v", err)
		}
	}
	if c.idDomain, err = asciiDomain(cmp.Or(c.idDomain, c.from.domain)); err != nil {
		return nil, wrong("message_id_domain", "must be a domain name: %v", err)
	}
	if c.concurrency < 1 || c.concurrency > 1000 {
		return nil, wrong("concurrency", "must be 1 to 1000")
	}
	if c.maxMessages < 1 {
		return nil, wrong("max_messages", "must be 1 or more")
	}
	for _, key := range []string{"timeout", "command_timeout", "idle_timeout"} {
		if s.Duration(key) <= 0 {
			return nil, wrong(key, "must be longer than 0")
		}
	}
	if err := c.checkLogin(); err != nil {
		return nil, err
	}
	if err := c.readTLS(host, s); err != nil {
		return nil, err
	}
	if u := c.listUnsubscribe; u != "" {
		if p, err := url.Parse(u); err != nil || p.Scheme != "mailto" || !strings.Contains(p.Opaque, "@") || !isListURL(u) {
			return nil, wrong("list_unsubscribe", "must be a mailto: address, such as mailto:leave@acme.example")
		}
	}
	if c.dkim, err = readDKIM(s); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *config) checkLogin() error {
	switch c.auth {
	case authAuto, authNone:
	case authPlain, authLogin, authCRAMMD5:
		if c.username == "" {
			return wrong("username", "is required when auth is %s", c.auth)
		}
	default:
		return wrong("auth", "must be auto, plain, login, cram-md5 or none")
	}
	if !isLoginText(c.username) {
		return wrong("username", "must be at most 1024 bytes on one line")
	}
	if !isLoginText(c.password) {
		return wrong("password", "must be at most 1024 bytes on one line")
	}
	if c.password != "" && c.username == "" {
		return wrong("username", "is required with a password")
	}
	return nil
}

func isLoginText(s string) bool { return len(s) <= 1024 && !strings.ContainsAny(s, "\x00\r\n") }

func (c *config) readTLS(host string, s connectors.Settings) error {
	switch c.tlsMode {
	case tlsNone, tlsStart, tlsRequire, tlsImplicit:
	default:
		return wrong("tls", "must be none, starttls, require_starttls or implicit")
	}
	c.tls = &tls.Config{
		ServerName:         s.Text("server_name"),
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(c.concurrency),
	}
	if c.tls.ServerName == "" {
		c.tls.ServerName = host
	}
	if pem := s.Text("ca_cert"); pem != "" {
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return wrong("ca_cert", "holds no certificate in PEM")
		}
	}
	return nil
}

// isAddressLiteral reports whether s is an address literal as EHLO allows it (RFC 5321 §4.1.3): [192.0.2.1].
func isAddressLiteral(s string) bool {
	if len(s) < 3 || s[0] != '[' || s[len(s)-1] != ']' {
		return false
	}
	return net.ParseIP(strings.TrimPrefix(s[1:len(s)-1], "IPv6:")) != nil
}
