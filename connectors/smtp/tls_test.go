package smtp

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/simulator"
)

// certificate makes a certificate for relay.test and its PEM.
func certificate(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.test"}, DNSNames: []string{"relay.test"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestStartTLS(t *testing.T) {
	cert, ca := certificate(t)
	with := startSim(t, simulator.Options{Password: "secret", TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}})
	without := startSim(t, simulator.Options{Password: "secret"})
	trusted := map[string]string{"server_name": "relay.test", "ca_cert": ca}
	for _, tt := range []struct {
		name  string
		sim   *simulator.Sim
		given map[string]string
		code  string // "" = works
	}{
		{"offered", with, trusted, ""},
		{"offered, not wanted", with, map[string]string{"tls": "none"}, ""},
		{"offered, required", with, map[string]string{"server_name": "relay.test", "ca_cert": ca, "tls": "require_starttls"}, ""},
		{"wrong name", with, map[string]string{"ca_cert": ca, "server_name": "other.test"}, "tls"},
		{"unknown authority", with, map[string]string{"server_name": "relay.test"}, "tls"},
		{"not offered", without, nil, ""},
		{"not offered, required", without, map[string]string{"tls": "require_starttls"}, "tls_required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			given := map[string]string{"username": "acme", "password": "secret"}
			for k, v := range tt.given {
				given[k] = v
			}
			c, _ := openWith(t, tt.sim.SMTPAddr(), given)
			_, err := c.Send(context.Background(), message("anna@example.test"))
			if tt.code != "" {
				requireFailure(t, err, delivery.ConnectorDown, tt.code)
				requireFailure(t, c.Check(context.Background()), delivery.ConnectorDown, tt.code)
				return
			}
			require.NoError(t, err)
			require.NoError(t, c.Check(context.Background()))
		})
	}
}

func TestImplicitTLS(t *testing.T) {
	cert, ca := certificate(t)
	p := startPeer(t, func(w *wire) {
		tc := tls.Server(w.Conn, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer tc.Close()
		w = &wire{tc, bufio.NewReader(tc)}
		w.welcome("PIPELINING")
		for w.serve() != "" {
			continue
		}
	})
	c, _ := openWith(t, p.addr, map[string]string{"tls": "implicit", "server_name": "relay.test", "ca_cert": ca})
	for range 3 {
		_, err := c.Send(context.Background(), message("anna@example.test"))
		require.NoError(t, err)
	}
	require.Equal(t, 1, p.connections())
}

// What stands in clear behind the answer to STARTTLS is not from the peer that TLS proves.
func TestPlaintextBehindStartTLS(t *testing.T) {
	p := startPeer(t, func(w *wire) {
		w.welcome("STARTTLS")
		w.hear()
		w.say("220 go ahead", "250 injected")
		w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	f := requireFailure(t, err, delivery.ConnectorDown, "tls")
	require.Contains(t, f.Detail, "clear")
}

func TestStartTLSRefused(t *testing.T) {
	p := startPeer(t, func(w *wire) {
		w.welcome("STARTTLS")
		w.hear()
		w.say("454 4.7.0 no TLS today")
		w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.ConnectorDown, "454 4.7.0")
}

// far makes a connection look as if it led to another machine.
type far struct{ net.Conn }

func (far) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }

func TestLogin(t *testing.T) {
	const challenge = "<1896.697170952@relay.test>"
	mac := hmac.New(md5.New, []byte("secret"))
	mac.Write([]byte(challenge))
	plain := base64.StdEncoding.EncodeToString([]byte("\x00acme\x00secret"))
	cram := base64.StdEncoding.EncodeToString([]byte("acme " + hex.EncodeToString(mac.Sum(nil))))
	for _, tt := range []struct {
		name, auth, offer string
		far               bool
		says              []string // what the relay hears, up to the end of the log-in
		code              string
	}{
		{"auto, near", "auto", "AUTH PLAIN LOGIN CRAM-MD5", false, []string{"AUTH PLAIN " + plain}, ""},
		{"auto, far, in clear", "auto", "AUTH PLAIN LOGIN CRAM-MD5", true, []string{"AUTH CRAM-MD5", cram}, ""},
		{"auto, far, password only", "auto", "AUTH PLAIN LOGIN", true, nil, "tls_required"},
		{"plain, far", "plain", "AUTH PLAIN LOGIN CRAM-MD5", true, nil, "tls_required"},
		{"login", "login", "AUTH PLAIN LOGIN", false, []string{"AUTH LOGIN", "YWNtZQ==", "c2VjcmV0"}, ""},
		{"cram", "cram-md5", "auth plain cram-md5", false, []string{"AUTH CRAM-MD5", cram}, ""},
		{"nothing offered", "auto", "8BITMIME", false, nil, "auth_unsupported"},
		{"none", "none", "AUTH PLAIN", true, []string{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heard := make(chan string, 10)
			p := startPeer(t, func(w *wire) {
				defer close(heard)
				w.welcome(tt.offer)
				for {
					line := w.hear()
					if line == "" || line == "QUIT" {
						return
					}
					heard <- line
					switch {
					case line == "AUTH LOGIN", line == "YWNtZQ==":
						w.say("334 VXNlcm5hbWU6")
					case line == "AUTH CRAM-MD5":
						w.say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
					default:
						w.say("235 2.7.0 welcome")
					}
				}
			})
			c, _ := openWith(t, p.addr, map[string]string{"username": "acme", "password": "secret", "auth": tt.auth, "tls": "starttls"})
			if tt.far {
				dial := c.account.Dial
				c.account.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					nc, err := dial(ctx, network, addr)
					return far{nc}, err
				}
			}
			err := c.Check(context.Background())
			if tt.code != "" {
				requireFailure(t, err, delivery.ConnectorDown, tt.code)
			} else {
				require.NoError(t, err)
			}
			var says []string
			for line := range heard {
				says = append(says, line)
			}
			require.Equal(t, len(tt.says), len(says))
			for i := range says {
				require.Equal(t, tt.says[i], says[i])
			}
		})
	}
}
