package smtp

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
)

func TestSettings(t *testing.T) {
	k := Kind()
	for _, tt := range []struct {
		key, value string
		wrong      string // the key that is named; "" = good
	}{
		{"addr", "smtp.example.com", "addr"},
		{"addr", "smtp.example.com:0", "addr"},
		{"addr", "smtp.example.com:smtp", "addr"},
		{"addr", "smtp.example.com:70000", "addr"},
		{"addr", ":25", "addr"},
		{"addr", "[::1]:25", ""},
		{"from", "nobody", "from"},
		{"from", "a@b.c, d@e.f", "from"},
		{"from", "a@b.c\r\nBcc: x@y.z", "from"},
		{"from", `"a> x"@b.c`, "from"},
		{"hello", "relay client", "hello"},
		{"hello", "[192.0.2.1]", ""},
		{"hello", "[IPv6:2001:db8::1]", ""},
		{"hello", "a.b\r\nMAIL", "hello"},
		{"message_id_domain", "x>y", "message_id_domain"},
		{"message_id_domain", "mail.bücher.test", ""},
		{"auth", "ntlm", "auth"},
		{"auth", "plain", "username"},
		{"username", "a\r\nb", "username"},
		{"password", "secret", "username"},
		{"tls", "maybe", "tls"},
		{"ca_cert", "no PEM", "ca_cert"},
		{"concurrency", "0", "concurrency"},
		{"concurrency", "1001", "concurrency"},
		{"max_messages", "0", "max_messages"},
		{"timeout", "0s", "timeout"},
		{"command_timeout", "0s", "command_timeout"},
		{"idle_timeout", "0s", "idle_timeout"},
		{"list_unsubscribe", "https://acme.test/u", "list_unsubscribe"},
		{"list_unsubscribe", "mailto:leave@acme.test?subject=leave", ""},
		{"list_unsubscribe", "mailto:leave@acme.test>\r\nX: y", "list_unsubscribe"},
	} {
		given := map[string]string{"addr": "smtp.example.com:587", "from": "news@acme.test"}
		maps.Copy(given, map[string]string{tt.key: tt.value})
		s, err := k.Validate(given)
		require.NoError(t, err)
		_, err = k.Open(&connectors.Account{Settings: s})
		if tt.wrong == "" {
			require.NoError(t, err, "%s=%q", tt.key, tt.value)
			continue
		}
		var se *connectors.SettingError
		require.ErrorAs(t, err, &se, "%s=%q", tt.key, tt.value)
		require.Equal(t, tt.wrong, se.Key)
	}
}

func TestSettingsAreFilledIn(t *testing.T) {
	c, _ := openWith(t, "smtp.example.com:587", nil)
	require.Equal(t, "acme.test", c.cfg.hello)
	require.Equal(t, "acme.test", c.cfg.idDomain)
	require.Equal(t, "smtp.example.com", c.cfg.tls.ServerName)
	require.Equal(t, defaultConcurrency, c.cfg.concurrency)
	require.Equal(t, defaultTimeout, c.cfg.timeout)
}
