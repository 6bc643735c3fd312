package smtp

import "strings"

// appendLines writes s with every line end, CRLF, LF or CR alone, as CRLF, and one at its end. A bare CR or LF never
// leaves: relays disagree on whether it ends a line, and that is how a second message is smuggled in.
func appendLines(dst []byte, s string) []byte {
	for len(s) > 0 {
		line, rest := cutLine(s)
		dst = append(append(dst, line...), "\r\n"...)
		s = rest
	}
	return dst
}

// cutLine takes the first line off s.
func cutLine(s string) (line, rest string) {
	for i := range len(s) {
		switch s[i] {
		case '\n':
			return s[:i], s[i+1:]
		case '\r':
			return s[:i], strings.TrimPrefix(s[i+1:], "\n")
		}
	}
	return s, ""
}

// maxEncodedLine is the longest line of quoted-printable text, without CRLF (RFC 2045 §6.7, rule 5).
const maxEncodedLine = 76

// appendQuotedPrintable writes s as quoted-printable text (RFC 2045 §6.7). A dot at the start of a line is encoded as
// well, so that dot-stuffing has nothing to do and a broken relay nothing to break.
func appendQuotedPrintable(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for len(s) > 0 {
		var line string
		line, s = cutLine(s)
		col := 0
		for i := range len(line) {
			c := line[i]
			literal := c > ' ' && c < 0x7f && c != '=' && (c != '.' || col > 0) ||
				(c == ' ' || c == '\t') && i < len(line)-1
			width := 3
			if literal {
				width = 1
			}
			if room := maxEncodedLine - col; width > room || width == room && i < len(line)-1 {
				dst = append(dst, "=\r\n"...)
				col = 0
				if c == '.' {
					literal, width = false, 3
				}
			}
			if literal {
				dst = append(dst, c)
			} else {
				dst = append(dst, '=', hex[c>>4], hex[c&15])
			}
			col += width
		}
		dst = append(dst, "\r\n"...)
	}
	return dst
}
