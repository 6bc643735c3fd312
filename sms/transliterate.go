package sms

import "strings"

// Transliterate writes text with the characters of the GSM alphabet where the replacement is obvious: typographic
// quotes and dashes, an ellipsis, special spaces, a letter without an accent that the alphabet lacks, a Greek capital
// that looks like a Latin one. It returns the characters, at most 20, for which there is none: they stay in the
// result, so when there are any, the result still travels as UCS2 and the caller does better to keep the original.
// Offsets count runes of text.
func Transliterate(text string) (string, []Forced) {
	if _, enc := Count(text); enc == GSM7 {
		return text, nil
	}
	var (
		out  strings.Builder
		left []Forced
		last rune // the rune before, not yet written: a combining accent may join it
	)
	flush := func() {
		if last != 0 {
			out.WriteString(plain(last))
			last = 0
		}
	}
	offset := 0
	for _, r := range text {
		_, cost := septets(r)
		switch {
		case combining(r) && letter(last):
			if c := compose(last, r); c != 0 {
				last = c
			}
		case cost != 0 || r == 0 || plain(r) != string(r):
			flush()
			if last = r; r == 0 { // NUL is not in the alphabet and cannot be held back as a rune
				out.WriteByte(0)
				left = appendForced(left, r, offset)
			}
		default:
			flush()
			last = r
			left = appendForced(left, r, offset)
		}
		offset++
	}
	flush()
	return out.String(), left
}

func appendForced(left []Forced, r rune, offset int) []Forced {
	if len(left) == maxForced {
		return left
	}
	return append(left, Forced{Rune: r, Offset: offset})
}

// plain returns the replacement of r: r itself when it is in the alphabet or when there is none.
func plain(r rune) string {
	if _, cost := septets(r); cost != 0 {
		return string(r)
	}
	if s, ok := replacements[r]; ok {
		return s
	}
	return string(r)
}

// combining reports whether r is an accent that joins the character before it (Combining Diacritical Marks).
func combining(r rune) bool { return r >= 0x300 && r <= 0x36F }

// letter reports whether r is a letter that an accent may be dropped from.
func letter(r rune) bool {
	if r|0x20 >= 'a' && r|0x20 <= 'z' {
		return true
	}
	_, cost := septets(r)
	_, replaced := replacements[r]
	return r >= 0xC0 && r <= 0x24F && (cost != 0 || replaced)
}

// compose returns the letter of the GSM alphabet that a base and a combining accent make, or 0.
func compose(base, accent rune) rune {
	const grave, acute, tilde, dieresis, ring, cedilla = 0x300, 0x301, 0x303, 0x308, 0x30A, 0x327
	for _, c := range [...]struct{ base, accent, is rune }{
		{'e', grave, 'è'}, {'e', acute, 'é'}, {'u', grave, 'ù'}, {'i', grave, 'ì'}, {'o', grave, 'ò'}, {'a', grave, 'à'},
		{'E', acute, 'É'}, {'C', cedilla, 'Ç'}, {'A', ring, 'Å'}, {'a', ring, 'å'}, {'N', tilde, 'Ñ'}, {'n', tilde, 'ñ'},
		{'A', dieresis, 'Ä'}, {'O', dieresis, 'Ö'}, {'U', dieresis, 'Ü'},
		{'a', dieresis, 'ä'}, {'o', dieresis, 'ö'}, {'u', dieresis, 'ü'},
	} {
		if c.base == base && c.accent == accent {
			return c.is
		}
	}
	return 0
}

// replacements is never written after it is made.
var replacements = replacementTable()

func replacementTable() map[rune]string {
	t := make(map[rune]string, 400)
	for _, row := range [...]struct{ to, from string }{
		{"'", "\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4`"},
		{"\"", "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"},
		{"<", "\u2039"}, {">", "\u203a"},
		{"-", "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043"},
		{"...", "\u2026"},
		{" ", "\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"},
		// Nothing is seen of these: zero width space, word joiner, byte order mark, soft hyphen.
		{"", "\u200b\u2060\ufeff\u00ad"},
		{"\n", "\u2028\u2029"},
		{"*", "\u2022\u00b7\u2219"},
		{"/", "\u2044\u2215"},
		{"(c)", "©"}, {"(r)", "®"}, {"(tm)", "™"},
		{"1/2", "½"}, {"1/4", "¼"}, {"3/4", "¾"},
		{"A", "ÁÂÃĀĂĄǍẠẢẤẦẨẪẬẮẰẲẴẶÀ"}, {"a", "áâãāăąǎạảấầẩẫậắằẳẵặª"},
		{"C", "ĆĈĊČ"}, {"c", "çćĉċč"},
		{"D", "ĎĐÐ"}, {"d", "ďđð"},
		{"E", "ÈÊËĒĔĖĘĚẸẺẼẾỀỂỄỆ"}, {"e", "êëēĕėęěẹẻẽếềểễệ"},
		{"G", "ĜĞĠĢ"}, {"g", "ĝğġģ"},
		{"H", "ĤĦ"}, {"h", "ĥħ"},
		{"I", "ÌÍÎÏĨĪĬĮİỈỊ"}, {"i", "íîïĩīĭįıỉị"},
		{"J", "Ĵ"}, {"j", "ĵ"},
		{"K", "Ķ"}, {"k", "ķ"},
		{"L", "ĹĻĽĿŁ"}, {"l", "ĺļľŀł"},
		{"N", "ŃŅŇ"}, {"n", "ńņňŉ"},
		{"O", "ÒÓÔÕŌŎŐƠỌỎỐỒỔỖỘỚỜỞỠỢ"}, {"o", "óôõōŏőơọỏốồổỗộớờởỡợº"},
		{"R", "ŔŖŘ"}, {"r", "ŕŗř"},
		{"S", "ŚŜŞŠȘ"}, {"s", "śŝşšș"},
		{"T", "ŢŤŦȚ"}, {"t", "ţťŧț"},
		{"U", "ÙÚÛŨŪŬŮŰŲƯỤỦỨỪỬỮỰ"}, {"u", "úûũūŭůűųưụủứừửữự"},
		{"W", "ŴẀẂẄ"}, {"w", "ŵẁẃẅ"},
		{"Y", "ÝŶŸỲỴỶỸ"}, {"y", "ýÿŷỳỵỷỹ"},
		{"Z", "ŹŻŽ"}, {"z", "źżž"},
		{"OE", "Œ"}, {"oe", "œ"}, {"SS", "ẞ"}, {"TH", "Þ"}, {"th", "þ"},
	} {
		for _, r := range row.from {
			t[r] = row.to
		}
	}
	// Greek capitals without a code of their own, in the order of the alphabet: TS 23.038 §6.2.1 means the Latin letters
	// to stand for them.
	latin := []rune("ABEZHIKMNOPTYX")
	for i, r := range []rune("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ") {
		t[r] = string(latin[i])
	}
	return t
}
