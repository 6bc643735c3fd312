package egress

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// azureWire is Azure's host agent: a public address that answers only inside a virtual machine, with credentials
// (learn.microsoft.com, "What is IP address 168.63.129.16?").
var azureWire = netip.MustParsePrefix("168.63.129.16/32")

// metadata lists what AllowPrivate must not open although it lies in a private range: the metadata services of AWS over
// IPv6 (fd00:ec2::/32) and of Alibaba Cloud (100.100.100.200).
var metadata = []netip.Prefix{netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("100.100.100.200/32")}

// sharedSpace is the carrier-grade NAT range of RFC 6598, which netip does not count as private.
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// checkAddr refuses every address that is not a public unicast one, except what the policy opens. IPv4-mapped
// addresses count as the IPv4 address that the kernel will connect to. NAT64, 6to4, Teredo and IPv4-compatible forms
// carry an IPv4 address inside and are refused whole.
func (g *Guard) checkAddr(ip netip.Addr) error {
	if ip.Zone() != "" {
		return &BlockedError{BadAddress, "an address with a zone belongs to one link"}
	}
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback():
		if g.policy.AllowLoopback {
			return nil
		}
	case ip.IsPrivate() || sharedSpace.Contains(ip):
		if g.policy.AllowPrivate && !slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return nil
		}
	case g.public.SafeAddr(ip) == nil && !isatap(ip):
		return nil
	}
	return &BlockedError{BadAddress, ip.String() + " is not a public address"}
}

// isatap reports an interface identifier that carries an IPv4 address for a tunnel (RFC 5214 §6.1).
func isatap(ip netip.Addr) bool {
	if !ip.Is6() {
		return false
	}
	b := ip.As16()
	return (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

func (g *Guard) portAllowed(ip netip.Addr, port int) bool {
	if g.policy.AllowLoopback && ip.IsValid() && ip.Unmap().IsLoopback() {
		return true
	}
	return slices.Contains(g.ports, port)
}

func portError(port int, allowed []int) error {
	names := make([]string, len(allowed))
	for i, p := range allowed {
		names[i] = strconv.Itoa(p)
	}
	return &BlockedError{BadPort, "port " + strconv.Itoa(port) + " may not be used; allowed: " + strings.Join(names, ", ")}
}

// parseLooseIPv4 reads the forms that inet_aton(3) takes, as browsers and many HTTP libraries do: one to four parts,
// each decimal, octal with a leading 0 or hexadecimal with 0x, the last part filling the bytes that remain. number
// reports that the last label is a number, so that the host must be an address whether or not it can be read (WHATWG
// URL Standard, "ends in a number checker").
func parseLooseIPv4(host string) (ip netip.Addr, number, ok bool) {
	parts := strings.Split(host, ".")
	last := parts[len(parts)-1]
	if !loosePart(last) {
		return netip.Addr{}, false, false
	}
	if len(parts) > 4 {
		return netip.Addr{}, true, false
	}
	var v uint64
	for i, p := range parts {
		n, err := parseLoosePart(p)
		if err != nil {
			return netip.Addr{}, true, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, true, false
			}
			v = v<<8 | n
			continue
		}
		left := 8 * (5 - len(parts))
		if n >= 1<<left {
			return netip.Addr{}, true, false
		}
		v = v<<left | n
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true, true
}

func loosePart(s string) bool {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		return true
	}
	_, err := parseLoosePart(s)
	return err == nil
}

func parseLoosePart(s string) (uint64, error) {
	switch {
	case len(s) >= 2 && (s[:2] == "0x" || s[:2] == "0X"):
		if len(s) == 2 {
			return 0, nil
		}
		return strconv.ParseUint(s[2:], 16, 32)
	case len(s) > 1 && s[0] == '0':
		return strconv.ParseUint(s[1:], 8, 32)
	}
	return strconv.ParseUint(s, 10, 32)
}
