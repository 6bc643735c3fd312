package recipient

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxURL is the longest URL that is taken, in bytes, before and after normalising.
const maxURL = 2048

func badURL(rule string) (string, error) { return "", &Invalid{CodeURL, rule} }

// URL normalises the target of a webhook: absolute, http or https, with a host and without user information. Scheme and
// host are lower-cased, the host is written in A-labels, a fragment (which is never sent, RFC 9110 §4.2.5) is dropped.
// Whether the host may be reached is decided where the connection is made.
func URL(raw string) (string, error) {
	s := strings.Trim(raw, " \t")
	if len(s) > maxURL {
		return badURL("too long: a URL has at most 2,048 characters")
	}
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] == 0x7f {
			return badURL("spaces and control characters are not allowed")
		}
		if s[i] == '\\' {
			return badURL("a URL has no backslashes")
		}
	}
	u, err := url.Parse(s)
	if err != nil { // its text repeats the URL, which may hold a secret
		return badURL("this is not a URL: use the form https://host/path")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return badURL("the scheme must be http or https")
	case u.Opaque != "" || u.Host == "" || u.Hostname() == "":
		return badURL("the host is missing: use the form https://host/path")
	case u.User != nil:
		return badURL("user names and passwords in a URL are not taken: sign or use a header")
	}
	host, rule := urlHost(u)
	if rule != "" {
		return badURL(rule)
	}
	u.Host = host
	u.Fragment, u.RawFragment = "", ""
	out := u.String()
	if len(out) > maxURL {
		return badURL("too long: a URL has at most 2,048 characters")
	}
	return out, nil
}

// urlHost returns the normalised host with its port.
func urlHost(u *url.URL) (hostport, rule string) {
	name, port := u.Hostname(), u.Port()
	if strings.HasPrefix(u.Host, "[") {
		ip, err := netip.ParseAddr(name)
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", "the host is not a valid IPv6 address"
		}
		name = "[" + ip.String() + "]"
	} else {
		host, rule := hostname(strings.TrimSuffix(name, "."))
		if rule != "" {
			return "", rule
		}
		// A name that ends in a number is an IPv4 address to a browser (WHATWG URL §3.5) and to some resolvers: 0x7f.1 and
		// 2130706433 both mean 127.0.0.1. Only the plain form is taken, so that what is checked is what is dialled.
		last := host[strings.LastIndexByte(host, '.')+1:]
		if allDigits(last) || strings.HasPrefix(last, "0x") {
			if ip, err := netip.ParseAddr(host); err != nil || !ip.Is4() {
				return "", "write an IPv4 address as four decimal numbers"
			}
		}
		name = host
	}
	if port == "" {
		return name, ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "the port must be 1 to 65535"
	}
	return name + ":" + port, ""
}
