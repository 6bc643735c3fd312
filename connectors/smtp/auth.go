package smtp

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"net"
	"slices"
)

// login proves who we are (RFC 4954). A password goes in clear only over TLS or to this machine; CRAM-MD5 does not show
// it and may go anywhere.
func (c *connector) login(ctx context.Context, cn *conn) error {
	if c.cfg.username == "" || c.cfg.auth == authNone {
		return nil
	}
	private := cn.secure || isLoopback(cn.nc.RemoteAddr())
	mechanism := c.mechanism(cn.ext.auth, private)
	switch mechanism {
	case "":
		if !private {
			return down("tls_required", "the relay offers no TLS, and a password does not go in clear")
		}
		return down("auth_unsupported", "the relay offers no log-in that the account can use")
	case authPlain:
		return c.expect(ctx, cn, "AUTH PLAIN "+encode64("\x00"+c.cfg.username+"\x00"+c.cfg.password), 235)
	case authLogin:
		if err := c.expect(ctx, cn, "AUTH LOGIN", 334); err != nil {
			return err
		}
		if err := c.expect(ctx, cn, encode64(c.cfg.username), 334); err != nil {
			return err
		}
		return c.expect(ctx, cn, encode64(c.cfg.password), 235)
	}
	r, err := c.ask(ctx, cn, "AUTH CRAM-MD5") // RFC 2195
	if err != nil {
		return err
	}
	challenge, derr := base64.StdEncoding.DecodeString(r.text)
	if r.code != 334 || derr != nil {
		return &refused{atConnect, r}
	}
	mac := hmac.New(md5.New, []byte(c.cfg.password))
	mac.Write(challenge)
	return c.expect(ctx, cn, encode64(c.cfg.username+" "+hex.EncodeToString(mac.Sum(nil))), 235)
}

// mechanism chooses among what the relay offers; "" when nothing fits.
func (c *connector) mechanism(offered []string, private bool) string {
	for _, m := range []struct {
		name, setting string
		clear         bool
	}{{"PLAIN", authPlain, true}, {"LOGIN", authLogin, true}, {"CRAM-MD5", authCRAMMD5, false}} {
		if (c.cfg.auth == authAuto || c.cfg.auth == m.setting) && (private || !m.clear) && slices.Contains(offered, m.name) {
			return m.setting
		}
	}
	return ""
}

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
