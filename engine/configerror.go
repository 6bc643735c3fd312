package engine

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// The library's own message shows the lines around a mistake, and one of them may be the store's URL with its password.
// So the message is made here: one line of the file, and its value only when that can be no secret.

// configError says where in a file a mistake is and what it is.
func configError(text []byte, err error) error {
	lines := strings.Split(string(text), "\n")
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil || at.GetToken().Position == nil {
		return valueError(lines, err)
	}
	pos := at.GetToken().Position
	line := ""
	if pos.Line >= 1 && pos.Line <= len(lines) {
		line = lines[pos.Line-1]
	}
	return show(pos.Line, pos.Column, line, explainYAML(at, line))
}

// valueError is about a value that its type refuses, such as a duration: the library says of it what, and not where.
func valueError(lines []string, err error) error {
	message := firstLine(err.Error())
	value := strings.Trim(quotedPiece.FindString(message), `"'`)
	for i, line := range lines {
		if t := typeOf(line); value != "" && t != nil {
			if at := strings.Index(line, value); at >= 0 {
				return show(i+1, at+1, line, "the value cannot be read: use "+wanted(t))
			}
		}
	}
	return errors.New(withoutSecrets(message, false))
}

func show(number, column int, line, message string) error {
	shown, caret := excerpt(strings.TrimRight(line, "\r"), column)
	margin := fmt.Sprintf("%4d | ", number)
	return fmt.Errorf("line %d, column %d: %s\n%s%s\n%s^", number, column, message, margin, shown,
		strings.Repeat(" ", len(margin)+caret))
}

// typeOf is the type that the key of a line takes; nil = there is no such key.
func typeOf(line string) reflect.Type {
	m := yamlKey.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	key := strings.Trim(m[2], "\"': ")
	for f := range fields(reflect.TypeFor[Config]()) {
		if f.Tag.Get("yaml") == key {
			return f.Type
		}
	}
	return nil
}

// fields are the fields of a part of the configuration and of those within it.
func fields(t reflect.Type) iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for _, f := range reflect.VisibleFields(t) {
			if !yield(f) {
				return
			}
			if name := f.Tag.Get("yaml"); f.Type.Kind() != reflect.Struct || name == "" || name == "-" {
				continue
			}
			for inner := range fields(f.Type) {
				if !yield(inner) {
					return
				}
			}
		}
	}
}

// explainYAML says what is wrong, in the words of the file.
func explainYAML(err yaml.Error, line string) string {
	var (
		unknown *yaml.UnknownFieldError
		twice   *yaml.DuplicateKeyError
		typed   *yaml.TypeError
		over    *yaml.OverflowError
		node    *yaml.UnexpectedNodeTypeError
	)
	key := err.GetToken().Value
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("there is no key %s%s", quotedKey(key), didYouMean(key))
	case errors.As(err, &twice):
		return fmt.Sprintf("the key %s stands there twice", quotedKey(key))
	case errors.As(err, &typed):
		return "the value is of the wrong type: use " + wanted(typed.DstType)
	case errors.As(err, &over):
		return "the number is too large"
	case errors.As(err, &node) && typeOf(line) != nil:
		return "the value is of the wrong type: use " + wanted(typeOf(line))
	case errors.As(err, &node):
		return fmt.Sprintf("%s stands where %s is expected", node.Actual.YAMLName(), node.Expected.YAMLName())
	}
	return withoutSecrets(firstLine(err.GetMessage()), maySecret(line))
}

// wanted names what a field takes.
func wanted(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return "what docs/reference/config.md says"
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 3s or 5m"
	case t == reflect.TypeFor[[]time.Duration]():
		return "a list of durations such as [5s, 1m]"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list such as [a, b]"
	case reflect.Struct:
		return "keys of its own, indented below it: " + strings.Join(keysOf(t, ""), ", ")
	default:
		return "a text"
	}
}

// keysOf lists the keys of a part of the configuration, those of parts within it as part.key.
func keysOf(t reflect.Type, prefix string) (keys []string) {
	for f := range t.Fields() {
		name := f.Tag.Get("yaml")
		if name == "-" || name == "" {
			continue
		}
		keys = append(keys, prefix+name)
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type, prefix+name+".")...)
		}
	}
	return keys
}

// didYouMean offers the key that was probably meant. A key that only stands elsewhere is offered with its place.
func didYouMean(typed string) string {
	exact := typed
	typed = strings.ToLower(strings.ReplaceAll(typed, "-", "_"))
	if len(typed) > 40 {
		return ": docs/reference/config.md lists them"
	}
	best, least := "", 3
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		last := key[strings.LastIndex(key, ".")+1:]
		if d := edits(typed, last); d < least && 2*d < len(last) {
			best, least = key, d
		}
	}
	part, key, nested := strings.Cut(best, ".")
	switch {
	case best == "":
		return ": docs/reference/config.md lists them"
	case nested:
		return fmt.Sprintf(": did you mean %s, below %s?", key, part)
	case best == exact:
		return fmt.Sprintf(" here: did you mean %s, not indented?", best)
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// edits counts the letters to insert, drop, change or swap with their neighbour.
func edits(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

var (
	yamlKey     = regexp.MustCompile(`^(\s*(?:-\s+)?)(["']?[A-Za-z_][\w.-]*["']?\s*:)(?:\s|$)`)
	secretWord  = regexp.MustCompile(`(?i)pass|pwd|secret|token|credential|private|key|auth|\b(store|broker|limits)\b`)
	quotedPiece = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'[^']*'`)
)

const notShown = "…"

// maySecret reports whether a line, or a piece of one, may hold a password: a URL with more than a host, a key that is
// named like a secret, or a line that goes on with the value of the line before.
func maySecret(line string) bool {
	if strings.TrimSpace(line) == "" {
		return false
	}
	plain := strings.NewReplacer("http://", "", "https://", "").Replace(line)
	item := strings.HasPrefix(strings.TrimSpace(line), "- ")
	return strings.Contains(line, "@") || strings.Contains(plain, "://") || secretWord.MatchString(line) ||
		!item && !yamlKey.MatchString(line)
}

// excerpt is what may be shown of a line, and before which byte of it the caret stands.
func excerpt(line string, column int) (shown string, caret int) {
	caret = min(max(column-1, 0), len(line))
	if maySecret(line) {
		m := yamlKey.FindStringSubmatch(line)
		if m == nil {
			line = line[:len(line)-len(strings.TrimLeft(line, " \t"))] + notShown
		} else {
			line = m[1] + m[2] + " " + notShown + " (not shown: it may hold a password)"
			caret = min(caret, len(m[1]+m[2])+1)
		}
	}
	const most = 100
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + notShown
	}
	return strings.ReplaceAll(line, "\t", " "), min(caret, len(line))
}

// withoutSecrets takes the pieces of the file out of a message that may be secrets; all of them on request.
func withoutSecrets(message string, all bool) string {
	known := keysOf(reflect.TypeFor[Config](), "")
	message = quotedPiece.ReplaceAllStringFunc(message, func(piece string) string {
		inner := piece[1 : len(piece)-1]
		if len(inner) <= 1 || slices.Contains(known, inner) || !all && !maySecret("x: "+inner) {
			return piece
		}
		return `"` + notShown + `"`
	})
	if strings.Contains(message, "@") || strings.Contains(message, "://") {
		return "this is not valid YAML"
	}
	return message
}

// quotedKey is a key as it is shown, unless it looks like a value.
func quotedKey(key string) string {
	if len(key) > 64 || strings.ContainsAny(key, "@/ ") {
		return `"` + notShown + `"`
	}
	return fmt.Sprintf("%q", key)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
