package smpp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/smpp"
	"github.com/msgctl/msgctl/delivery"
	wire "github.com/msgctl/msgctl/smpp"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	kind := smpp.Kind()
	for _, tc := range []struct{ key, value string }{
		{"addr", "smsc.example.com"}, {"addr", ":2775"}, {"addr", "smsc.example.com:0"}, {"addr", "a:b:c"},
		{"system_id", strings.Repeat("x", 16)}, {"password", strings.Repeat("x", 65)}, {"system_type", strings.Repeat("x", 13)},
		{"window", "0"}, {"window", "10001"}, {"response_timeout", "10ms"}, {"enquire_link", "0s"}, {"receipt_ids", "octal"},
		{"long_messages", "no"}, {"validity", "ever"}, {"from", "TwelveLetter"}, {"source_ton", "256"}, {"service_type", "toolong"},
	} {
		t.Run(tc.key+"="+tc.value, func(t *testing.T) {
			t.Parallel()
			_, err := kind.Open(account(t, map[string]string{tc.key: tc.value}))
			var setting *connectors.SettingError
			require.ErrorAs(t, err, &setting)
			require.Equal(t, tc.key, setting.Key)
		})
	}
	_, err := kind.Open(account(t, map[string]string{"tls": "true", "tls_ca": "nonsense"}))
	require.ErrorContains(t, err, "tls_ca")
	_, err = kind.Open(account(t, map[string]string{"system_id": "a\x00b"}))
	require.Error(t, err)
	password, _ := kind.Setting("password")
	require.True(t, password.Secret)
	connectors.NewRegistry(kind)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"smsc.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serveBind(nc)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-served
	})
	for _, tc := range []struct {
		name     string
		settings map[string]string
		code     string
	}{
		{"trusted", map[string]string{"tls_ca": ca, "tls_server_name": "smsc.test"}, ""},
		{"unknown authority", map[string]string{"tls_server_name": "smsc.test"}, "tls_failed"},
		{"another name", map[string]string{"tls_ca": ca}, "tls_failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.settings["tls"], tc.settings["addr"] = "true", ln.Addr().String()
			kind := smpp.Kind()
			c, err := kind.Open(account(t, tc.settings))
			require.NoError(t, err)
			err = c.(connectors.Checker).Check(t.Context())
			if tc.code == "" {
				require.NoError(t, err)
				return
			}
			f := failure(t, err)
			require.Equal(t, delivery.ConnectorDown, f.Class)
			require.Equal(t, tc.code, f.Code)
		})
	}
}

// serveBind answers everything with ESME_ROK until the connection ends.
func serveBind(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	for r := wire.NewReader(nc); ; {
		h, _, err := r.Next()
		if err != nil {
			return
		}
		_, _ = nc.Write(wire.Header{Command: h.Command.Resp(), Sequence: h.Sequence}.Append(nil))
	}
}
