package templates

import (
	"strconv"
	"strings"
	"time"
)

// dateLayouts are what the filter date reads from text. A time without a zone is UTC.
var dateLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", time.RFC1123Z, time.RFC1123, "2 January 2006", "2 Jan 2006",
	"January 2, 2006", "Jan 2, 2006",
}

// filterDate writes a time by a format of strftime.
func filterDate(r *run, f *call, in value, args []value) value {
	if in.isNil() || in.kind == kindText && in.s == "" {
		return value{}
	}
	t, ok := r.time(in)
	if !ok {
		r.fail(CodeType, "the input of %s is not a date such as 2026-03-01 or 2026-03-01T15:04:05Z", f.name)
		return value{}
	}
	format := r.text(args[0])
	if !r.memory(48 * len(format)) {
		return value{}
	}
	out, wrong := strftime(make([]byte, 0, 2*len(format)+16), t, format)
	if wrong != "" {
		r.fail(CodeType, "date has no %s", quoted(wrong))
		return value{}
	}
	return textValue(string(out))
}

func (r *run) time(v value) (time.Time, bool) {
	const lastSecond = 253402300799 // of the year 9999
	switch v.kind {
	case kindTime:
		return v.ref.(time.Time), true
	case kindInt:
		return time.Unix(v.n, 0).UTC(), v.n >= -62135596800 && v.n <= lastSecond
	case kindText:
		s := strings.TrimSpace(v.s)
		if len(s) > 64 || !r.step(len(dateLayouts)) {
			return time.Time{}, false
		}
		switch strings.ToLower(s) {
		case "now", "today":
			r.fail(CodeType, "a template has no clock: give the time as a variable")
			return time.Time{}, false
		}
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return r.time(intValue(n))
		}
		for _, layout := range dateLayouts {
			if t, err := time.Parse(layout, s); err == nil {
				return t, true
			}
		}
	}
	return time.Time{}, false
}

// strftime appends t by a format, or returns the directive that it does not know. Between % and the letter there may be
// one flag: - without padding, 0 with zeros, ^ in capitals.
func strftime(dst []byte, t time.Time, format string) ([]byte, string) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			dst = append(dst, format[i])
			continue
		}
		from := i
		i++
		flag := byte(0)
		if i < len(format) && strings.IndexByte("-0^", format[i]) >= 0 {
			flag = format[i]
			i++
		}
		if i >= len(format) {
			return dst, format[from:]
		}
		before := len(dst)
		ok := false
		if dst, ok = directive(dst, t, format[i], flag); !ok {
			return dst, strings.ToValidUTF8(format[from:i+1], "")
		}
		if flag == '^' {
			copy(dst[before:], strings.ToUpper(string(dst[before:])))
		}
	}
	return dst, ""
}

func directive(dst []byte, t time.Time, letter, flag byte) ([]byte, bool) {
	number := func(n, width int, pad byte) []byte {
		switch flag {
		case '-':
			width = 0
		case '0':
			pad = '0'
		}
		s := strconv.Itoa(n)
		for k := len(s); k < width; k++ {
			dst = append(dst, pad)
		}
		return append(dst, s...)
	}
	hour12 := (t.Hour()+11)%12 + 1
	layout := ""
	switch letter {
	case 'Y':
		return number(t.Year(), 4, '0'), true
	case 'C':
		return number(t.Year()/100, 2, '0'), true
	case 'y':
		return number(t.Year()%100, 2, '0'), true
	case 'm':
		return number(int(t.Month()), 2, '0'), true
	case 'd':
		return number(t.Day(), 2, '0'), true
	case 'e':
		return number(t.Day(), 2, ' '), true
	case 'j':
		return number(t.YearDay(), 3, '0'), true
	case 'H':
		return number(t.Hour(), 2, '0'), true
	case 'k':
		return number(t.Hour(), 2, ' '), true
	case 'I':
		return number(hour12, 2, '0'), true
	case 'l':
		return number(hour12, 2, ' '), true
	case 'M':
		return number(t.Minute(), 2, '0'), true
	case 'S':
		return number(t.Second(), 2, '0'), true
	case 'L':
		return number(t.Nanosecond()/1e6, 3, '0'), true
	case 'N':
		return number(t.Nanosecond(), 9, '0'), true
	case 'u':
		return number((int(t.Weekday())+6)%7+1, 1, '0'), true
	case 'w':
		return number(int(t.Weekday()), 1, '0'), true
	case 'U': // weeks that begin on Sunday
		return number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0'), true
	case 'W': // weeks that begin on Monday
		return number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0'), true
	case 'V':
		_, week := t.ISOWeek()
		return number(week, 2, '0'), true
	case 'G':
		year, _ := t.ISOWeek()
		return number(year, 4, '0'), true
	case 's':
		return strconv.AppendInt(dst, t.Unix(), 10), true
	case '%':
		return append(dst, '%'), true
	case 'n':
		return append(dst, '\n'), true
	case 't':
		return append(dst, '\t'), true
	case 'B':
		layout = "January"
	case 'b', 'h':
		layout = "Jan"
	case 'A':
		layout = "Monday"
	case 'a':
		layout = "Mon"
	case 'p':
		layout = "PM"
	case 'P':
		layout = "pm"
	case 'Z':
		layout = "MST"
	case 'z':
		layout = "-0700"
	case 'F':
		layout = "2006-01-02"
	case 'T', 'X':
		layout = "15:04:05"
	case 'R':
		layout = "15:04"
	case 'r':
		layout = "03:04:05 PM"
	case 'D', 'x':
		layout = "01/02/06"
	case 'v':
		layout = "_2-Jan-2006"
	case 'c':
		layout = "Mon Jan _2 15:04:05 2006"
	default:
		return dst, false
	}
	return t.AppendFormat(dst, layout), true
}
