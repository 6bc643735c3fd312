package connectors

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

func kind() Kind {
	return Kind{
		Name: "k", Channel: delivery.SMS, Ambiguity: None,
		Settings: []Setting{
			{Key: "addr", Type: Text, Required: true, Doc: "host:port."},
			{Key: "window", Type: Number, Default: "50"},
			{Key: "tls", Type: Bool, Default: "false"},
			{Key: "timeout", Type: Duration},
			{Key: "base", Type: URL},
			{Key: "password", Type: Text, Secret: true},
		},
		Open: func(*Account) (Connector, error) { return nil, errors.ErrUnsupported },
	}
}

func TestValidate(t *testing.T) {
	k := kind()
	got, err := k.Validate(map[string]string{"addr": "a:1", "timeout": "1m", "tls": "true"})
	require.NoError(t, err)
	require.Equal(t, Settings{"addr": "a:1", "timeout": "1m", "tls": "true", "window": "50"}, got)
	require.Equal(t, 50, got.Int("window"))
	require.True(t, got.Bool("tls"))
	require.Equal(t, time.Minute, got.Duration("timeout"))
	require.Zero(t, got.Int("none"))
	require.Zero(t, got.Duration("none"))
	for _, bad := range []struct {
		given    map[string]string
		key, why string
	}{
		{nil, "addr", "is required"},
		{map[string]string{"addr": ""}, "addr", "is required"},
		{map[string]string{"addr": "a", "wndow": "1"}, "wndow", "is not a setting"},
		{map[string]string{"addr": "a", "window": "-1"}, "window", "whole number"},
		{map[string]string{"addr": "a", "window": "1e3"}, "window", "whole number"},
		{map[string]string{"addr": "a", "tls": "yes"}, "tls", "true or false"},
		{map[string]string{"addr": "a", "timeout": "5"}, "timeout", "duration"},
		{map[string]string{"addr": "a", "timeout": "-5s"}, "timeout", "duration"},
		{map[string]string{"addr": "a", "base": "ftp://x"}, "base", "http"},
		{map[string]string{"addr": "a", "base": "https://u:p@x"}, "base", "user name"},
		{map[string]string{"addr": string(make([]byte, 17<<10))}, "addr", "longer"},
	} {
		_, err := k.Validate(bad.given)
		var s *SettingError
		require.ErrorAs(t, err, &s)
		require.Equal(t, bad.key, s.Key)
		require.Contains(t, s.Reason, bad.why)
	}
}

func TestRegistry(t *testing.T) {
	r := NewRegistry(kind())
	k, ok := r.Kind("k")
	require.True(t, ok)
	require.Equal(t, "k", k.Name)
	_, ok = r.Kind("other")
	require.False(t, ok)
	require.Panics(t, func() { NewRegistry(kind(), kind()) }, "one name twice")
	bad := kind()
	bad.Open = nil
	require.Panics(t, func() { NewRegistry(bad) }, "incomplete")
}
