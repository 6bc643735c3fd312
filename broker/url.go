package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config is where RabbitMQ is and how it is spoken to.
type config struct {
	addr      string      // host:port
	shown     string      // the URL without its password
	tls       *tls.Config // nil = in clear
	user      string
	password  string
	vhost     string
	prefetch  int
	redeliver int
	classic   bool // queues
	node      string
	now       func() time.Time
	declaring chan struct{} // whoever declares a queue holds its one place

	dialWait    time.Duration // for a connection to be ready: TCP, TLS, login, channel
	confirmWait time.Duration // for one Publish, and for one request to the server
	closeWait   time.Duration // for a farewell
	backoff     time.Duration // between attempts at first; it doubles
	backoffMax  time.Duration
	renew       time.Duration // how long a subscription hears nothing before it asks anew
}

// guest is the user that RabbitMQ has from the start; it may log in from the same host only.
const guest = "guest"

// parse reads an amqp URL. No error repeats the password.
func parse(u *url.URL) (*config, error) {
	switch {
	case u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("no host: write %s://user:password@host/vhost", u.Scheme)
	case u.Fragment != "":
		return nil, errors.New("a # ends the URL: write it as %23")
	case u.User == nil && strings.Contains(u.Path, "@"): // the rest of a password that holds a slash
		return nil, errors.New("an @ in the vhost: write / in a password as %2F, @ in a vhost as %40")
	}
	c := &config{
		shown: redacted(u), user: guest, password: guest, vhost: "/", prefetch: 16, redeliver: 1, now: time.Now,
		declaring: make(chan struct{}, 1),
		dialWait:  5 * time.Second, confirmWait: 5 * time.Second, closeWait: 2 * time.Second,
		backoff: 100 * time.Millisecond, backoffMax: 10 * time.Second, renew: hintTTL,
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"amqp": "5672", "amqps": "5671"}[u.Scheme]
	}
	c.addr = net.JoinHostPort(u.Hostname(), port)
	if u.User != nil {
		c.user = u.User.Username()
		c.password, _ = u.User.Password()
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		c.vhost = path
	}
	if u.Scheme == "amqps" {
		c.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	return c, c.parameters(u)
}

func (c *config) parameters(u *url.URL) error {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("what follows the ? cannot be read")
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		switch name {
		case "prefetch":
			err = number(q, name, 1, 1000, &c.prefetch)
		case "redeliver":
			err = number(q, name, 0, deliveryLimit, &c.redeliver)
		case "queues":
			if c.classic = q.Get(name) == "classic"; !c.classic && q.Get(name) != "quorum" {
				err = fmt.Errorf("queues=%s: there are quorum and classic", q.Get(name))
			}
		case "cacert", "cert", "key":
			if c.tls == nil {
				err = fmt.Errorf("%s means nothing in clear: use amqps://", name)
			}
		default:
			if strings.ContainsAny(name, ":/@") { // a part of another URL, perhaps with a password
				name = "…"
			}
			err = fmt.Errorf("unknown parameter %q: there are prefetch, redeliver, queues, cacert, cert and key", name)
		}
		if err == nil && len(q[name]) > 1 {
			err = fmt.Errorf("%s is there twice", name)
		}
		if err != nil {
			return err
		}
	}
	if file := q.Get("cacert"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("cacert: %w", err)
		}
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("cacert: %s holds no PEM certificate", file)
		}
	}
	if cert, key := q.Get("cert"), q.Get("key"); cert != "" || key != "" {
		if cert == "" || key == "" {
			return errors.New("cert and key go together")
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("cert and key: %w", err)
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func number(q url.Values, name string, least, most int, to *int) error {
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < least || n > most {
		return fmt.Errorf("%s=%s: it is a number from %d to %d", name, q.Get(name), least, most)
	}
	*to = n
	return nil
}

// redacted is u for people: without password and parameters.
func redacted(u *url.URL) string {
	clean := url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: u.Path}
	return clean.Redacted()
}

// exposed reports whether the password crosses a network in clear.
func (c *config) exposed() bool {
	host, _, _ := net.SplitHostPort(c.addr)
	ip := net.ParseIP(host)
	return c.tls == nil && host != "localhost" && (ip == nil || !ip.IsLoopback())
}
