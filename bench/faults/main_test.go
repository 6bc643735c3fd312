//go:build faults && unix

package faults

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	tableFlag = flag.String("table", "", "write the table of all rows to this `file`, and the rows beside it as JSON; rows that "+
		"did not run stay as the JSON has them, and nothing is written when one is nowhere")
)

// roleEnv makes this test binary an engine with another clock. Only this package knows it.
const roleEnv = "MSGCTL_FAULTS_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "engine" {
		os.Exit(skewedEngine(os.Stderr))
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	if err := book.write(*tableFlag); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = cmp.Or(code, 1)
	}
	os.Exit(code)
}

// built is where binary has put the engine.
var built string

// binary builds the engine once.
var binary = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "msgctl-faults-"); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", built+"/", "./cmd/engine")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w:\n%s", err, out)
	}
	return filepath.Join(built, "engine"), nil
})

// book is what the tests of this process have seen.
var book = &rows{servers: map[string]string{}}

type rows struct {
	mu      sync.Mutex
	list    []Row
	servers map[string]string // name → version
}

// server notes the version of a server.
func (r *rows) server(name, version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers[name] = version
}

// add notes a row.
func (r *rows) add(row Row) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, row)
	line, err := json.Marshal(row)
	if err != nil {
		return err
	}
	fmt.Printf("row: %s\n", line)
	return nil
}

// kept is what is kept of all runs: the last of each row.
type kept struct {
	Setting
	Rows []Row
}

// write makes the page of what was seen, now and before.
func (r *rows) write(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if path == "" || len(r.list) == 0 {
		return nil
	}
	file := strings.TrimSuffix(path, filepath.Ext(path)) + ".json"
	var before kept
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, &before); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	now := kept{Setting: Setting{Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Servers: before.Servers,
		Nodes: nodes, Rate: usualRate}}
	if len(r.servers) == 3 {
		now.Servers = fmt.Sprintf("PostgreSQL %s, RabbitMQ %s, Redis %s", r.servers["PostgreSQL"], r.servers["RabbitMQ"],
			r.servers["Redis"])
	}
	for _, f := range Matrix() {
		named := func(have Row) bool { return have.Name == f.Test }
		from := r.list
		if !slices.ContainsFunc(from, named) {
			from = before.Rows
		}
		i := slices.IndexFunc(from, named)
		if i < 0 {
			return fmt.Errorf("%s has never run to its end: the table is not written", f.Test)
		}
		row := from[i]
		row.Does, row.Required = f.Does, f.Required
		now.Rows = append(now.Rows, row)
	}
	b, err := json.MarshalIndent(now, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(Table(now.Setting, now.Rows)), 0o644)
}

// machine says what class of machine this is.
func machine() string {
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight"}
	n := runtime.NumCPU()
	if n >= len(words) {
		return fmt.Sprintf("%d virtual cores", n)
	}
	return words[n] + " virtual cores"
}
