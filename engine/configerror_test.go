package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/engine"
)

// readConfig reads a text as the server's file.
func readConfig(t interface{ Fatal(...any) }, dir, text string) error {
	path := filepath.Join(dir, "engine.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := engine.ReadConfig(path)
	return err
}

func TestAMistakeInTheFile(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"misspelt": {"dir: x\nlisen: 127.0.0.1:1\n", "line 2, column 1: there is no key \"lisen\": did you mean listen?\n" +
			"   2 | lisen: 127.0.0.1:1\n" +
			"       ^"},
		"swapped":       {"sotre: x\n", `there is no key "sotre": did you mean store?`},
		"hyphen":        {"public-url: http://h\n", `did you mean public_url?`},
		"of a part":     {"level: debug\n", `there is no key "level": did you mean level, below log?`},
		"part misspelt": {"log:\n  levl: debug\n", "line 2, column 3: there is no key \"levl\": did you mean level, below log?"},
		"indented":      {"log:\n  listen: x\n", `there is no key "listen" here: did you mean listen, not indented?`},
		"like nothing":  {"colour: red\n", `there is no key "colour": docs/reference/config.md lists them`},
		"twice":         {"dir: a\nnode: b\ndir: c\n", `line 3, column 1`},
		"number": {"admission:\n  max_requests: many\n", "line 2, column 17: the value is of the wrong type: use a whole number\n" +
			"   2 |   max_requests: many\n" +
			"                       ^"},
		"bool": {"allow_private: [1]\n", "use true or false"},
		"list": {"roles: api\n", "line 1, column 8: the value is of the wrong type: use a list such as [a, b]"},
		"part": {"log: info\n", "use keys of its own, indented below it: level, format"},
		"text": {"dir: [x]\n", "use a text"},
		"duration": {"dir: x\nheartbeat: soon\n", "line 2, column 12: the value cannot be read: use a duration such as 3s or 5m\n" +
			"   2 | heartbeat: soon\n"},
		"delays":    {"retry: [1s, later]\n", "line 1, column 13: the value cannot be read: use a list of durations such as [5s, 1m]"},
		"open":      {"dir: {\n", "line 1, column"},
		"tab":       {"log:\n\tlevel: x\n", "line 2, column 1"},
		"two texts": {"dir: a\nnode: b: c\n", "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			err := readConfig(t, t.TempDir(), c.text)
			require.ErrorContains(t, err, "engine.yaml: ")
			require.ErrorContains(t, err, c.want)
		})
	}
}

const canary = "canary-27182"

// TestNoPasswordInAMistake writes files with a password in every place it may stand, and a mistake on, before and behind
// that line: no message shows it.
func TestNoPasswordInAMistake(t *testing.T) {
	lines := []string{
		"store: postgres://msgctl:" + canary + "@db/msgctl",
		"  store: postgres://msgctl:" + canary + "@db/msgctl",
		"sotre: postgres://msgctl:" + canary + "@db/msgctl",
		"store: [postgres://msgctl:" + canary + "@db/msgctl]",
		"store: {postgres://msgctl:" + canary + "@db/msgctl}",
		"store: \"postgres://msgctl:" + canary + "@db/msgctl",
		"store: postgres://msgctl: " + canary + "@db/msgctl",
		"store: postgres:/msgctl:" + canary,
		"store: >\n  postgres://msgctl:\n " + canary + "\n",
		"broker: !!int amqp://msgctl:" + canary + "@mq",
		"broker: *" + canary,
		"limits: \"redis://:" + canary + "\\q@cache\"",
		"log: {level: info, password: " + canary + "}",
		"log: {level: 1, format: amqp://u:" + canary + "@x",
		"password: " + canary,
		"allow_private: " + "amqp://u:" + canary + "@x",
		"admission:\n  max_requests: postgres://u:" + canary + "@x",
		"heartbeat: postgres://u:" + canary + "@x",
		"retry: [postgres://u:" + canary + "@x]",
		"postgres://u:" + canary + "@x",
		"postgres://u:" + canary + "@x: 1",
		"? postgres://u:" + canary + "@x",
		"secret: {a: b, token: " + canary,
	}
	mistakes := []string{"", "nothing: here", "dir: [", "node: \"", "node: a: b", "admission:\n  max_requests: x", "\tlog: x", "dir: x\ndir: x"}
	dir := t.TempDir()
	shown := 0
	for _, line := range lines {
		for _, mistake := range mistakes {
			for _, text := range []string{line + "\n" + mistake + "\n", mistake + "\n" + line + "\n"} {
				if err := readConfig(t, dir, text); err != nil {
					require.NotContains(t, err.Error(), canary, "the file was:\n%s", text)
					shown++
				}
			}
		}
	}
	require.Greater(t, shown, 250, "the files were to be wrong")
}

// TestAnyTextIsAnswered reads made-up files: whatever is wrong is said in few lines.
func TestAnyTextIsAnswered(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		words := []string{"dir", "store", "log", "level", "retry", ":", ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", "\"", "'", "|",
			">", "&a", "*a", "<<", "?", "#", "\t", "1", "3s", "!!int", "%", "---", "ü", ",", "x"}
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 20).Draw(t, "words"), "")
		if err := readConfig(t, dir, text); err != nil {
			if n := strings.Count(err.Error(), "\n"); n > 2 {
				t.Fatalf("%d lines for %q:\n%s", n+1, text, err)
			}
		}
	})
}
