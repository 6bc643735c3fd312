package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// marshal writes JSON without escaping <, > and &, which mean nothing in a terminal.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// field finds a value by its dotted key; nil when there is none.
func field(obj map[string]any, key string) any {
	if v, ok := obj[key]; ok {
		return v
	}
	head, rest, ok := strings.Cut(key, ".")
	if !ok {
		return nil
	}
	inner, ok := obj[head].(map[string]any)
	if !ok {
		return nil
	}
	return field(inner, rest)
}

// pick keeps the named fields, in the order they were named.
func pick(obj map[string]any, keys []string) (json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := marshal(k)
		if err != nil {
			return nil, err
		}
		v, err := marshal(field(obj, k))
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// cell writes a JSON value as the text of a table's cell.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = cell(e)
		}
		return strings.Join(parts, ", ")
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		parts := make([]string, len(keys))
		for i, k := range keys {
			parts[i] = k + "=" + cell(v[k])
		}
		return strings.Join(parts, " ")
	}
	return fmt.Sprint(v)
}

// clean takes out what a terminal would act on, and what would break a line: control characters (C0, DEL, C1) and the
// characters that turn the direction of text.
func clean(s string) string { return strings.Map(visible, s) }

// cleanLines is clean for a text of several lines.
func cleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return visible(r)
	}, s)
}

func visible(r rune) rune {
	switch {
	case r == '\n' || r == '\t' || r == '\r':
		return ' '
	case unicode.IsControl(r), r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F:
		return -1
	case r == 0x2028 || r == 0x2029:
		return ' '
	}
	return r
}

// neutral keeps a spreadsheet from taking a cell for a formula (OWASP, CSV Injection): such a cell gets an apostrophe.
// A plain number, and so a phone number with its +, is none.
func neutral(s string) string {
	if s == "" || number(s) {
		return s
	}
	first := []rune(s)[0]
	if strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
		return "'" + s
	}
	return s
}

func number(s string) bool {
	digits := strings.TrimLeft(s[1:], "0123456789.")
	return len(s) > 1 && digits == "" && strings.ContainsRune("+-0123456789", rune(s[0]))
}

// nearest finds the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	best, at := "", 3
	if len(word) < 5 {
		at = 2
	}
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < at || d == at && best == "" && d <= len(word)/2 {
			best, at = k, d
		}
	}
	if best == "" && len(word) >= 3 {
		for _, k := range known {
			if strings.HasPrefix(k, word) {
				return k
			}
		}
	}
	return best
}

// distance counts the characters to change, add, drop or swap with their neighbour to get from a to b.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
