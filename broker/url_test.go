package broker_test

import (
	"crypto/tls"
	"io"
	stdlog "log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/broker"
)

// TestBadURL checks that what is wrong with a URL is said, and that no part of a password is.
func TestBadURL(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, []byte("nothing"), 0o600))
	for url, says := range map[string]string{
		"kafka://u:secret@h/x":                     `unknown scheme "kafka"`,
		"amqp":                                     "unknown scheme",
		"::":                                       "cannot be read",
		"amqp://u:secret\x7f@h/":                   "cannot be read",
		"amqp://u:sec%ret@h/":                      "cannot be read",
		"amqp://u:secret#1@h/":                     "cannot be read",
		"amqp://u:007#secret@h/":                   "write it as %23",
		"amqp://u:007/secret@h/":                   "%2F",
		"amqp:u:secret@h":                          "no host",
		"amqp:///vhost":                            "no host",
		"amqp://:5672/":                            "no host",
		"amqp://u:secret@h/?prefech=3":             `unknown parameter "prefech"`,
		"amqp://u:secret@h/?amqp://u:secret@h":     "unknown parameter",
		"amqp://u:secret@h/?queues=mirrored":       "quorum and classic",
		"amqp://u:secret@h/?prefetch=0":            "from 1 to 1000",
		"amqp://u:secret@h/?prefetch=1001":         "from 1 to 1000",
		"amqp://u:secret@h/?prefetch=many":         "prefetch=many",
		"amqp://u:secret@h/?prefetch=":             "prefetch=",
		"amqp://u:secret@h/?prefetch=1&prefetch=2": "twice",
		"amqp://u:secret@h/?redeliver=21":          "from 0 to 20",
		"amqp://u:secret@h/?a=%zz":                 "follows the ?",
		"amqp://u:secret@h/?cacert=x":              "use amqps",
		"amqps://u:secret@h/?cacert=/no/such":      "/no/such",
		"amqps://u:secret@h/?cacert=" + empty:      "holds no PEM certificate",
		"amqps://u:secret@h/?cert=x":               "go together",
		"amqps://u:secret@h/?key=x":                "go together",
		"amqps://u:secret@h/?cert=/no&key=/no":     "cert and key",
	} {
		_, err := broker.Open(url, nil)
		require.ErrorContains(t, err, says, "%q", url)
		require.NotContains(t, err.Error(), "secret", "%q", url)
		require.NotContains(t, err.Error(), "007", "%q", url)
		require.True(t, strings.HasPrefix(err.Error(), "broker: "), "%v", err)
	}
}

// TestTLSRefused opens amqps against servers whose TLS does not hold. Each is a human's to put right, so Open fails.
func TestTLSRefused(t *testing.T) {
	web := httptest.NewUnstartedServer(nil) // any server with a certificate of an unknown authority
	web.Config.ErrorLog = silent()
	web.StartTLS()
	defer web.Close()
	_, err := broker.Open("amqps://u:secret@"+web.Listener.Addr().String()+"/", nil)
	require.ErrorContains(t, err, "unknown authority")
	require.NotContains(t, err.Error(), "secret")

	old := httptest.NewUnstartedServer(nil)
	old.Config.ErrorLog = silent()
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	_, err = broker.Open("amqps://u:secret@"+old.Listener.Addr().String()+"/", nil)
	require.ErrorContains(t, err, "protocol version")

	plain := server(t, func(c net.Conn) { _, _ = c.Write([]byte("AMQP\x00\x00\x09\x01")) })
	_, err = broker.Open("amqps://u:secret@"+plain+"/", nil)
	require.ErrorContains(t, err, "TLS")
}

func silent() *stdlog.Logger { return stdlog.New(io.Discard, "", 0) }

// server answers every connection with talk, and closes it.
func server(t *testing.T, talk func(net.Conn)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			talk(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}
