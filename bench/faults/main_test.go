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
	tableFlag = flag.String("table", "", "write the table of all rows to this `file`; nothing is written unless all of them ran")
	linesFlag = flag.String("lines", "", "append a line of JSON for each row to this `file`")
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
	if *linesFlag == "" {
		return nil
	}
	f, err := os.OpenFile(*linesFlag, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s\n", line)
	return err
}

// write makes the page of what was seen.
func (r *rows) write(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if path == "" {
		return nil
	}
	for _, f := range Matrix() {
		if !slices.ContainsFunc(r.list, func(have Row) bool { return have.Name == f.Test }) {
			return fmt.Errorf("%s did not run to its end: the table is not written", f.Test)
		}
	}
	var servers []string
	for _, name := range []string{"PostgreSQL", "RabbitMQ", "Redis"} {
		servers = append(servers, strings.TrimSpace(name+" "+r.servers[name]))
	}
	s := Setting{Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Servers: strings.Join(servers, ", "),
		Nodes: nodes, Rate: usualRate}
	return os.WriteFile(path, []byte(Table(s, r.list)), 0o644)
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
