package smpp

import (
	"errors"
	"time"
)

// ErrTime is returned for text that is not a time of §7.1.1.
var ErrTime = errors.New("smpp: not a time of the form YYMMDDhhmmsstnnp")

// maxRelative is the longest time that FormatRelative writes without months, whose length nobody agrees on.
const maxRelative = 31 * 24 * time.Hour

// FormatRelative writes d as a relative time (§7.1.1.2), to the second. It returns "", which leaves the choice to the
// centre, when d is under a second or above 31 days.
func FormatRelative(d time.Duration) string {
	if d < time.Second || d > maxRelative {
		return ""
	}
	s := int(d / time.Second)
	b := make([]byte, 0, 16)
	b = append(b, "0000"...) // years, months
	for _, n := range [...]int{s / 86400, s / 3600 % 24, s / 60 % 60, s % 60} {
		b = appendTwo(b, n)
	}
	return string(append(b, "000R"...))
}

// FormatAbsolute writes t as an absolute time in UTC (§7.1.1.1), to the tenth of a second. Only the years 2000–2099 can
// be written; others give "".
func FormatAbsolute(t time.Time) string {
	t = t.UTC()
	if t.Year() < 2000 || t.Year() > 2099 {
		return ""
	}
	b := make([]byte, 0, 16)
	for _, n := range [...]int{t.Year() % 100, int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
		b = appendTwo(b, n)
	}
	b = append(b, byte('0'+t.Nanosecond()/1e8))
	return string(append(b, "00+"...))
}

// ParseTime reads an absolute or relative time; a relative one counts from now, its months and years by the calendar.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if len(s) != 16 {
		return time.Time{}, ErrTime
	}
	var n [6]int
	for i := range n {
		v, ok := twoDigits(s[2*i:])
		if !ok {
			return time.Time{}, ErrTime
		}
		n[i] = v
	}
	quarters, ok := twoDigits(s[13:])
	if !ok || s[12] < '0' || s[12] > '9' || quarters > 48 {
		return time.Time{}, ErrTime
	}
	tenth := time.Duration(s[12]-'0') * 100 * time.Millisecond
	switch s[15] {
	case 'R':
		rest := time.Duration(n[3])*time.Hour + time.Duration(n[4])*time.Minute + time.Duration(n[5])*time.Second
		return now.AddDate(n[0], n[1], n[2]).Add(rest), nil
	case '+', '-':
		t := time.Date(2000+n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], int(tenth), time.UTC)
		if int(t.Month()) != n[1] || t.Day() != n[2] || t.Hour() != n[3] || t.Minute() != n[4] || t.Second() != n[5] {
			return time.Time{}, ErrTime // a thirteenth month, 30 February, 24:00
		}
		offset := time.Duration(quarters) * 15 * time.Minute
		if s[15] == '+' {
			offset = -offset // local time is ahead of UTC
		}
		return t.Add(offset), nil
	}
	return time.Time{}, ErrTime
}

func appendTwo(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

func twoDigits(s string) (int, bool) {
	if len(s) < 2 || s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	return int(s[0]-'0')*10 + int(s[1]-'0'), true
}
