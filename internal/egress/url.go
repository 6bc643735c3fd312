package egress

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// maxURL bounds a URL that a person may enter, in bytes.
const maxURL = 2048

// CheckURL tells at once whether a URL that a person entered, such as a webhook endpoint, can never be allowed. The
// error is a *BlockedError. It looks nothing up: a name that resolves to a forbidden address is found at the dial.
func (g *Guard) CheckURL(raw string) error {
	if len(raw) > maxURL {
		return &BlockedError{BadHost, "the URL is longer than 2048 bytes"}
	}
	// A space or control character hides a second URL from one parser and shows it to another; so does a backslash, which
	// browsers read as a slash.
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return &BlockedError{BadHost, "the URL holds a space, a control character or a backslash"}
	}
	u, err := url.Parse(raw)
	if err != nil {
		if scheme, _, ok := strings.Cut(raw, ":"); ok && !g.schemeAllowed(strings.ToLower(scheme)) {
			return g.schemeError()
		}
		return &BlockedError{BadHost, "the URL cannot be read"}
	}
	if !g.schemeAllowed(u.Scheme) {
		return g.schemeError()
	}
	if u.Opaque != "" || u.Host == "" {
		return &BlockedError{BadHost, "the URL names no host"}
	}
	ip, err := g.checkHost(u.Hostname())
	if u.User != nil {
		return &BlockedError{BadUserinfo, "a user name or password in the URL is not allowed"}
	}
	if err != nil {
		return err
	}
	return g.checkPort(u, ip)
}

// checkParts refuses what shows in the URL of a request: the dial checks the rest.
func (g *Guard) checkParts(u *url.URL) error {
	switch {
	case !g.schemeAllowed(u.Scheme):
		return g.schemeError()
	case u.User != nil:
		return &BlockedError{BadUserinfo, "a user name or password in the URL is not allowed"}
	}
	return nil
}

func (g *Guard) schemeAllowed(scheme string) bool {
	return scheme == "https" || scheme == "http" && (g.policy.AllowHTTP || g.policy.AllowLoopback)
}

func (g *Guard) schemeError() error {
	if g.schemeAllowed("http") {
		return &BlockedError{BadScheme, "use https:// or http://"}
	}
	return &BlockedError{BadScheme, "use https://"}
}

func (g *Guard) checkPort(u *url.URL, ip netip.Addr) error {
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	if p := u.Port(); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			return &BlockedError{BadPort, "the port must be a number of 1 to 65535"}
		}
		port = n
	} else if strings.HasSuffix(u.Host, ":") {
		return &BlockedError{BadPort, "the port is empty"}
	}
	if port == 80 && u.Port() == "" && g.policy.AllowLoopback {
		return nil // the scheme was allowed, so its own port is
	}
	if !g.portAllowed(ip, port) {
		return portError(port, g.ports)
	}
	return nil
}

// localNames never lead to the internet: RFC 6761 §6.3, RFC 6762 §3, RFC 8375, RFC 9476 and the names that the internal
// DNS of cloud providers answers.
var localNames = [...]string{
	"localhost", "local", "internal", "localdomain", "lan", "intranet", "corp", "home", "private", "home.arpa", "invalid",
	"onion", "alt", "cluster.local",
}

// checkHost refuses hosts that cannot be public; it returns the address when the host is one.
func (g *Guard) checkHost(host string) (netip.Addr, error) {
	if host == "" {
		return netip.Addr{}, &BlockedError{BadHost, "the URL names no host"}
	}
	if strings.ContainsAny(host, ":%") {
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return netip.Addr{}, &BlockedError{BadHost, "the host is not a readable IPv6 address"}
		}
		return ip, g.checkAddr(ip)
	}
	// UTS 46 mapping first: ①②⑦.0.0.1 and 127。0。0。1 are 127.0.0.1 to a browser.
	name, err := idna.Lookup.ToASCII(host)
	if err != nil {
		// Underscores and empty labels are what ToASCII refuses most; nothing public needs them. An odd address may have
		// hidden behind such an error, so both say the same.
		return netip.Addr{}, &BlockedError{BadHost, "the host is not a valid internet name"}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip, g.checkAddr(ip)
	}
	if ip, number, ok := parseLooseIPv4(name); number {
		if ok {
			if err := g.checkAddr(ip); err != nil {
				return netip.Addr{}, err
			}
		}
		return netip.Addr{}, &BlockedError{BadHost, "write the address as four decimal numbers"}
	}
	if name == "localhost" && g.policy.AllowLoopback {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	for _, local := range localNames {
		if name == local || strings.HasSuffix(name, "."+local) {
			if g.policy.AllowPrivate && local != "localhost" {
				return netip.Addr{}, nil
			}
			return netip.Addr{}, &BlockedError{BadHost, "the name belongs to a local network"}
		}
	}
	if !strings.Contains(name, ".") && !g.policy.AllowPrivate {
		return netip.Addr{}, &BlockedError{BadHost, "the name has no domain"}
	}
	// RFC 1035 §2.3.4: labels of 1 to 63 octets, 255 in all with the root and the length octets.
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || len(name) > 253 {
			return netip.Addr{}, &BlockedError{BadHost, "the host is not a valid internet name"}
		}
	}
	return netip.Addr{}, nil
}
