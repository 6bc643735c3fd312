package smtp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
)

func pemKey(t testing.TB, kind string, der []byte, err error) string {
	t.Helper()
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestDKIM(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	rsaPublic, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	require.NoError(t, err)
	rsa8, err8 := x509.MarshalPKCS8PrivateKey(rsaKey)
	ed8, errEd := x509.MarshalPKCS8PrivateKey(edKey)
	rsaRecord := "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(rsaPublic)
	for _, tt := range []struct{ name, key, record string }{
		{"RSA, PKCS #1", pemKey(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil), rsaRecord},
		{"RSA, PKCS #8", pemKey(t, "PRIVATE KEY", rsa8, err8), rsaRecord},
		{"Ed25519", pemKey(t, "PRIVATE KEY", ed8, errEd), "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(edPublic)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			received := make(chan string, 1)
			p := startPeer(t, func(w *wire) {
				w.welcome("PIPELINING", "8BITMIME")
				received <- w.serve()
				w.hear()
			})
			c, _ := openWith(t, p.addr, map[string]string{"dkim_domain": "acme.test", "dkim_selector": "s1", "dkim_key": tt.key})
			m := message("anna@example.test")
			m.Content.Subject = strings.Repeat("Zażółć gęślą jaźń ", 10)
			m.Content.Text = "zażółć\n.\n..\ntrailing  \n\n\n"
			m.Content.HTML = "<p>\n.dot\n"
			m.Content.UnsubscribeURL = "https://acme.test/u/1"
			_, err := c.Send(t.Context(), m)
			require.NoError(t, err)
			msg := strings.ReplaceAll(<-received, "\r\n..", "\r\n.") // as a server takes the stuffed dots out
			require.True(t, isASCII(msg), "signed mail is 7bit")

			verify := func(msg string) []*dkim.Verification {
				v, err := dkim.VerifyWithOptions(strings.NewReader(msg), &dkim.VerifyOptions{LookupTXT: func(domain string) ([]string, error) {
					require.Equal(t, "s1._domainkey.acme.test", domain)
					return []string{tt.record}, nil
				}})
				require.NoError(t, err)
				require.Len(t, v, 1)
				return v
			}
			v := verify(msg)
			require.NoError(t, v[0].Err)
			for _, want := range []string{"From", "To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post"} {
				require.Contains(t, v[0].HeaderKeys, want)
			}
			require.Error(t, verify(strings.Replace(msg, "https://acme.test/u/1", "https://evil.test/u/1", 1))[0].Err)
			require.Error(t, verify(strings.Replace(msg, "From: ", "Reply-To: x@evil.test\r\nFrom: ", 1))[0].Err, "a field added on the way")
		})
	}
}

func TestDKIMSettings(t *testing.T) {
	weak := testWeakKey(t)
	for name, tt := range map[string]struct {
		given map[string]string
		key   string
	}{
		"alone":    {map[string]string{"dkim_domain": "acme.test"}, "dkim_selector"},
		"no PEM":   {map[string]string{"dkim_domain": "acme.test", "dkim_selector": "s1", "dkim_key": "hunter2"}, "dkim_key"},
		"no key":   {map[string]string{"dkim_domain": "acme.test", "dkim_selector": "s1", "dkim_key": "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n"}, "dkim_key"},
		"weak":     {map[string]string{"dkim_domain": "acme.test", "dkim_selector": "s1", "dkim_key": weak}, "dkim_key"},
		"selector": {map[string]string{"dkim_domain": "acme.test", "dkim_selector": "s 1; x", "dkim_key": weak}, "dkim_selector"},
		"domain":   {map[string]string{"dkim_domain": "acme test", "dkim_selector": "s1", "dkim_key": weak}, "dkim_domain"},
	} {
		_, err := readDKIM(connectors.Settings(tt.given))
		var se *connectors.SettingError
		require.ErrorAs(t, err, &se, name)
		require.Equal(t, tt.key, se.Key, name)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// testWeakKey is an RSA key of 512 bits.
func testWeakKey(t testing.TB) string {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 512)
	require.NoError(t, err)
	return pemKey(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil)
}

func BenchmarkSign(b *testing.B) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(b, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	c, _ := openWith(b, "127.0.0.1:25", map[string]string{"dkim_domain": "acme.test", "dkim_selector": "s1", "dkim_key": pemKey(b, "PRIVATE KEY", der, err)})
	m := article("anna@example.test")
	e, err := c.prepare(m)
	require.NoError(b, err)
	cn := &conn{}
	for b.Loop() {
		require.NoError(b, c.compose(cn, e, m))
	}
	require.True(b, bytes.HasPrefix(cn.msg, []byte("DKIM-Signature:")))
}
